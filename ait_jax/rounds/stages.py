"""The steps that every kind of run shares: train, answer, score, select, map."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax import randomness
from ait_jax.evaluation.evaluation import METRICS, Prediction, evaluate_splits, write_predictions
from ait_jax.pool import TaskPool
from ait_jax.pool.cls_gen import Quotas
from ait_jax.randomness import Key
from ait_jax.rounds import references
from ait_jax.rounds.pictures import plot_task_map
from ait_jax.rounds.record import read_evaluation, round_name
from ait_jax.rounds.run import Done, Experiment, OnDemand, Run, stage
from ait_jax.runtime import files, reporter
from ait_jax.scorer import embeddings, likelihoods, raced_scoring
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.parts import ModelParts, Parts
from ait_jax.scorer.racing import Race
from ait_jax.scorer.reference_losses import reference_losses
from ait_jax.selection import task_map
from ait_jax.selection.embedded_strategy import EmbeddedStrategy
from ait_jax.selection.reference_strategy import ReferenceStrategy
from ait_jax.selection.selection import Selection, SelectionContext, Strategy, select
from ait_jax.selection.uncertainty import TaskScores, task_scores
from ait_jax.trainer.examples import InstructionExamples
from ait_jax.trainer.interface import Evaluate, Trained, Trainer, TrainingJob


def grow(
    run: Run[Experiment], round_index: int, only_if_extended: bool = False
) -> tuple[Run[Experiment], tuple[str, ...]]:
    """Settles which pool a round sees, where it may grow; writes joined_tasks.txt.

    Args:
      only_if_extended: do nothing unless the pool has new tasks.

    Returns:
      The run with that pool, and the new tasks that join at this round.
    """
    generations, pool = run.generations, run.pool
    if generations is None:
        return run, ()
    if not generations.is_settled(round_index):
        # Only once in every process: someone may be extending the pool right now.
        pool = pool.reopened()
        if only_if_extended and not generations.pending(pool):
            return run, ()
    settled = generations.settle(round_index, pool)
    if settled["joined"] or settled["held_out"]:
        held_out = settled["held_out"]
        out = f", {held_out:,} are test or dev tasks" if held_out else ""
        reporter.say(
            f"{round_name(round_index)}: {settled['joined']:,} new tasks joined{out}; generation "
            f"{settled['generation']} of the pool, {settled['tasks']:,} tasks"
        )
    return dataclasses.replace(run, pool=pool), generations.joined(round_index, pool)


def asker(run: Run[Any], params: Any, pool: TaskPool | None = None) -> Asker:
    """Returns what asks a model about the run's pool or another one."""
    experiment = run.experiment
    return Asker(
        run.engine,
        run.engine.place(params),
        pool or run.pool,
        experiment.vocabulary,
        experiment.encoding,
        experiment.seed,
    )


def training_job(
    run: Run[Any],
    round_index: int,
    tasks: Sequence[str],
    params: Any,
    *,
    max_instances_per_task: int | Mapping[str, int],
    pool: TaskPool | None = None,
    evaluate: Evaluate | None = None,
) -> TrainingJob:
    """Returns the training of a round, in the round's folder.

    Args:
      params: float32 parameters to start from.
      pool: of `tasks`; None is the run's.
      evaluate: parameters -> dev metrics, which choose the checkpoint.
    """
    experiment: ModelParts = run.experiment
    examples = InstructionExamples(
        pool or run.pool,
        tasks,
        max_instances_per_task=max_instances_per_task,
        vocabulary=experiment.vocabulary,
        encoding=experiment.encoding,
        buckets=experiment.buckets,
        seed=experiment.seed,
        redraws=run.experiment.redraw_references,
    )
    return TrainingJob(
        examples=examples,
        params=params,
        directory=run.directory.folder(round_index),
        model=experiment.model,
        partitioner=experiment.partitioner,
        seed=randomness.stable_hash(experiment.seed, "train", round_index) % 2**31,
        evaluate=evaluate,
        summaries=run.summaries,
    )


def train(
    run: Run[Any],
    round_index: int,
    trainer: Trainer,
    job: Callable[[], TrainingJob],
    counts: Mapping[str, int],
    used_up: OnDemand | None,
) -> OnDemand:
    """Does the training of a round; writes round_NNN/checkpoint_* and metrics.jsonl.

    Args:
      counts: of "tasks" and "replayed" ones, for run.json.
      used_up: parameters that nothing needs after the training.

    Returns:
      The chosen checkpoint, read when it is needed.
    """
    name = round_name(round_index)

    def work() -> Trained:
        made = job()
        with reporter.prefixed(name):
            trained = trainer.train(made)
        if used_up is not None:
            used_up.forget()
        return trained

    model = OnDemand(work)

    def done() -> Done:
        again = f" and {counts['replayed']} replayed ones" if "replayed" in counts else ""
        reporter.say(f"{name}: training on {counts['tasks']} tasks{again}")
        trained = model.trained()
        return Done({**counts, "checkpoint_step": trained.step}, training=trained.work)

    stage(run, f"{name}/train", done)
    return model


