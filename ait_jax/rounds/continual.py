"""Continual training: stages of tasks, one after the other, with some of the earlier ones replayed.

Stage n is round n of a run directory: it trains from the checkpoint of round n - 1 on its own
tasks and on the replayed ones, and is evaluated on the test tasks, on held-out instances of its
own tasks and on those of every earlier stage (DYNOSAUR, arXiv 2305.14327, Table 4). What holdout
and previous data are there could not be read: here they are instances of the tasks trained on.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.evaluation.prediction import predict
from ait_jax.pool import replay
from ait_jax.pool.pool import Task, TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds import stages
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.parts import ModelParts, check_positive
from ait_jax.rounds.pictures import plot_learning_curve
from ait_jax.rounds.record import round_name
from ait_jax.rounds.run import (
    Done,
    MakePage,
    OnDemand,
    Opening,
    Run,
    opened,
    say_page,
    stage,
    write_page,
)
from ait_jax.rounds.task_stages import DrawnStages, hold_out
from ait_jax.runtime import files, reporter
from ait_jax.scorer import embeddings
from ait_jax.scorer.embeddings import Embedder, T5Encoder, TextEncoder
from ait_jax.summaries import Board, TensorBoard
from ait_jax.trainer.interface import Trained, Trainer

# A pool's gin file also says what runs with selections need.
UNUSED_MACROS = ("INITIAL_SPLITS", "PERTURBED_PARTS")


@dataclass(frozen=True, kw_only=True)
class Continual(ModelParts):
    """One continual training; gin fills it (gin/experiments/continual.gin).

    Args:
      trainer: one for all stages.
      stages: pool, seed -> the tasks of each stage (`task_stages.DrawnStages`, `StageFiles`).
      replay: one of `replay.RULES`.
      replay_tasks, replay_instances: how many earlier tasks, how many instances of each.
      embedder: of instructions and data, for the rules that need embeddings.
      embedded_instances: of a task, for data_diverse.
      max_instances_per_task: training instances of a task of the stage.
      holdout_instances: of every task, never trained on, evaluated after its stage and all later ones.
      max_eval_instances: instances of a test task.
      evaluate_base: evaluate on the test tasks before any training.
      grow_pool: tasks that the pool has got since are a further stage.
      summaries: where curves, answers and pictures go; a run may go on with others.
      Others: see `ModelParts`.
    """

    trainer: Trainer
    stages: Any = DrawnStages()
    replay: str = replay.DIVERSE
    replay_tasks: int = 50
    replay_instances: int = 100
    embedder: Embedder = T5Encoder()
    embedded_instances: int = 10
    max_instances_per_task: int = 100
    holdout_instances: int = 10
    max_eval_instances: int = 100
    evaluate_base: bool = True
    grow_pool: bool = False
    summaries: Sequence[Board] = (TensorBoard(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        replay.check_rule(self.replay)
        if not isinstance(self.trainer, Trainer):
            raise UserError("TRAINER must be one trainer for all stages of a continual training.")
        self.trainer.check_model(self.model)
        if not hasattr(self.embedder, "embed"):
            raise UserError(
                f"EMBEDDER = {self.embedder!r} cannot embed; give @embeddings.T5Encoder(), "
                "@embeddings.HuggingFaceEncoder() or an object with embed(texts, encoder)."
            )
        check_positive(
            {
                "REPLAY_TASKS": self.replay_tasks,
                "REPLAY_INSTANCES": self.replay_instances,
                "EMBEDDED_INSTANCES": self.embedded_instances,
                "MAX_INSTANCES_PER_TASK": self.max_instances_per_task,
                "HOLDOUT_INSTANCES": self.holdout_instances,
                "MAX_EVAL_INSTANCES": self.max_eval_instances,
            }
        )


def run(
    continual: Continual,
    config: str = "",
    report: Callable[[str], None] = print,
    page: MakePage | None = None,
) -> list[dict[str, Any]]:
    """Trains all stages, or continues where an earlier call stopped.

    Args:
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.
      page: makes report.html after every round.

    Returns:
      For every round the headline figures of "test", "holdout" and "previous_000", ...
    """
    opening = Opening(
        "continual", config, report, continual.summaries, {}, continual.grow_pool, page=page
    )
    with opened(continual, opening) as opened_run:
        return _rounds(opened_run, config)


def _rounds(run: Run[Continual], config: str) -> list[dict[str, Any]]:
    """The loop."""
    verb = "continuing" if run.continued else "starting"
    reporter.say(f"{verb} in {run.directory.path}: continual training on {run.pool!r}")
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
            run, tasks = grow(run, len(rounds))
        if not tasks:
            break
        rounds.append(train_and_evaluate(run, tasks, test, rounds))
        groups = rounds[-1].groups(test, rounds[:-1])
        run.summaries.evaluated(rounds[-1].index, len(tasks), groups, curve=False)
        write_page(run)
    summarize(run, rounds, test)
    return [each.result for each in rounds]


@dataclass(frozen=True)
class Round:
    """One round: a stage of tasks, and what came of it.

    Attributes:
      index: of the round.
      tasks: that come with it.
      training, held_out: their instances that are trained on, and the others.
      replayed: earlier tasks that were trained on again.
      model: the chosen checkpoint.
      result: headline figures by group.
    """

    index: int
    tasks: tuple[str, ...]
    training: TaskPool
    held_out: TaskPool
    replayed: tuple[str, ...] = ()
    model: OnDemand | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, Any]:
        """What the table has of this round."""
        figures = {name: metrics["rougeL"] for name, metrics in self.result.items()}
        counts = {"stage": self.index, "tasks": len(self.tasks), "replayed": len(self.replayed)}
        return counts | figures

    def groups(self, test: Sequence[str], earlier: Sequence["Round"]) -> dict[str, Sequence[str]]:
        """Returns the tasks of every group of eval.json."""
        previous = {f"previous_{each.index:03d}": each.tasks for each in earlier}
        return {"test": test, "holdout": self.tasks, **previous}


def begin(run: Run[Continual]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Draws the stages, or reads them; writes stage_tasks.txt of each, and test_tasks.txt.

    Returns:
      The tasks of the stages that the run begins with, and the test tasks.
    """
    directory, pool = run.directory, run.pool

    def draw() -> dict[str, Any]:
        stages_drawn = run.experiment.stages.draw(pool, run.experiment.seed)
        empty = [name for names in stages_drawn for name in names if not len(pool[name].instances)]
        if empty:
            raise UserError(f"task {empty[0]!r} has no instances to train on; leave it out.")
        for round_index, names in enumerate(stages_drawn):
            files.write_lines(directory.round(round_index) / "stage_tasks.txt", names)
        test = pool.splits.test if pool.splits else ()
        test = [name for name in test if name in pool]
        files.write_lines(directory.round(0) / "test_tasks.txt", test)
        if run.generations:
            run.generations.begin(pool)
        return {"stages": len(stages_drawn)}

    count = directory.stage("round_000/splits", draw)["stages"]
    drawn = [read_names(directory.round(n) / "stage_tasks.txt") for n in range(count)]
    return drawn, read_names(directory.round(0) / "test_tasks.txt")


