"""Everything a report shows, as plain values: `report/page.py` makes the page of them."""

from dataclasses import replace
from typing import Any

from ait_jax import __version__
from ait_jax.errors import UserError
from ait_jax.report import (
    commands,
    cost,
    evaluations,
    notes,
    progress_of_run,
    scored_rounds,
    training,
)
from ait_jax.report.details import Details, details
from ait_jax.report.run_files import CONTINUAL, RunFiles
from ait_jax.report.settings import Settings
from ait_jax.report.task_detail import OtherPrompts
from ait_jax.report.task_index import TaskIndex
from ait_jax.rounds.generations import known_changes

SCHEMA = 1


def payload_and_details(
    run: RunFiles,
    settings: Settings,
    *,
    title: str,
    detail_megabytes: float,
    price_per_device_hour: float | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what `page.render` takes.

    Args:
      settings: with a pool, if it can be opened; one that is not the run's is not used.
      title: MODEL_DIR as the user wrote it.
      detail_megabytes: room in the page for what a click on a task shows.
      price_per_device_hour: in any currency.

    Raises:
      UserError: a damaged file.
    """
    settings = _with_the_runs_pool(run, settings)
    index = TaskIndex(run)
    rounds = scored_rounds.scored_rounds(run, index)
    shown, problem = _details(run, index, settings, rounds, detail_megabytes)
    tasks, categories = index.columns(settings.pool)
    state = progress_of_run.state(run, settings)
    timings = cost.timings(run)
    payload = {
        "kind": "run",
        "title": title,
        "version": __version__,
        "schema": SCHEMA,
        "summary": {
            "work": run.kind,
            "pool": run.state["pool"].get("name", ""),
            "tasks": len(index),
            "cls": _count(tasks["is_cls"], 1),
            "gen": _count(tasks["is_cls"], 0),
            "strategy": next((r["strategy"] for r in rounds if r["strategy"]), settings.strategy),
            "seed": run.state["seed"],
            "rounds": len(run.rounds) if run.kind == CONTINUAL else settings.rounds or 0,
            "rounds_done": progress_of_run.rounds_done(run),
            "answers": settings.answers,
            "state": state,
            "notes": [*notes.notes(run), *([problem] if problem else [])],
        },
        "tasks": tasks,
        "task_categories": categories,
        "evaluations": evaluations.evaluations(run, index),
        "rounds": rounds,
        "training": training.training(run),
        "timings": timings,
        "cost": cost.cost(timings, price_per_device_hour),
        "config": run.config,
        "commands": commands.commands(run, title, state),
        "details_left_out": shown.left_out,
        "details_note": _details_note(shown, problem, len(index)),
    }
    return payload, list(shown.chunks)


def _with_the_runs_pool(run: RunFiles, settings: Settings) -> Settings:
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
    return replace(settings, pool=None, problem=f"the pool is not what it was: {changes[0]}")


def _details(
    run: RunFiles, index: TaskIndex, settings: Settings, rounds: list[dict[str, Any]], room: float
) -> tuple[Details, str]:
    """Returns the details, and "" or why there are none."""
    nothing = Details(left_out=len(index))
    if settings.pool is None:
        why = settings.problem.rstrip(".") or "the pool is not at hand"
        return nothing, f"Without instructions, categories and details of tasks: {why}."
    if settings.encoding is None:
        return nothing, f"Without details of tasks: {settings.problem.rstrip('.')}."
    try:
        return details(run, index, settings, rounds, room), ""
    except OtherPrompts as error:
        why = str(error).rstrip(".")
        return nothing, (
            f"Without details of tasks: the prompts that were scored cannot be made again ({why})."
        )


def _details_note(shown: Details, problem: str, num_tasks: int) -> str:
    if not shown.left_out:
        return ""
    if problem or not shown.chunks:
        return problem
    return (
        f"Details of {num_tasks - shown.left_out:,} of {num_tasks:,} tasks: selected ones first, "
        "then the most telling ones of each region. `ait-jax report --detail_megabytes=N` makes "
        "room for more."
    )


def _count(values: list[int | None], wanted: int) -> int | None:
    return None if None in values else values.count(wanted)
