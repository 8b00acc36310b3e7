"""Continual training: groups of tasks, one after the other, with some of the earlier ones replayed.

Round n trains from the checkpoint of round n - 1 on its own tasks and on the replayed ones, and is
evaluated on the test tasks, on held-out instances of its own tasks and on those of every earlier
round (DYNOSAUR, arXiv 2305.14327, Table 4). The paper does not say what its holdout and previous
data are: here they are instances of the tasks trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown
from ait_jax.evaluation.prediction import predict
from ait_jax.evaluation.rouge import AUTO, check_choice
from ait_jax.pool import Task, TaskPool, replay
from ait_jax.pool.splits import read_names
from ait_jax.rounds import references, stages
from ait_jax.rounds.learning_curve import CurvePoint, render_continual
from ait_jax.rounds.pictures import plot_learning_curve
from ait_jax.rounds.record import CONTINUAL, round_name
from ait_jax.rounds.run import Done, MakePage, OnDemand, Run, opened, say_page, stage, write_page
from ait_jax.rounds.task_stages import DrawnStages, TaskGroup
from ait_jax.runtime import files, reporter
from ait_jax.scorer import embeddings
from ait_jax.scorer.embeddings import Embedder, ModelEncoder
from ait_jax.scorer.parts import ModelParts, check_positive
from ait_jax.summaries import Board, TensorBoard
from ait_jax.trainer.interface import Trainer, TrainingJob

# Macros of a pool's gin file that only runs with selections use.
UNUSED_MACROS = ("INITIAL_SPLITS", "PERTURBED_PARTS")


@dataclass(frozen=True, kw_only=True)
class Continual(ModelParts):
    """The settings of a continual training (gin/experiments/continual.gin).

    Args:
      trainer: one for all rounds.
      stages: draws the tasks of each round (`task_stages.DrawnStages`, `StageFiles`).
      replay: one of `replay.RULES`.
      replay_tasks, replay_instances: how many earlier tasks, and how many instances of each.
      embedder: of instructions and data, for the rules that need embeddings.
      embedded_instances: of a task, for data_diverse.
      max_instances_per_task: training instances of each of the round's tasks.
      redraw_references: every epoch draws which of an instance's references is trained on.
      holdout_instances: of each task, never trained on, evaluated in its round and all later ones.
      max_eval_instances: instances of a test task.
      evaluate_base: evaluate on the test tasks before any training.
      grow_pool: tasks added to the pool make a further round.
      summaries: where curves, answers and pictures go; may change between calls.
      rouge_tokenizer: how ROUGE splits texts: "english", "unicode", a folder with tokenizer.json,
        or "auto", by the scripts of the references (`rouge`).
      Others: see `ModelParts`.
    """

    trainer: Trainer
    stages: Any = DrawnStages()
    replay: str = replay.DIVERSE
    replay_tasks: int = 50
    replay_instances: int = 100
    embedder: Embedder = ModelEncoder()
    embedded_instances: int = 10
    max_instances_per_task: int = 100
    redraw_references: bool = False
    holdout_instances: int = 10
    max_eval_instances: int = 100
    evaluate_base: bool = True
    grow_pool: bool = False
    summaries: Sequence[Board] = (TensorBoard(),)
    rouge_tokenizer: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.rouge_tokenizer)
        replay.check_rule(self.replay)
        if not isinstance(self.trainer, Trainer):
            raise UserError("TRAINER must be one trainer for all rounds of a continual training.")
        self.trainer.check_model(self.model)
        if not hasattr(self.embedder, "embed"):
            raise UserError(
                f"EMBEDDER = {shown(self.embedder)} cannot embed; give @embeddings.ModelEncoder(), "
                "@embeddings.HuggingFaceEncoder() or an object with embed(texts, encoder)."
            )
        check_positive(self, "replay_tasks", "replay_instances", "embedded_instances")
        check_positive(self, "max_instances_per_task", "holdout_instances", "max_eval_instances")


def run(
    continual: Continual,
    config: str = "",
    report: Callable[[str], None] = print,
    page: MakePage | None = None,
) -> list[Mapping[str, Any]]:
    """Trains all rounds, or continues where an earlier call stopped.

    Args:
      config, report, page: as for `run.opened`.

    Returns:
      For every round the headline figures of "test", "holdout" and "previous_000", ...
    """
    with opened(continual, CONTINUAL, config, report, page) as opened_run:
        return _rounds(opened_run, config)


def _rounds(run: Run[Continual], config: str) -> list[Mapping[str, Any]]:
    """The loop."""
    verb = "continuing" if run.continued else "starting"
    reporter.say(f"{verb} in {run.directory.path}: continual training on {shown(run.pool)}")
    drawn, test = begin(run)
    reporter.plan(planned(run, drawn, test))
    run.summaries.start()
    run.summaries.begun(config)
    if run.experiment.evaluate_base and test:
        evaluate_base(run, test)
        run.summaries.evaluated(None, 0, {"test": test}, curve=False)
    rounds: list[Round] = []
    while True:
        if len(rounds) < len(drawn):
            tasks = drawn[len(rounds)]
        else:
            run, tasks = stages.grow(run, len(rounds), only_if_extended=True)
        if not tasks:
            break
        rounds.append(train_and_evaluate(run, tasks, test, rounds))
        groups = {"test": test, "holdout": tasks}
        groups |= {f"previous_{each.group.index:03d}": each.group.tasks for each in rounds[:-1]}
        run.summaries.evaluated(rounds[-1].group.index, len(tasks), groups, curve=False)
        write_page(run)
    summarize(run, rounds, test)
    return [each.result for each in rounds]


@dataclass(frozen=True)
class Round:
    """One round and its outcome.

    Attributes:
      group: the tasks that came with it.
      replayed: earlier tasks that it trained on again.
      model: the chosen checkpoint.
      result: headline figures by group of eval.json.
    """

    group: TaskGroup
    replayed: tuple[str, ...]
    model: OnDemand
    result: Mapping[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """The round's row of continual.txt."""
        tasks, replayed = len(self.group.tasks), len(self.replayed)
        counts = {"stage": self.group.index, "tasks": tasks, "replayed": replayed}
        return counts | {name: metrics["rougeL"] for name, metrics in self.result.items()}