def planned(
    run: Run[Continual], drawn: Sequence[Sequence[str]], test: Sequence[str]
) -> list[tuple[str, float]]:
    """Returns the steps to come, each with its number of tasks, for estimates of time."""
    plan = [("base/evaluate", len(test))] if run.experiment.evaluate_base and test else []
    seen = 0
    for round_index, tasks in enumerate(drawn):
        seen += len(tasks)
        name = round_name(round_index)
        plan += [(f"{name}/replay", seen), (f"{name}/train", len(tasks))]
        plan.append((f"{name}/evaluate", len(test) + seen))
    return plan


def grow(run: Run[Continual], round_index: int) -> tuple[Run[Continual], tuple[str, ...]]:
    """Returns the tasks that the pool has got since the last round; none: the run is done."""
    generations, pool = run.generations, run.pool
    if generations is None:
        return run, ()
    if not generations.is_settled(round_index):
        pool = pool.reopened()
        if not generations.pending(pool):
            return run, ()
    settled = generations.settle(round_index, pool)
    out = f", {settled['held_out']:,} are test or dev tasks" if settled["held_out"] else ""
    reporter.say(
        f"{round_name(round_index)}: the pool was extended, {settled['joined']:,} new tasks are the "
        f"stage{out}; generation {settled['generation']}, {settled['tasks']:,} tasks"
    )
    return dataclasses.replace(run, pool=pool), generations.joined(round_index, pool)


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
    folder: Path,
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
    index, settings, name = len(earlier), run.experiment, round_name(len(earlier))
    halves = [hold_out(run.pool[task], settings.holdout_instances, settings.seed) for task in tasks]
    training = TaskPool([kept for kept, _ in halves], name=run.pool.name)
    held_out = TaskPool([out for _, out in halves], name=run.pool.name)
    this = Round(index, tuple(tasks), training, held_out)
    stage(run, f"{name}/replay", lambda: choose_replay(run, this, earlier))
    replayed = read_names(run.directory.round(index) / "replay_tasks.txt")
    this = dataclasses.replace(this, replayed=replayed)
    model = train(run, this, earlier)
    this = dataclasses.replace(this, model=model)

    def work() -> Done:
        groups = {"holdout": held_out}
        groups |= {f"previous_{each.index:03d}": each.held_out for each in earlier}
        return Done(answer(run, model.params(), test, groups, run.directory.round(index)))

    result = stage(run, f"{name}/evaluate", work)
    reporter.say(f"{name}: {_described(result)}")
    return dataclasses.replace(this, result=result)


