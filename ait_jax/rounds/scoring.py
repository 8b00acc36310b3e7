"""Scoring a pool with one model, without training: where each task lies on the task map."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool.splits import read_names
from ait_jax.rounds import stages
from ait_jax.rounds.record import SCORE
from ait_jax.rounds.references import say_lacking
from ait_jax.rounds.run import Done, MakePage, Run, opened, say_page, stage, write_page
from ait_jax.runtime import files, reporter
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.scorer.parts import Parts
from ait_jax.scorer.racing import check_strategy
from ait_jax.selection import task_map
from ait_jax.selection.selection import Strategy
from ait_jax.selection.uncertainty import TaskScores

# Macros of a pool's gin file that only runs use.
UNUSED_MACROS = ("INITIAL_SPLITS", "GROW_POOL")
# Draws are those of a run's first round: the same model, settings and tasks have the same scores.
ROUND = 0
_NUM_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Scoring(Parts):
    """The settings of `ait-jax score` (gin/experiments/score.gin).

    Args:
      tasks: a file of task names, one per line; None scores every task of the pool.
      strategy: selects what a run would train on next; None selects nothing.
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


def run(
    scoring: Scoring,
    config: str = "",
    report: Callable[[str], None] = print,
    page: MakePage | None = None,
) -> TaskScores:
    """Scores the tasks, or continues where an earlier call stopped.

    Args:
      config, report, page: as for `run.opened`.

    Returns:
      The tasks' scores, ascending by name.

    Raises:
      UserError: an unreadable or unknown task, a missing or unfitting checkpoint, or a folder
        that holds another run.
    """
    names = tasks_to_score(scoring)
    # The file may change while its path stays the same.
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    identity = {"tasks": f"{len(names)} named {digest[:16]}"}
    with opened(scoring, SCORE, config, report, page, identity=identity) as opened_run:
        return _score_and_map(opened_run, names)


def tasks_to_score(scoring: Scoring) -> tuple[str, ...]:
    """Returns the names of TASKS, in its order."""
    if scoring.tasks is None:
        return tuple(scoring.pool)
    path = files.as_path(scoring.tasks)
    try:
        names = read_names(path)
    except UserError as error:
        raise UserError(f"TASKS = {shown(scoring.tasks)}: {error}") from error
    if not names:
        raise UserError(f"TASKS = {shown(scoring.tasks)} names no task; write one name per line.")
    unknown = [name for name in names if name not in scoring.pool]
    if unknown:
        raise UserError(
            f"TASKS = {shown(scoring.tasks)} names {shown(unknown[0])}, which the pool "
            f"{shown(scoring.pool.name)} lacks ({len(unknown)} of {len(names)} names are unknown)."
            + nearest(unknown[0], scoring.pool)
        )
    return names


def _score_and_map(run: Run[Scoring], named: Sequence[str]) -> TaskScores:
    """Writes tasks.txt, the scores, the task map, and a strategy's selection."""
    scoring, folder = run.experiment, run.directory.path
    names = _with_instances(run, named)
    if run.directory.is_done("map"):
        reporter.say(f"already scored: {len(names):,} tasks in {folder}")
    else:
        verb = "continuing" if run.continued else "starting"
        reporter.say(
            f"{verb} in {folder}: {len(names):,} of the {len(run.pool):,} tasks of the pool "
            f"{shown(run.pool.name)}, scored with {scoring.init_checkpoint}"
        )
    say_lacking(run.pool, scoring.vocabulary, names)
    reporter.plan([("score", len(names)), ("map", len(names))])

    def score() -> Done:
        files.write_lines(folder / "tasks.txt", names)
        return stages.score(run, ROUND, run.base.params(), names, folder, scoring.strategy)

    stage(run, "score", score)
    scores = read_task_scores(folder / "task_scores.parquet")
    done = stage(run, "map", lambda: _map(run, scores))
    write_page(run)
    _summarize(run, scores, done["categories"])
    return scores


def _with_instances(run: Run[Scoring], named: Sequence[str]) -> tuple[str, ...]:
    """Returns the tasks that can be scored.

    Raises:
      UserError: there are none, or fewer than are to be selected.
    """
    names = tuple(name for name in named if len(run.pool[name].instances))
    if not names:
        raise UserError(
            f"None of the {len(named)} tasks has an instance to score; change POOL or TASKS."
        )
    size = run.experiment.tasks_of_round(ROUND)
    if run.experiment.strategy is not None and size > len(names):
        raise UserError(
            f"TASKS_PER_ROUND = {size} is more than the {len(names)} scored tasks that STRATEGY "
            "selects from; lower --gin.TASKS_PER_ROUND."
        )
    if len(named) > len(names):
        reporter.say(f"{len(named) - len(names)} tasks have no instances and are left out")
    return names


def _map(run: Run[Scoring], scores: TaskScores) -> Done:
    strategy, folder = run.experiment.strategy, run.directory.path
    context = stages.selection_context(run, ROUND, scores, run.base, strategy)
    summary: dict[str, Any] = {}
    selected: Sequence[str] = ()
    if strategy is not None:
        selection = stages.write_selection(run, context, folder, strategy)
        selected = selection.tasks
        summary = {"selection": stages.selection_summary(strategy, selection)}
    name = strategy.name if strategy else ""
    ranked = stages.write_task_map(context, folder, selected, strategy=name)
    first = {category: names[:_NUM_SHOWN] for category, names in ranked.items()}
    return Done({"categories": first, **summary})


def _summarize(run: Run[Scoring], scores: TaskScores, first: Mapping[str, Sequence[str]]) -> None:
    """Says how the ends of the task map look and where the files are."""
    strategy, folder = run.experiment.strategy, run.directory.path
    row_of = {name: row for row, name in enumerate(scores.tasks)}
    titles = {
        task_map.AMBIGUOUS: "most prompt-sensitive (ambiguous)",
        task_map.EASY: "easy: sure of the answer, whatever the wording",
        task_map.DIFFICULT: "difficult: unsure, whatever the wording",
    }
    reporter.say("\nuncertainty  probability  task")
    for category, names in first.items():
        reporter.say(f"{titles[category]}; all in {folder / category}.txt")
        for name in names:
            figures = (scores.prompt_uncertainty, scores.prediction_probability)
            uncertainty, probability = (each[row_of[name]] for each in figures)
            reporter.say(f"{uncertainty:11.4f}  {probability:11.4f}  {name}")
    reporter.say(f"task map: {folder / 'task_map.png'}")
    if strategy is not None:
        reporter.say(f"selected by {strategy.name}: {folder / 'selected.txt'}")
    reporter.say(f"scores of {len(scores):,} tasks: {folder / 'task_scores.parquet'}")
    say_page(run)
    reporter.say(f"folder: {folder}")
