"""How a run begins: its first splits, remarks about its pool, the steps to come."""

from typing import Any

from ait_jax.errors import UserError
from ait_jax.pool.splits import SPLIT_NAMES, Splits, read_splits, write_splits
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.record import round_name
from ait_jax.rounds.run import Run
from ait_jax.runtime import reporter


def begin(run: Run[Experiment]) -> Splits:
    """Draws the first round's splits, or reads them; writes round_000/*_tasks.txt."""

    def draw() -> dict[str, Any]:
        experiment = run.experiment
        splits, dropped = experiment.initial_splits.draw(run.pool, experiment.seed)
        selections = range(experiment.rounds - 1)
        wanted = sum(map(experiment.tasks_of_round, selections))
        if wanted > len(splits.remain):
            raise UserError(
                f"{len(selections)} selections of TASKS_PER_ROUND = {experiment.tasks_per_round} "
                f"need {wanted} tasks, {len(splits.remain)} remain; lower TASKS_PER_ROUND, ROUNDS "
                "or INITIAL_TASKS."
            )
        write_splits(run.directory.folder(0), splits)
        if run.generations:
            run.generations.begin(run.pool)
        return {"dropped_tasks": dropped}

    dropped = run.directory.stage("round_000/splits", draw)["dropped_tasks"]
    splits = read_splits(run.directory.folder(0))
    missing = f"; {dropped} tasks of the split files are not in the pool" if dropped else ""
    counts = (f"{len(getattr(splits, name)):,} {name}" for name in SPLIT_NAMES)
    reporter.say(f"tasks: {', '.join(counts)}{missing}")
    _say_remarks(run, splits)
    return splits


def _say_remarks(run: Run[Experiment], splits: Splits) -> None:
    """Says which tasks lack instances or examples, and how the pool has grown since."""
    pool = run.pool
    bare = [name for name, task in pool.items() if not len(task.instances)]
    if bare:
        reporter.say(
            f"{len(bare):,} of the pool's {len(pool):,} tasks have no instances to train on or "
            f"score, such as {bare[0]}"
        )
    few = [n for n in splits.names if len(pool[n].instruction.positive_examples) < 2]
    if few and run.experiment.encoding.shows_examples:
        reporter.say(f"{len(few)} tasks have fewer than 2 positive examples, such as {few[0]}")
    generations = run.generations
    pending = generations.pending(pool) if generations else 0
    if generations and pending:
        selections = range(run.experiment.rounds - 1)
        settled = all(map(generations.is_settled, selections))
        outcome = "no selection is left for them" if settled else "they join at the next selection"
        reporter.say(f"the pool was extended by {pending:,} tasks; {outcome}")


def planned(run: Run[Experiment], splits: Splits) -> list[tuple[str, float]]:
    """Returns the steps to come, each with its number of tasks, for estimates of time."""
    experiment = run.experiment
    train, remain = len(splits.train), len(splits.remain)
    evaluated = len(splits.test) + len(splits.dev)
    plan: list[tuple[str, float]] = []
    if experiment.evaluate_base:
        plan.append(("base/evaluate", evaluated))
    for round_index in range(experiment.rounds):
        name = round_name(round_index)
        plan += [(f"{name}/train", train), (f"{name}/evaluate", evaluated)]
        if round_index + 1 < experiment.rounds:
            if experiment.strategy.needs_scores:
                plan.append((f"{name}/score", remain))
            plan.append((f"{name}/select", remain))
            chosen = experiment.tasks_of_round(round_index)
            train, remain = train + chosen, remain - chosen
    return plan
