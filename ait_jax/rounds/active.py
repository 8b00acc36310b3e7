"""The loop of active instruction tuning: train, evaluate, score the remaining tasks, select."""

from collections.abc import Callable
from typing import Any

from ait_jax.errors import shown
from ait_jax.pool.splits import Splits, read_names
from ait_jax.rounds import round_zero
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.learning_curve import CurvePoint, render_text
from ait_jax.rounds.pictures import plot_learning_curve
from ait_jax.rounds.record import ACTIVE, round_name
from ait_jax.rounds.round import begin, evaluate, grow, planned, score, select, train
from ait_jax.rounds.run import MakePage, Run, opened, say_page, write_page
from ait_jax.runtime import reporter


def run(
    experiment: Experiment,
    config: str = "",
    report: Callable[[str], None] = print,
    round_0_from: str | None = None,
    page: MakePage | None = None,
) -> list[CurvePoint]:
    """Runs all rounds, or continues where an earlier call stopped.

    Args:
      config, report, page: as for `run.opened`.
      round_0_from: a run that differs in its strategy alone and has done round 0; a run that
        begins takes that over (`round_zero`).

    Returns:
      The learning curve's points.
    """

    def take_over(directory: Any) -> None:
        if round_0_from is not None:
            round_zero.take_over(directory, round_0_from, experiment, config)

    with opened(experiment, ACTIVE, config, report, page, before=take_over) as opened_run:
        return _rounds(opened_run, config)


def _rounds(run: Run[Experiment], config: str) -> list[CurvePoint]:
    """The loop."""
    experiment = run.experiment
    verb = "continuing" if run.continued else "starting"
    reporter.say(f"{verb} in {run.directory.path}: {experiment.rounds} rounds on {shown(run.pool)}")
    splits = begin(run)
    reporter.plan(planned(run, splits))
    if not run.directory.is_done(f"{round_name(experiment.rounds - 1)}/evaluate"):
        run.summaries.start()
    run.summaries.begun(config)
    points: list[CurvePoint] = []
    model = run.base
    if experiment.evaluate_base:
        points.append(evaluate(run, None, model, splits))
        tell_evaluation(run, points, splits)
    for round_index in range(experiment.rounds):
        start = model if experiment.train_from == "previous" else run.base
        model = train(run, round_index, start, splits)
        points.append(evaluate(run, round_index, model, splits))
        tell_evaluation(run, points, splits)
        if round_index + 1 < experiment.rounds:
            run, splits = grow(run, round_index, splits)
            scores = score(run, round_index, model, splits)
            splits = select(run, round_index, scores, model, splits)
            run.summaries.selected(round_index, run.pool)
        write_page(run)
    summarize(run, points)
    return points


def tell_evaluation(run: Run[Experiment], points: list[CurvePoint], splits: Splits) -> None:
    """Draws learning_curve.png after every round, and tells the summaries."""
    last, is_trained = points[-1], points[-1].round_index is not None
    if is_trained:
        path = run.directory.path / "learning_curve.png"
        plot_learning_curve(path, points, strategy=run.experiment.strategy.name)
    groups = {"test": splits.test, "dev": splits.dev}
    run.summaries.evaluated(last.round_index, last.num_tasks, groups, curve=is_trained)


def summarize(run: Run[Experiment], points: list[CurvePoint]) -> None:
    """Says how the run ended and where its files are."""
    path = run.directory.path
    reporter.say(f"\nlearning curve: {path / 'learning_curve.png'}\n{render_text(points)}")
    for round_index in range(run.experiment.rounds - 1):
        folder = run.directory.folder(round_index)
        chosen = read_names(folder / "selected.txt")
        shown = ", ".join(chosen[:4]) + (", ..." if len(chosen) > 4 else "")
        reporter.say(f"selected after round {round_index} ({folder / 'selected.txt'}): {shown}")
        if (folder / "task_map.png").exists():
            reporter.say(f"task map of round {round_index}: {folder / 'task_map.png'}")
    say_page(run)
    reporter.say(f"run directory: {path}")
