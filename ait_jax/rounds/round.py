"""The steps of active instruction tuning: begin, train, evaluate, take in tasks, score, select."""

import dataclasses
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation.prediction import predict, shuffled_positions
from ait_jax.pool.splits import SPLIT_NAMES, Splits, read_splits, write_splits
from ait_jax.rounds import references, stages
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.record import round_name
from ait_jax.rounds.run import Done, OnDemand, Run, stage
from ait_jax.runtime import reporter
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection.uncertainty import TaskScores
from ait_jax.trainer.interface import TrainingJob


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
        return {"dropped_tasks": dropped, **references.settled(run, splits.test + splits.dev)}

    dropped = run.directory.stage("round_000/splits", draw)["dropped_tasks"]
    splits = read_splits(run.directory.folder(0))
    missing = f"; {dropped} tasks of the split files are not in the pool" if dropped else ""
    counts = (f"{len(getattr(splits, name)):,} {name}" for name in SPLIT_NAMES)
    reporter.say(f"tasks: {', '.join(counts)}{missing}")
    _say_remarks(run, splits)
    return splits


def _say_remarks(run: Run[Experiment], splits: Splits) -> None:
    """Says which tasks lack instances, examples or characters, and how the pool has grown since."""
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
    references.say_lacking(pool, run.experiment.vocabulary, splits.names)
    references.say_rouge(run, splits.test + splits.dev)
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


def train(run: Run[Experiment], round_index: int, start: OnDemand, splits: Splits) -> OnDemand:
    """Trains on the tasks chosen so far, from `start`; keeps the best checkpoint on dev tasks."""
    experiment = run.experiment
    seed, positions = experiment.dev_instances_seed, None
    if seed is not None:
        positions = shuffled_positions(run.pool, splits.test + splits.dev, seed)

    def dev_metrics(params: Any) -> dict[str, float]:
        asked = stages.asker(run, params)
        most = experiment.max_dev_instances
        answers = predict(asked, splits.dev, max_instances=most, positions=positions)
        run.engine.work.pause()  # it trains on
        return stages.flat_headline(stages.metrics(run, answers, {"dev": splits.dev})["dev"])

    def job() -> TrainingJob:
        return stages.training_job(
            run,
            round_index,
            splits.train,
            start.params(),
            max_instances_per_task=experiment.max_instances_per_task,
            evaluate=dev_metrics if splits.dev else None,
        )

    trainer, counts = experiment.trainer_of(round_index), {"tasks": len(splits.train)}
    used_up = None if start is run.base else start
    return stages.train(run, round_index, trainer, job, counts, used_up)


def evaluate(
    run: Run[Experiment], round_index: int | None, model: OnDemand, splits: Splits
) -> CurvePoint:
    """Answers the test and dev tasks; writes predictions.jsonl and eval.json.

    Args:
      round_index: None is the model before any training.
    """
    name = round_name(round_index)

    def work() -> Done:
        asked = stages.asker(run, model.params())
        most = run.experiment.max_eval_instances
        answers = predict(asked, splits.test + splits.dev, max_instances=most)
        groups = {"test": splits.test, "dev": splits.dev}
        return Done(stages.write_evaluation(run, run.directory.path / name, answers, groups))

    result = stage(run, f"{name}/evaluate", work)
    test = result["test"]
    if test["rougeL"] is None:
        reporter.say(f"{name}: no metrics, because no test instance has a reference output")
    else:
        figures = f"ROUGE-L {test['rougeL']:.2f}, exact match {test['exact_match']:.2f}"
        reporter.say(f"{name}: test {figures}")
    num_tasks = 0 if round_index is None else len(splits.train)
    return CurvePoint.from_evaluation(round_index, num_tasks, result)


def grow(run: Run[Experiment], round_index: int, splits: Splits) -> tuple[Run[Experiment], Splits]:
    """Takes in the pool's new tasks, where it may grow; writes joined_tasks.txt."""
    run, joined = stages.grow(run, round_index)
    return run, dataclasses.replace(splits, remain=splits.remain + joined)


def score(run: Run[Experiment], round_index: int, model: OnDemand, splits: Splits) -> Any:
    """Scores the remaining tasks, if the strategy needs scores; writes likelihoods.parquet.

    Returns:
      task_scores.parquet; None if the strategy needs no scores.
    """
    strategy, name = stages.strategy_of(run, round_index), round_name(round_index)
    if not strategy.needs_scores:
        return None
    folder = run.directory.folder(round_index)

    def work() -> Done:
        with reporter.prefixed(name):
            return stages.score(run, round_index, model.params(), splits.remain, folder, strategy)

    stage(run, f"{name}/score", work)
    return folder / "task_scores.parquet"


def select(
    run: Run[Experiment], round_index: int, scores: Any, model: OnDemand, splits: Splits
) -> Splits:
    """Selects the next round's tasks; writes selected.txt, the task map, and the next splits.

    Args:
      scores: task_scores.parquet of the remaining tasks, if they were scored.
    """
    name = round_name(round_index)
    folder, following = run.directory.folder(round_index), run.directory.folder(round_index + 1)

    def work() -> Done:
        strategy = stages.strategy_of(run, round_index)
        known = read_task_scores(scores) if scores else TaskScores.unscored(splits.remain)
        others = {"train": splits.train, "dev": splits.dev}
        context = stages.selection_context(run, round_index, known, model, strategy, **others)
        selection = stages.write_selection(run, context, folder, strategy)
        if scores:
            title = {"round_index": round_index, "strategy": strategy.name}
            stages.write_task_map(context, folder, selection.tasks, **title)
        write_splits(following, splits.after(selection.tasks))
        return Done(stages.selection_summary(strategy, selection))

    selection = stage(run, f"{name}/select", work)
    for group, margin in selection["close_calls"].items():
        reporter.say(
            f"{name}: the last {group} task won by {margin:.1e}; another mesh may select another"
        )
    return read_splits(following)
