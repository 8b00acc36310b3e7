"""Scoring a pool with one model, without training: where is each task on the task map?"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, nearest
from ait_jax.pool.splits import read_names
from ait_jax.rounds.parts import Parts
from ait_jax.rounds.record import durations
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.stages import Stages, check_checkpoint, selection_summary
from ait_jax.runtime import files, reporter
from ait_jax.runtime.watching import watch
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.scorer.racing import check_strategy
from ait_jax.selection import task_map
from ait_jax.selection.selection import Strategy
from ait_jax.selection.uncertainty import TaskScores

# A pool's gin file also says how a run begins from it and goes on; scoring does neither.
UNUSED_MACROS = ("INITIAL_SPLITS", "GROW_POOL")
# Everything is drawn as in the first round of a run, so that the same model, settings and
# tasks have the same scores there.
ROUND = 0
_NUM_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Scoring(Parts):
    """What `ait-jax score` consists of; gin fills it (gin/experiments/score.gin).

    Args:
      tasks: a file of task names, one a line; None is every task of the pool.
      strategy: writes what it would select next; None selects nothing.
      Others: see `Parts`. `tasks_per_round` is the size of the task map's categories and of
        the selection.
    """

    tasks: str | None = None
    strategy: Strategy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.racing:
            check_strategy(self.strategy)
        if self.init_checkpoint is None:
            raise UserError(
                "INIT_CHECKPOINT = None leaves nothing to score with; set --gin.INIT_CHECKPOINT to "
                "a checkpoint (runs/mini/round_002/checkpoint_60, for example)."
            )


def run(scoring: Scoring, config: str = "", report: Callable[[str], None] = print) -> TaskScores:
    """Scores the tasks, or continues where an earlier call stopped.

    Args:
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.

    Returns:
      The tasks' scores, ascending by name.

    Raises:
      UserError: an unreadable or unknown task, a checkpoint that is missing or does not fit,
        or a folder that holds something else.
    """
    directory = RunDirectory(scoring.model_dir)
    check_checkpoint(scoring, directory)
    with (
        directory.lock(),
        watch(reporter.Reporter("score", report), directory.path, durations(directory.path)),
    ):
        return _Scored(scoring, directory, config, report).run()


def tasks_to_score(scoring: Scoring) -> tuple[str, ...]:
    """Returns the names that TASKS asks for, in its order."""
    if scoring.tasks is None:
        return tuple(scoring.pool)
    path = files.as_path(scoring.tasks)
    try:
        names = read_names(path)
    except UserError as error:
        raise UserError(f"TASKS = {scoring.tasks!r}: {error}") from error
    if not names:
        raise UserError(f"TASKS = {scoring.tasks!r} names no task; write one name a line.")
    _, unknown = scoring.pool.drop_missing(names)
    if unknown:
        raise UserError(
            f"TASKS = {scoring.tasks!r} names {unknown[0]!r}, which the pool "
            f"{scoring.pool.name!r} lacks ({len(unknown)} of {len(names)} names are unknown)."
            + nearest(unknown[0], scoring.pool)
        )
    return names


class _Scored(Stages):
    """One folder of scores."""

    def __init__(self, scoring, directory, config, report) -> None:
        names = tasks_to_score(scoring)
        # The file may change while its path stays the same.
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        identity = {"tasks": f"{len(names)} named {digest[:16]}"}
        super().__init__(scoring, directory, config, report, identity)
        self.scoring = scoring
        self.names = tuple(name for name in names if len(self.pool[name].instances))
        self.folder = directory.path
        self._check_sizes(len(names))

    def _check_sizes(self, num_named: int) -> None:
        if not self.names:
            raise UserError(
                f"None of the {num_named} tasks has an instance to score; look at the gin names "
                "POOL and TASKS."
            )
        size = self.scoring.tasks_of_round(ROUND)
        if self.scoring.strategy is not None and size > len(self.names):
            raise UserError(
                f"TASKS_PER_ROUND = {size} is more than the {len(self.names)} scored tasks that "
                "STRATEGY selects from; set --gin.TASKS_PER_ROUND lower."
            )
        if num_named > len(self.names):
            self.report(f"{num_named - len(self.names)} tasks have no instances and are left out")

    def run(self) -> TaskScores:
        if self.directory.is_done("map"):
            self.report(f"already scored: {len(self.names):,} tasks in {self.folder}")
        else:
            verb = "continuing" if self.continued else "starting"
            self.report(
                f"{verb} in {self.folder}: {len(self.names):,} of the {len(self.pool):,} tasks of "
                f"the pool {self.pool.name!r}, scored with {self.scoring.init_checkpoint}"
            )
        reporter.plan([("score", len(self.names)), ("map", len(self.names))])
        self.timed_stage("score", self._score)
        scores = read_task_scores(self.folder / "task_scores.parquet")
        stage = self.timed_stage("map", lambda: self._map(scores))
        self.write_report()
        self._summarize(scores, stage["categories"])
        return scores

    def _score(self) -> dict[str, Any]:
        files.write_lines(self.folder / "tasks.txt", self.names)
        return self.score(self.names, self.folder, self.base_params, ROUND, self.scoring.strategy)

    def _map(self, scores: TaskScores) -> dict[str, Any]:
        strategy = self.scoring.strategy
        summary: dict[str, Any] = {}
        selected: Sequence[str] = ()
        context = self.selection_context(scores, ROUND)
        if strategy is not None:
            selection = self.select(self.folder, strategy, context)
            selected = selection.tasks
            summary = {"selection": selection_summary(strategy, selection)}
        ranked = self.draw_task_map(
            self.folder, context, selected, strategy=strategy.name if strategy else ""
        )
        first = {category: names[:_NUM_SHOWN] for category, names in ranked.items()}
        return {"categories": first, **summary}

    def _summarize(self, scores: TaskScores, first: Mapping[str, Sequence[str]]) -> None:
        row_of = {name: row for row, name in enumerate(scores.tasks)}
        titles = {
            task_map.AMBIGUOUS: "most prompt-sensitive (ambiguous)",
            task_map.EASY: "easy: sure of the answer, whatever the wording",
            task_map.DIFFICULT: "difficult: unsure, whatever the wording",
        }
        self.report("\nuncertainty  probability  task")
        for category, names in first.items():
            self.report(f"{titles[category]}; all in {self.folder / category}.txt")
            for name in names:
                row = row_of[name]
                self.report(
                    f"{scores.prompt_uncertainty[row]:11.4f}  "
                    f"{scores.prediction_probability[row]:11.4f}  {name}"
                )
        self.report(f"task map: {self.folder / 'task_map.png'}")
        if self.scoring.strategy is not None:
            self.report(f"selected by {self.scoring.strategy.name}: {self.folder / 'selected.txt'}")
        self.report(f"scores of {len(scores):,} tasks: {self.folder / 'task_scores.parquet'}")
        self.report_page()
        self.report(f"folder: {self.folder}")
