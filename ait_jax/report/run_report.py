"""report.html of a run directory: what it says, and the file, written whole."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ait_jax import __version__
from ait_jax.errors import UserError, shown
from ait_jax.evaluation.rouge import ENGLISH
from ait_jax.pool import TaskPool
from ait_jax.report import page, run_results, settings
from ait_jax.report.run_results import TaskIndex
from ait_jax.report.settings import Settings, of_parts
from ait_jax.report.task_details import OtherPrompts, details
from ait_jax.rounds import record
from ait_jax.rounds.generations import known_changes
from ait_jax.rounds.record import CONTINUAL, SCORE, Record, read_evaluation, read_race, round_name
from ait_jax.runtime import files

SCHEMA = 1
NAME = "report.html"
DETAIL_MEGABYTES = 12.0
FINISHED = "finished"


def make_page(model_dir: Any, parts: Any, pool: TaskPool) -> None:
    """Writes the report of a run in progress, from its `parts.ModelParts`: a `run.MakePage`."""
    make(model_dir, of_parts(parts, pool))


def make(
    model_dir: Any,
    known: Settings | None = None,
    *,
    out: Any = None,
    detail_megabytes: float = DETAIL_MEGABYTES,
    price_per_device_hour: float | None = None,
) -> Any:
    """Writes the report of a run, finished or not, and nothing else; returns its path.

    Args:
      model_dir: of `ait-jax run` or `ait-jax score`.
      known: the settings of a run in progress; None reads them from config.gin.
      out: the file to write; None is report.html in `model_dir`.
      detail_megabytes, price_per_device_hour: as in `payload_and_details`.

    Raises:
      UserError: no run directory, a damaged file, or `out` cannot be written.
    """
    run = record.read(model_dir)
    if known is None:
        known = settings.of_config(run.config, run.seed, run.path)
    payload, chunks = payload_and_details(
        run,
        known,
        title=str(model_dir),
        detail_megabytes=detail_megabytes,
        price_per_device_hour=price_per_device_hour,
    )
    path = files.as_path(out) if out is not None else run.path / NAME
    text = page.render(payload, chunks)
    files.write_text(path, text, any_process=True)
    return path


def payload_and_details(
    run: Record,
    settings: Settings,
    *,
    title: str,
    detail_megabytes: float,
    price_per_device_hour: float | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what `page.render` takes: everything that the report shows, as plain values.

    Args:
      settings: with a pool if it can be opened; one that is not the run's is ignored.
      title: MODEL_DIR as the user wrote it.
      detail_megabytes: space for what a click on a task shows.
      price_per_device_hour: in any currency.

    Raises:
      UserError: a damaged file.
    """
    settings = _with_the_runs_pool(run, settings)
    index = TaskIndex(run)
    rounds = run_results.scored_rounds(run, index)
    chunks, left_out, problem = _details(run, index, settings, rounds, detail_megabytes)
    tasks, categories = index.columns(settings.pool)
    state = _state(run, settings)
    timings = run_results.timings(run)
    payload = {
        "kind": "run",
        "title": title,
        "version": __version__,
        "schema": SCHEMA,
        "summary": {
            "work": run.kind,
            "pool": run.pool.get("name", ""),
            "tasks": len(index),
            "cls": _count(tasks["is_cls"], 1),
            "gen": _count(tasks["is_cls"], 0),
            "strategy": next((r["strategy"] for r in rounds if r["strategy"]), settings.strategy),
            "seed": run.seed,
            "rounds": len(run.rounds) if run.kind == CONTINUAL else settings.rounds or 0,
            "rounds_done": sum(f"{round_name(r)}/evaluate" in run.stages for r in run.rounds),
            "answers": settings.answers,
            "state": state,
            "notes": [*_notes(run), *([problem] if problem else [])],
        },
        "tasks": tasks,
        "task_categories": categories,
        "evaluations": run_results.evaluations(run, index),
        "rounds": rounds,
        "training": run_results.training(run),
        "timings": timings,
        "cost": run_results.cost(timings, price_per_device_hour),
        "config": run.config,
        "commands": _commands(run, title.rstrip("/"), state),
        "details_left_out": left_out,
        "details_note": _details_note(chunks, left_out, problem, len(index)),
    }
    return payload, chunks


def _with_the_runs_pool(run: Record, settings: Settings) -> Settings:
    """Returns the settings without a pool that is not the one the run was made with."""
    if settings.pool is None:
        return settings
    try:
        changes = known_changes(run.path, run.state, settings.pool)
        for name in settings.pool:
            settings.pool.is_cls(name)  # reads instances where the pool has no labels
    except (UserError, OSError) as error:
        changes = [str(error)]
    if not changes:
        return settings
    return replace(settings, pool=None, problem=f"the pool has changed: {changes[0]}")


def _details(
    run: Record, index: TaskIndex, settings: Settings, rounds: list[dict[str, Any]], room: float
) -> tuple[list[dict[str, Any]], int, str]:
    """Returns the details, how many are left out, and "" or why there are none."""
    missing, why = "details", settings.problem.rstrip(".")
    if settings.pool is None:
        missing = "instructions, categories and details"
        why = why or "the pool is not available"
    elif settings.encoding is not None:
        try:
            return *details(run, index, settings.pool, settings, rounds, room), ""
        except OtherPrompts as error:
            why = f"the scored prompts cannot be rebuilt ({str(error).rstrip('.')})"
    return [], len(index), f"Without {missing} of tasks: {why}."


