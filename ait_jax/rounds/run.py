"""A run at work: the value that its steps share, how it is opened, how a step is recorded."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ait_jax.errors import UserError, first_line, shown
from ait_jax.models.checkpoints.restore import open_fitting, restore_params
from ait_jax.models.parameters import abstract_params, init_params
from ait_jax.pool import TaskPool
from ait_jax.rounds.generations import Generations
from ait_jax.rounds.record import durations
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.run_summaries import RunSummaries
from ait_jax.runtime import distributed, files, preemption, reporter
from ait_jax.runtime.hardware import devices_held
from ait_jax.runtime.partitioning import model_info
from ait_jax.runtime.watching import watch
from ait_jax.scorer import processes
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.parts import ModelParts
from ait_jax.scorer.work import PromptCounts
from ait_jax.trainer.interface import Trained
from ait_jax.trainer.metrics import TrainingWork

Experiment = TypeVar("Experiment", bound=ModelParts)
MakePage = Callable[[Any, ModelParts, TaskPool], None]


class OnDemand:
    """Parameters that `read` trains, reads or draws when first needed; kept until forgotten."""

    def __init__(self, read: Callable[[], Trained]) -> None:
        self._read = read
        self._trained: Trained | None = None

    def trained(self) -> Trained:
        """Returns the parameters, with what is known about their training."""
        if self._trained is None:
            self._trained = self._read()
        return self._trained

    def params(self) -> Any:
        """Returns the parameters, float32."""
        return self.trained().params

    def forget(self) -> None:
        """Frees the memory; the next call reads them again."""
        self._trained = None


@dataclass(frozen=True)
class Run(Generic[Experiment]):
    """What the steps of a run share.

    Attributes:
      experiment: its settings.
      directory: open, and locked by this program.
      engine: asks the model.
      pool: as this round sees it; if it grows, the next round has another `Run`.
      base: the parameters of INIT_CHECKPOINT, on the mesh.
      summaries: TensorBoard and the like.
      generations: of the pool; None if it may not grow.
      continued: whether an earlier call began it.
      done_before: how many steps earlier calls have done.
      page: makes report.html; None makes none.
    """

    experiment: Experiment
    directory: RunDirectory
    engine: Engine
    pool: TaskPool
    base: OnDemand
    summaries: RunSummaries
    generations: Generations | None = None
    continued: bool = False
    done_before: int = 0
    page: MakePage | None = None


@dataclass(frozen=True)
class Done:
    """The outcome of a step.

    Attributes:
      summary: for run.json, without wall-clock values.
      counts: the prompts it asked about.
      training: the work of its training steps, if it trained.
    """

    summary: dict[str, Any]
    counts: PromptCounts = field(default_factory=PromptCounts)
    training: TrainingWork | None = None


@contextmanager
def opened(
    experiment: Experiment,
    kind: str,
    config: str,
    report: Callable[[str], None],
    page: MakePage | None,
    *,
    identity: Mapping[str, str] | None = None,
    before: Callable[[RunDirectory], None] | None = None,
) -> Iterator[Run[Experiment]]:
    """Locks and opens the run directory of an experiment for the block.

    Args:
      kind: of `record.Record`, for live.json.
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.
      page: see `Run`.
      identity: JSON values that must be the same when the run is continued.
      before: called once the directory is locked, before it is opened.

    Raises:
      UserError: INIT_CHECKPOINT is missing or does not fit, or the directory holds another run.
    """
    directory = RunDirectory(experiment.model_dir)
    _check_checkpoint(experiment, directory)
    shown = reporter.Reporter(kind, report)
    with directory.lock(), watch(shown, directory.path, durations(directory.path)):
        if before:
            before(directory)
        pool = experiment.pool
        generations = Generations(directory) if getattr(experiment, "grow_pool", False) else None
        continued = directory.open(
            config,
            {"name": pool.name, "fingerprint": pool.fingerprint(), **(identity or {})},
            experiment.seed,
            functools.partial(generations.changes, pool) if generations else None,
        )
        if continued:
            directory.check_lists(pool)
        engine = _engine(experiment)
        reporter.owned(directory.state["stages"], engine.work.speed)
        base = OnDemand(lambda: Trained(_base_params(experiment, directory), 0, directory.path))
        with RunSummaries(getattr(experiment, "summaries", ()), directory) as summaries:
            yield Run(
                experiment,
                directory,
                engine,
                pool,
                base,
                summaries,
                generations,
                continued,
                len(directory.state["stages"]),
                page if experiment.report else None,
            )


def _engine(parts: ModelParts) -> Engine:
    return Engine(
        parts.model, parts.partitioner, parts.buckets, parts.tokens_per_batch, parts.length_growth
    )


def _check_checkpoint(parts: ModelParts, directory: RunDirectory) -> None:
    """Refuses a missing or unfitting INIT_CHECKPOINT before anything is written."""
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
        raise UserError(f"INIT_CHECKPOINT = {shown(parts.init_checkpoint)}: {error}") from error


def _base_params(parts: ModelParts, directory: RunDirectory) -> Any:
    """Reads or draws the parameters to start from; writes model-info.txt."""
    shapes, axes = abstract_params(parts.model)
    shardings = parts.partitioner.param_shardings(shapes, axes)
    files.write_text(directory.path / "model-info.txt", model_info(shapes, axes, shardings))
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
    reporter.say(f"INIT_CHECKPOINT: {restored.describe()}")
    return restored.params


def stage(run: Run[Any], name: str, work: Callable[[], Done]) -> dict[str, Any]:
    """Does a step of a run, such as "round_000/train", unless it is done; returns its summary.

    Duration and throughput go to timings.jsonl.
    """
    if run.directory.is_done(name):
        return run.directory.state["stages"][name]
    preemption.check()
    start = time.perf_counter()
    run.engine.work.clear()
    with reporter.stage(name):
        done = work()
        summary = run.directory.stage(name, lambda: done.summary)
    _record_time(run, name, time.perf_counter() - start, done)
    return summary


def _record_time(run: Run[Any], name: str, seconds: float, done: Done) -> None:
    """Adds a line to timings.jsonl and says it; a training's evaluations stand apart."""
    asked = processes.total(run.engine.work, run.experiment.partitioner)
    figures = asked.summary() | done.counts.summary()
    line = asked.describe() + (f", asked for {done.counts.describe()}" if done.counts.asked else "")
    if done.training is not None and done.training.steps:
        spent = done.training.evaluation_seconds
        evaluations = f"; evaluations {spent:.1f} s{line}" if spent else ""
        line = f": {done.training.describe()}{evaluations}"
        figures = done.training.summary() | {"evaluations": figures}
    run.directory.add_timing(name, seconds, **figures, **devices_held())
    reporter.say(f"{name}: {seconds:.1f} s{line}")


def write_page(run: Run[Any]) -> None:
    """Makes report.html of what is done so far; a failure is reported and does not end the run."""
    nothing_new = len(run.directory.state["stages"]) == run.done_before
    if nothing_new and (run.done_before == 0 or (run.directory.path / "report.html").exists()):
        return
    if run.page is None or not distributed.is_writer():
        return
    try:
        run.page(run.directory.path, run.experiment, run.pool)
    except Exception as error:  # no defect of a page may end a run of days
        reporter.say(f"cannot make report.html: {type(error).__name__}: {first_line(error)}")


def say_page(run: Run[Any]) -> None:
    """Says where report.html is."""
    path = run.directory.path / "report.html"
    if run.page and path.exists():
        reporter.say(f"report: {path}")