def metrics(
    run: Run[Any], answers: Sequence[Prediction], splits: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Returns split -> metrics, without splits that have no tasks."""
    named = {name: tasks for name, tasks in splits.items() if tasks}
    category_of = lambda name: run.pool[name].category  # noqa: E731
    return evaluate_splits(answers, named, run.pool.is_cls, category_of, references.rouge_of(run))


def write_evaluation(
    run: Run[Any], folder: Any, answers: Sequence[Prediction], splits: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Writes predictions.jsonl and eval.json; returns split -> headline figures."""
    write_predictions(folder / "predictions.jsonl", answers)
    result = metrics(run, answers, splits)
    files.write_json(folder / "eval.json", result)
    return {split: headline(figures) for split, figures in result.items()}


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ROUGE and exact match: overall, CLS and GEN."""
    groups = {group: {name: figures[group][name] for name in METRICS} for group in ("cls", "gen")}
    return {name: figures[name] for name in METRICS} | groups


def flat_headline(figures: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measured figures of `headline` under names like "rougeL_cls"."""
    named = headline(figures)
    flat = {name: named[name] for name in METRICS if named[name] is not None}
    flat |= {f"{name}_over_tasks": figures["over_tasks"][name] for name in flat}
    for group in ("cls", "gen"):
        if None not in named[group].values():
            flat |= {f"{name}_{group}": value for name, value in named[group].items()}
    return flat


def score(
    run: Run[Any],
    round_index: int,
    params: Any,
    tasks: Sequence[str],
    folder: Any,
    strategy: Strategy | None,
) -> Done:
    """Writes likelihoods.parquet and task_scores.parquet of tasks.

    With RACING, only as much as the selection by `strategy` needs, and race.json.

    Args:
      round_index: keys the draws of instances and perturbations.
    """
    experiment: Parts = run.experiment
    path = folder / "likelihoods.parquet"
    asked = asker(run, params)
    if experiment.racing and strategy is not None:
        quotas = Quotas(experiment.tasks_of_round(round_index), experiment.cls_ratio)
        groups = quotas.groups(tasks, run.pool.is_cls)
        scorer = experiment.scorer
        race = Race(experiment.racing_settings, strategy, groups, scorer.num_perturbations)
        counts = raced_scoring.score(race, scorer, asked, tasks, path, round_index=round_index)
    else:
        counts = experiment.scorer.score(asked, tasks, path, round_index=round_index)
    num_prompts, num_cut = likelihoods.count_cut(path)
    if num_cut:
        reporter.say(
            f"{num_cut:,} of {num_prompts:,} prompts were cut at MAX_SOURCE_LENGTH = "
            f"{experiment.encoding.max_source_length} tokens"
        )
    scores = task_scores(likelihoods.read_likelihoods(path))
    likelihoods.write_task_scores(folder / "task_scores.parquet", scores)
    return Done({"tasks": len(tasks), "prompts_cut": num_cut}, counts)


def strategy_of(run: Run[Any], round_index: int) -> Strategy:
    """Returns what selects in a round that was evaluated, for strategies made of strategies."""
    evaluated = (read_evaluation(run.directory.folder(i)) or {} for i in range(round_index + 1))
    scores = [split["dev"]["rougeL"] if "dev" in split else None for split in evaluated]
    known = [math.nan if score is None else score for score in scores]
    return run.experiment.strategy.of_round(known)


def selection_context(
    run: Run[Any],
    round_index: int,
    scores: TaskScores,
    model: OnDemand,
    strategy: Strategy | None,
    *,
    train: Sequence[str] = (),
    dev: Sequence[str] = (),
) -> SelectionContext:
    """Returns what a round selects from, with what the strategy asks for.

    Args:
      model: as trained so far.
      train, dev: as in `SelectionContext`.
    """
    experiment: Parts = run.experiment
    quotas = Quotas(experiment.tasks_of_round(round_index), experiment.cls_ratio)
    key = Key(experiment.seed, round_index)
    context = SelectionContext(scores, run.pool, quotas, key, train, dev)
    if isinstance(strategy, EmbeddedStrategy):
        vectors = _embeddings(asker(run, model.params()), strategy, [*scores.tasks, *train, *dev])
        context = dataclasses.replace(context, embeddings=vectors)
    if isinstance(strategy, ReferenceStrategy):
        losses = reference_losses(
            asker(run, model.params()),
            scores.tasks,
            strategy.instances,
            alone=strategy.needs_alone,
            before=run.engine.place(run.base.params()) if strategy.needs_before else None,
        )
        context = dataclasses.replace(context, reference_losses=losses)
    return context


def _embeddings(
    asked: Asker, strategy: EmbeddedStrategy, names: Sequence[str]
) -> dict[str, np.ndarray]:
    tasks = [asked.pool[name] for name in names]
    if strategy.of == "data":
        rows = embeddings.embed_data(tasks, strategy.embedder, asked, strategy.instances)
    else:
        rows = embeddings.embed_instructions(tasks, strategy.embedder, asked)
    return dict(zip(names, rows, strict=True))


def write_selection(
    run: Run[Any], context: SelectionContext, folder: Any, strategy: Strategy
) -> Selection:
    """Selects the next tasks and writes selected.txt."""
    if run.experiment.racing:
        strategy = raced_scoring.ranking(strategy, folder / "likelihoods.parquet")
    selection = select(strategy, context)
    files.write_lines(folder / "selected.txt", selection.tasks)
    return selection


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


def write_task_map(
    context: SelectionContext, folder: Any, selected: Sequence[str], **title: Any
) -> dict[str, list[str]]:
    """Writes task_map.png and ambiguous.txt, easy.txt, difficult.txt.

    Args:
      selected: tasks to ring.
      title: round and strategy, as `pictures.plot_task_map` takes them.

    Returns:
      Category -> its tasks, the most telling ones first.
    """
    categories = task_map.classify(context)
    plot_task_map(folder / "task_map.png", context, categories, selected=selected, **title)
    ranked = task_map.ranked(context, categories)
    for category, names in ranked.items():
        files.write_lines(folder / f"{category}.txt", names)
    return ranked