def choose_replay(run: Run[Continual], this: Round, earlier: Sequence[Round]) -> Done:
    """Writes replay_tasks.txt, and replay_scores.json where they were scored."""
    settings, folder = run.experiment, run.directory.round(this.index)
    previous = [name for each in earlier for name in each.tasks]
    rule = settings.replay if previous else replay.NONE
    chosen: tuple[str, ...] = ()
    if rule == replay.RANDOM:
        chosen = replay.choose_at_random(previous, settings.replay_tasks, settings.seed, this.index)
    elif rule != replay.NONE:
        scores = replay.replay_scores(rule, *_embedded(run, rule, this, earlier))
        chosen = replay.choose(previous, scores, settings.replay_tasks)
        pairs = zip(previous, scores.tolist(), strict=True)
        ranked = dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
        files.write_json(folder / "replay_scores.json", ranked)
    files.write_lines(folder / "replay_tasks.txt", chosen)
    if previous:
        reporter.say(
            f"{folder.name}: {len(chosen)} of {len(previous)} earlier tasks are replayed ({rule})"
        )
    return Done({"rule": rule, "tasks": len(chosen), "candidates": len(previous)})


def _embedded(
    run: Run[Continual], rule: str, this: Round, earlier: Sequence[Round]
) -> tuple[Any, Any]:
    """Returns the embeddings of the round's and of all earlier tasks."""
    settings = run.experiment
    params = run.engine.place(earlier[-1].model.params())
    encoder = TextEncoder(run.engine, params, settings.vocabulary)
    own = list(this.training.values())
    before = [task for each in earlier for task in each.training.values()]

    def embedded(tasks: Sequence[Task]) -> np.ndarray:
        if rule in replay.ON_DATA:
            count = settings.embedded_instances
            return embeddings.embed_data(tasks, settings.embedder, encoder, count)
        return embeddings.embed_instructions(tasks, settings.embedder, encoder)

    return embedded(own), embedded(before)


def train(run: Run[Continual], this: Round, earlier: Sequence[Round]) -> OnDemand:
    """Trains from the round before on the round's tasks and the replayed ones.

    Returns:
      The parameters of the chosen checkpoint, read when they are needed.
    """
    settings, name = run.experiment, round_name(this.index)
    start = earlier[-1].model if earlier else run.base

    def work() -> Trained:
        pools = [this.training, *(each.training for each in earlier)]
        tasks = {task: pool[task] for pool in pools for task in pool}
        names = (*this.tasks, *this.replayed)
        pool = TaskPool([tasks[task] for task in names], name=run.pool.name)
        most = dict.fromkeys(this.tasks, settings.max_instances_per_task)
        most |= dict.fromkeys(this.replayed, settings.replay_instances)
        job = stages.training_job(
            run, this.index, tuple(pool), start.params(), max_instances_per_task=most, pool=pool
        )
        with reporter.prefixed(name):
            trained = settings.trainer.train(job)
        start.forget()  # the parameters of the round before are not needed any more
        return trained

    model = OnDemand(work)

    def done() -> Done:
        tasks, replayed = len(this.tasks), len(this.replayed)
        reporter.say(f"{name}: training on {tasks} tasks and {replayed} replayed ones")
        summary = {"tasks": tasks, "replayed": replayed, "checkpoint_step": model.trained().step}
        return Done(summary, training=model.trained().work)

    stage(run, f"{name}/train", done)
    return model


def summarize(run: Run[Continual], rounds: Sequence[Round], test: Sequence[str]) -> None:
    """Writes continual.txt and learning_curve.png, and says how the run ended."""
    path, settings = run.directory.path, run.experiment
    table = table_of([each.row for each in rounds])
    files.write_text(path / "continual.txt", table + "\n")
    if test:
        points, seen = [], 0
        for each in rounds:
            seen += len(each.tasks)
            points.append(CurvePoint.from_evaluation(each.index, seen, each.result))
        plot_learning_curve(
            path / "learning_curve.png", points, strategy=f"replay {settings.replay}"
        )
    reporter.say(f"\nROUGE-L, {path / 'continual.txt'}:\n{table}")
    say_page(run)
    if settings.grow_pool:
        reporter.say("extend the pool and give the same command to train a further stage")


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the stages' figures as lines of text: test, holdout, previous stages.

    Args:
      rows: "stage", "tasks", "replayed", and ROUGE-L by group; None and missing are "-".
    """
    groups = ["test", "holdout", *(f"previous_{n:03d}" for n in range(len(rows) - 1))]
    titles = ["test", "holdout", *(f"stage {number}" for number in range(len(rows) - 1))]
    lines = ["stage  tasks  replayed  " + "  ".join(f"{title:>8}" for title in titles)]
    for row in rows:
        figures = (row.get(group) for group in groups)
        cells = "  ".join(f"{'-' if f is None else f'{f:.2f}':>8}" for f in figures)
        lines.append(f"{row['stage']:>5}  {row['tasks']:>5}  {row['replayed']:>8}  {cells}")
    return "\n".join(lines)


def _described(result: Mapping[str, Mapping[str, Any]]) -> str:
    named = ((name.replace("_", " "), figures["rougeL"]) for name, figures in result.items())
    return "ROUGE-L " + ", ".join(f"{n} {'-' if f is None else f'{f:.2f}'}" for n, f in named)