def begin(run: Run[Continual]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Returns the tasks of each round that the run begins with, and the test tasks.

    Draws them, or reads them; writes stage_tasks.txt and test_tasks.txt.
    """
    directory, pool = run.directory, run.pool

    def draw() -> dict[str, Any]:
        groups = run.experiment.stages.draw(pool, run.experiment.seed)
        empty = [name for names in groups for name in names if not len(pool[name].instances)]
        if empty:
            raise UserError(f"task {shown(empty[0])} has no instances to train on; leave it out.")
        for round_index, names in enumerate(groups):
            files.write_lines(directory.folder(round_index) / "stage_tasks.txt", names)
        test = [name for name in (pool.splits.test if pool.splits else ()) if name in pool]
        files.write_lines(directory.folder(0) / "test_tasks.txt", test)
        if run.generations:
            run.generations.begin(pool)
        measured = [*test, *(name for names in groups for name in names)]
        return {"stages": len(groups), **references.settled(run, measured)}

    count = directory.stage("round_000/splits", draw)["stages"]
    drawn = [read_names(directory.folder(n) / "stage_tasks.txt") for n in range(count)]
    test = read_names(directory.folder(0) / "test_tasks.txt")
    measured = [*test, *(name for names in drawn for name in names)]
    references.say_lacking(pool, run.experiment.vocabulary, measured)
    references.say_rouge(run, measured)
    return drawn, test


def planned(
    run: Run[Continual], drawn: Sequence[Sequence[str]], test: Sequence[str]
) -> list[tuple[str, float]]:
    """Returns the steps to come, each with its number of tasks, for estimates of time."""
    plan: list[tuple[str, float]] = []
    if run.experiment.evaluate_base and test:
        plan.append(("base/evaluate", len(test)))
    seen = 0
    for round_index, tasks in enumerate(drawn):
        seen += len(tasks)
        name = round_name(round_index)
        plan += [(f"{name}/replay", seen), (f"{name}/train", len(tasks))]
        plan.append((f"{name}/evaluate", len(test) + seen))
    return plan


def evaluate_base(run: Run[Continual], test: Sequence[str]) -> None:
    """Evaluates the model before any training on the test tasks."""

    def work() -> Done:
        return Done(answer(run, run.base.params(), test, {}, run.directory.path / "base"))

    reporter.say(f"base: {_described(stage(run, 'base/evaluate', work))}")


def answer(
    run: Run[Continual],
    params: Any,
    test: Sequence[str],
    held_out: Mapping[str, TaskPool],
    folder: Any,
) -> dict[str, Any]:
    """Writes predictions.jsonl and eval.json of the test tasks and of held-out instances.

    Args:
      held_out: name of the group -> its tasks with those instances alone.
    """
    limits = run.experiment
    answers = predict(stages.asker(run, params), test, max_instances=limits.max_eval_instances)
    groups: dict[str, Sequence[str]] = {"test": test}
    for name, pool in held_out.items():
        tasks = tuple(task for task in pool if len(pool[task].instances))
        asked = stages.asker(run, params, pool)
        answers += predict(asked, tasks, max_instances=limits.holdout_instances)
        groups[name] = tasks
    return stages.write_evaluation(run, folder, answers, groups)


def train_and_evaluate(
    run: Run[Continual], tasks: Sequence[str], test: Sequence[str], earlier: Sequence[Round]
) -> Round:
    """Does one round: chooses what is replayed, trains, evaluates."""
    settings, index, name = run.experiment, len(earlier), round_name(len(earlier))
    group = TaskGroup.split(run.pool, index, tasks, settings.holdout_instances, settings.seed)
    stage(run, f"{name}/replay", lambda: choose_replay(run, group, earlier))
    replayed = read_names(run.directory.folder(index) / "replay_tasks.txt")
    model = train(run, group, replayed, earlier)

    def work() -> Done:
        held_out = {"holdout": group.held_out}
        held_out |= {f"previous_{each.group.index:03d}": each.group.held_out for each in earlier}
        return Done(answer(run, model.params(), test, held_out, run.directory.folder(index)))

    result = stage(run, f"{name}/evaluate", work)
    reporter.say(f"{name}: {_described(result)}")
    return Round(group, replayed, model, result)


def choose_replay(run: Run[Continual], group: TaskGroup, earlier: Sequence[Round]) -> Done:
    """Writes replay_tasks.txt, and replay_scores.json if the rule scores tasks."""
    settings, folder = run.experiment, run.directory.folder(group.index)
    previous = [name for each in earlier for name in each.group.tasks]
    rule = settings.replay if previous else replay.NONE
    chosen: tuple[str, ...] = ()
    if rule == replay.RANDOM:
        count, seed = settings.replay_tasks, settings.seed
        chosen = replay.choose_at_random(previous, count, seed, group.index)
    elif rule != replay.NONE:
        scores = replay.replay_scores(rule, *_embedded(run, rule, group, earlier)).tolist()
        chosen = replay.choose(previous, scores, settings.replay_tasks)
        pairs = zip(previous, scores, strict=True)
        ranked = dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
        files.write_json(folder / "replay_scores.json", ranked)
    files.write_lines(folder / "replay_tasks.txt", chosen)
    if previous:
        reporter.say(
            f"{folder.name}: {len(chosen)} of {len(previous)} earlier tasks are replayed ({rule})"
        )
    return Done({"rule": rule, "tasks": len(chosen), "candidates": len(previous)})


def _embedded(
    run: Run[Continual], rule: str, group: TaskGroup, earlier: Sequence[Round]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings of the round's and of all earlier tasks."""
    settings = run.experiment
    asker = stages.asker(run, earlier[-1].model.params())

    def embedded(tasks: Sequence[Task]) -> np.ndarray:
        if rule == replay.DATA_DIVERSE:
            count = settings.embedded_instances
            return embeddings.embed_data(tasks, settings.embedder, asker, count)
        return embeddings.embed_instructions(tasks, settings.embedder, asker)

    previous = [task for each in earlier for task in each.group.training.values()]
    return embedded(list(group.training.values())), embedded(previous)


def train(
    run: Run[Continual], group: TaskGroup, replayed: Sequence[str], earlier: Sequence[Round]
) -> OnDemand:
    """Trains on the round's and the replayed tasks, from the model of the round before."""
    settings = run.experiment
    start = earlier[-1].model if earlier else run.base

    def job() -> TrainingJob:
        pools = [group.training, *(each.group.training for each in earlier)]
        tasks = {task: pool[task] for pool in pools for task in pool}
        pool = TaskPool([tasks[task] for task in (*group.tasks, *replayed)], name=run.pool.name)
        most = dict.fromkeys(group.tasks, settings.max_instances_per_task)
        most |= dict.fromkeys(replayed, settings.replay_instances)
        return stages.training_job(
            run, group.index, tuple(pool), start.params(), max_instances_per_task=most, pool=pool
        )

    counts = {"tasks": len(group.tasks), "replayed": len(replayed)}
    return stages.train(run, group.index, settings.trainer, job, counts, used_up=start)


def summarize(run: Run[Continual], rounds: Sequence[Round], test: Sequence[str]) -> None:
    """Writes continual.txt and learning_curve.png, and says how the run ended."""
    path, settings = run.directory.path, run.experiment
    table = render_continual([each.row for each in rounds])
    files.write_text(path / "continual.txt", table + "\n")
    if test:
        seen, points = 0, list[CurvePoint]()
        for each in rounds:
            seen += len(each.group.tasks)
            points.append(CurvePoint.from_evaluation(each.group.index, seen, each.result))
        by = f"replay {settings.replay}"
        plot_learning_curve(path / "learning_curve.png", points, strategy=by)
    reporter.say(f"\nROUGE-L, {path / 'continual.txt'}:\n{table}")
    say_page(run)
    if settings.grow_pool:
        reporter.say("extend the pool and run the same command to train a further round")


def _described(result: Mapping[str, Mapping[str, Any]]) -> str:
    named = ((name.replace("_", " "), figures["rougeL"]) for name, figures in result.items())
    return "ROUGE-L " + ", ".join(f"{n} {'-' if f is None else f'{f:.2f}'}" for n, f in named)