def _details_note(chunks: list[Any], left_out: int, problem: str, num_tasks: int) -> str:
    if problem or not (chunks and left_out):
        return problem if left_out else ""
    return (
        f"Details of {num_tasks - left_out:,} of {num_tasks:,} tasks: selected ones first, "
        "then the most telling ones of each region. `ait-jax report --detail_megabytes=N` shows "
        "more."
    )


def _count(values: list[int | None], wanted: int) -> int | None:
    return None if None in values else values.count(wanted)


# --- how far the run is ---


def _state(run: Record, settings: Settings) -> str:
    """Returns "finished", "unfinished: STAGE comes next", or that config.gin does not say."""
    rounds = settings.rounds
    if run.kind == CONTINUAL:
        # A pool that was extended gives rounds beyond those that the run began with.
        rounds = max(run.stages.get("round_000/splits", {}).get("stages", 1), len(run.rounds))
    if rounds is None and run.kind != SCORE:
        last = next(reversed(run.stages), "nothing")
        return f"done so far: {last} (config.gin does not say how many rounds there are)"
    missing = next((s for s in _stages(run, settings, rounds or 0) if s not in run.stages), None)
    return f"unfinished: {missing} comes next" if missing else FINISHED


def _stages(run: Record, settings: Settings, rounds: int) -> Iterator[str]:
    """Yields all stages of a run in order."""
    if run.kind == SCORE:
        yield from ("score", "map")
        return
    yield "round_000/splits"
    if settings.evaluate_base and run.kind != CONTINUAL:
        yield "base/evaluate"
    for round_index in range(rounds):
        name = round_name(round_index)
        if run.kind == CONTINUAL:
            yield f"{name}/replay"
        yield f"{name}/train"
        yield f"{name}/evaluate"
        if run.kind != CONTINUAL and round_index + 1 < rounds:
            # A user's own strategy: it needs scores unless it selected without them.
            if settings.needs_scores or (
                settings.needs_scores is None and f"{name}/select" not in run.stages
            ):
                yield f"{name}/score"
            yield f"{name}/select"


# --- words ---


def _notes(run: Record) -> list[str]:
    """Returns what to know before trusting a figure, as far as the run's files alone tell."""
    found: list[str] = []
    version = run.state["code_version"]
    if version != __version__:
        found.append(f"The run was begun with ait-jax {version}; this report is by {__version__}.")
    if dropped := run.stages.get("round_000/splits", {}).get("dropped_tasks"):
        found.append(f"{dropped:,} tasks named in the split files are not in the pool.")
    if run.rouge_tokenizer != ENGLISH:
        found.append(
            f"ROUGE splits texts by {shown(run.rouge_tokenizer)}, not as Tk-Instruct's English "
            "track: compare its figures only with others of the same way."
        )
    for round_index in run.rounds:
        found += _notes_of_round(run, round_index)
    return found


def _notes_of_round(run: Record, round_index: int) -> Iterator[str]:
    if joined := (run.stage(round_index, "pool") or {}).get("joined"):
        yield f"{joined:,} new tasks joined the pool in round {round_index}."
    if cut := (run.stage(round_index, "score") or {}).get("prompts_cut"):
        yield f"{cut:,} prompts of round {round_index} were too long and were cut at their end."
    if race := read_race(run.folder(round_index)):
        passes, full = race.get("passes"), race.get("full_passes")
        share = f" with {passes / full:.0%} of the prompts" if passes and full else ""
        yield (
            f"Round {round_index} was scored as a race{share}: a task's uncertainty is a mean over "
            "as many prompts as its place in the selection needed."
        )
    close = run_results.selection_of(run, round_index).get("close_calls") or {}
    for group, margin in close.items():
        yield (
            f"The last {group} task of round {round_index} won by {margin:.1e}: another mesh may "
            "select differently."
        )
    test = (read_evaluation(run.folder(round_index)) or {}).get("test")
    if without := test and test.get("num_without_references"):
        yield (
            f"{without:,} test instances of round {round_index} have no reference and are not "
            "measured."
        )


def _commands(run: Record, model_dir: str, state: str) -> list[dict[str, str]]:
    """Returns the payload's `commands`: to run again, continue, or use what the run left."""
    command = "ait-jax score" if run.kind == SCORE else "ait-jax run"
    config = shlex.quote(f"--gin_file={model_dir}/config.gin")
    again = shlex.quote(f"--gin.MODEL_DIR={model_dir}_again")
    lines = {"reproduce it in another folder": f"{command} {config} {again}"}
    if state != FINISHED:
        here = shlex.quote(f"--gin.MODEL_DIR={model_dir}")
        lines["continue it"] = f"{command} {config} {here}"
    lines["make this report again"] = f"ait-jax report {shlex.quote(model_dir)}"
    if run.kind != SCORE:
        board = f"tensorboard --logdir={shlex.quote(model_dir)}"
        lines["training curves in TensorBoard"] = board
        steps = {r: (run.stage(r, "train") or {}).get("checkpoint_step") for r in run.rounds}
        trained = [round_index for round_index, step in steps.items() if step]
        if trained:
            last = trained[-1]
            checkpoint = f"{model_dir}/{round_name(last)}/checkpoint_{steps[last]}"
            source = shlex.quote(checkpoint)
            hugging_face = f"ait-jax convert {source} model --to=hf"
            score = f"ait-jax score --gin.INIT_CHECKPOINT={source} --gin.MODEL_DIR=scores"
            lines[f"the model of round {last} for Hugging Face"] = hugging_face
            lines[f"score a pool with the model of round {last}"] = score
    return [{"what": what, "line": line} for what, line in lines.items()]
