"""What the loop and `ait-jax score` share: stages of a run directory, worked on by one engine."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.models.checkpoints.restore import open_fitting, restore_params
from ait_jax.models.parameters import abstract_params, init_params
from ait_jax.pool.cls_gen import Quotas
from ait_jax.pool.pool import TaskPool
from ait_jax.randomness import Key
from ait_jax.rounds.generations import Generations
from ait_jax.rounds.parts import ModelParts
from ait_jax.rounds.pictures import plot_task_map
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime import distributed, files, reporter
from ait_jax.runtime.hardware import devices_held
from ait_jax.runtime.partitioning import model_info
from ait_jax.scorer import gathering, likelihoods, raced_scoring
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.counts import PromptCounts
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.racing import Race
from ait_jax.selection import task_map
from ait_jax.selection.selection import Selection, SelectionContext, Strategy, select
from ait_jax.selection.uncertainty import TaskScores, task_scores


def check_checkpoint(parts: ModelParts, directory: RunDirectory) -> None:
    """Refuses an INIT_CHECKPOINT that is none, or does not fit, before anything is written."""
    if parts.init_checkpoint is None or directory.has_begun:
        return
    with _about_init_checkpoint(parts):
        open_fitting(
            parts.init_checkpoint, parts.model, fallback_to_scratch=parts.fallback_to_scratch
        )


@contextmanager
def _about_init_checkpoint(parts: ModelParts) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"INIT_CHECKPOINT = {parts.init_checkpoint!r}: {error}") from error


class Stages:
    """The stages of one folder.

    Args:
      parts: what works in them; `Parts` where tasks are scored.
      directory: locked by the caller.
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.
      identity: what else must be the same when the folder is continued, for JSON.
      grow_pool: let the pool have more tasks when the folder is continued.

    Attributes:
      continued: whether there was something to continue.
      counts: the prompts that the stage at work asked about.
      generations: of the pool; None where it may not grow.
    """

    def __init__(
        self,
        parts: ModelParts,
        directory: RunDirectory,
        config: str,
        report: Callable[[str], None],
        identity: Mapping[str, str] = {},
        grow_pool: bool = False,
    ) -> None:
        self.parts, self.directory = parts, directory
        self.report = reporter.say
        self.pool = parts.pool
        self.engine = Engine(
            parts.model,
            parts.partitioner,
            parts.buckets,
            parts.tokens_per_batch,
            parts.length_growth,
        )
        self.counts = PromptCounts()
        pool = {"name": self.pool.name, "fingerprint": self.pool.fingerprint(), **identity}
        self.generations = Generations(directory) if grow_pool else None
        pool_changes = grow_pool and partial(self.generations.changes, self.pool)
        self.continued = directory.open(config, pool, parts.seed, pool_changes or None)
        reporter.owned(directory.state["stages"], self.engine.work.speed)
        self._stages_reported = len(directory.state["stages"])

    @cached_property
    def base_params(self) -> Any:
        """The parameters of INIT_CHECKPOINT, on the mesh."""
        parts = self.parts
        shapes, axes = abstract_params(parts.model)
        shardings = parts.partitioner.param_shardings(shapes, axes)
        info = model_info(shapes, axes, shardings)
        files.write_text(self.directory.path / "model-info.txt", info)
        if parts.init_checkpoint is None:
            return init_params(parts.model, parts.seed, shardings)[0]
        with _about_init_checkpoint(parts):
            restored = restore_params(
                parts.init_checkpoint,
                parts.model,
                parts.partitioner,
                fallback_to_scratch=parts.fallback_to_scratch,
                rng_seed=parts.seed,
            )
        self.report(f"INIT_CHECKPOINT: {restored.describe()}")
        return restored.params

    def timed_stage(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A stage of run.json whose duration and throughput go to timings.jsonl."""
        if self.directory.is_done(name):
            return self.directory.stage(name, work)
        start = time.perf_counter()
        self.engine.work.clear()
        self.counts = PromptCounts()
        with reporter.stage(name):
            result = self.directory.stage(name, work)
        seconds = time.perf_counter() - start
        work = gathering.total(self.engine.work, self.parts.partitioner)
        figures = work.summary() | self.counts.summary() | devices_held()
        self.directory.add_timing(name, seconds, **figures)
        asked = f", asked for {self.counts.describe()}" if self.counts.asked else ""
        self.report(f"{name}: {seconds:.1f} s{work.describe()}{asked}")
        return result

    def write_report(self) -> None:
        """Makes report.html of what is done so far; a failure is one line and not the run's.

        A round that was done before does nothing here.
        """
        done = len(self.directory.state["stages"])
        path = self.directory.path / "report.html"
        # A finished run that is started again may lack it.
        if done == self._stages_reported and (done == 0 or path.exists()):
            return
        self._stages_reported = done
        if not self.parts.report or not distributed.is_writer():
            return
        from ait_jax.report import run_report, settings  # late: what reads a run comes after it

        try:
            run_report.make(self.directory.path, settings.of_parts(self.parts, self.pool))
        except Exception as error:  # whatever it is, it must not end a run of days
            text = (str(error).splitlines() or [""])[0]
            self.report(f"report.html was not made: {type(error).__name__}: {text}")

    def report_page(self) -> None:
        """Says where the report is."""
        path = self.directory.path / "report.html"
        if self.parts.report and path.exists():
            self.report(f"report: {path}")

    def asker(self, params: Any, pool: TaskPool | None = None) -> Asker:
        """Returns what asks a model, with float32 `params`, about a pool: by default the run's."""
        parts = self.parts
        placed = self.engine.place(params)
        return Asker(
            self.engine, placed, pool or self.pool, parts.vocabulary, parts.encoding, parts.seed
        )

    def score(
        self,
        tasks: Sequence[str],
        folder: Path,
        params: Any,
        round: int,
        strategy: Strategy | None = None,
    ) -> dict[str, Any]:
        """Writes likelihoods.parquet and task_scores.parquet of `tasks`: the work of a stage.

        With RACING, only as much of them as the selection by `strategy` needs, and race.json.

        Args:
          params: float32 parameters of `parts.model`.
          round: keys the draws of instances and perturbations.

        Returns:
          What run.json says of it.
        """
        parts = self.parts
        path = folder / "likelihoods.parquet"
        asker = self.asker(params)
        if parts.racing:
            groups = Quotas(parts.tasks_of_round(round), parts.cls_ratio).groups(
                tasks, self.pool.is_cls
            )
            race = Race(parts.racing_settings, strategy, groups, parts.scorer.num_perturbations)
            self.counts += raced_scoring.score(
                race, parts.scorer, asker, tasks, path, round_index=round
            )
        else:
            self.counts += parts.scorer.score(asker, tasks, path, round_index=round)
        num_prompts, num_cut = likelihoods.count_cut(path)
        if num_cut:
            self.report(
                f"{num_cut:,} of {num_prompts:,} prompts were cut at MAX_SOURCE_LENGTH = "
                f"{parts.encoding.max_source_length} tokens"
            )
        scores = task_scores(likelihoods.read_likelihoods(path))
        likelihoods.write_task_scores(folder / "task_scores.parquet", scores)
        return {"tasks": len(tasks), "prompts_cut": num_cut}

    def selection_context(self, scores: TaskScores, round_index: int) -> SelectionContext:
        """Returns what a round selects from."""
        quotas = Quotas(self.parts.tasks_of_round(round_index), self.parts.cls_ratio)
        return SelectionContext(scores, self.pool, quotas, Key(self.parts.seed, round_index))

    def select(self, folder: Path, strategy: Strategy, context: SelectionContext) -> Selection:
        """Writes selected.txt."""
        if self.parts.racing:
            strategy = raced_scoring.ranking(strategy, folder / "likelihoods.parquet")
        selection = select(strategy, context)
        files.write_lines(folder / "selected.txt", selection.tasks)
        return selection

    def draw_task_map(
        self, folder: Path, context: SelectionContext, selected: Sequence[str] = (), **title: Any
    ) -> dict[str, list[str]]:
        """Writes task_map.png and ambiguous.txt, easy.txt, difficult.txt.

        Returns the tasks of these three, the most telling ones first.

        Args:
          selected: tasks to ring.
          title: round and strategy, as `pictures.plot_task_map` takes them.
        """
        categories = task_map.classify(context)
        plot_task_map(folder / "task_map.png", context, categories, selected=selected, **title)
        ranked = task_map.ranked(context, categories)
        for category, names in ranked.items():
            files.write_lines(folder / f"{category}.txt", names)
        return ranked


def selection_summary(strategy: Strategy, selection: Selection) -> dict[str, Any]:
    """Returns what run.json says of a selection."""
    return {
        "strategy": strategy.name,
        "tasks": len(selection.tasks),
        "cls": selection.num_cls,
        "gen": selection.num_gen,
        "margins": dict(selection.margins),
        "close_calls": selection.close_calls(),
    }
