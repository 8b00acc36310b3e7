"""Continual training: stages of tasks, one after the other, with some of the earlier ones replayed.

Stage n is round n of a run directory: it trains from the checkpoint of round n - 1 on its own
tasks and on the replayed ones, and is evaluated on the test tasks, on held-out instances of its
own tasks and on those of every earlier stage (DYNOSAUR, arXiv 2305.14327, Table 4). What holdout
and previous data are there could not be read: here they are instances of the tasks trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import write_predictions
from ait_jax.pool import replay
from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.parts import ModelParts, check_positive
from ait_jax.rounds.pictures import plot_learning_curve
from ait_jax.rounds.record import durations
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.stages import check_checkpoint
from ait_jax.rounds.task_stages import DrawnStages, hold_out
from ait_jax.rounds.trained_stages import TrainedStages, headline
from ait_jax.runtime import files, reporter
from ait_jax.runtime.watching import watch
from ait_jax.scorer import embeddings
from ait_jax.scorer.embeddings import Embedder, T5Encoder, TextEncoder
from ait_jax.summaries import Board, TensorBoard
from ait_jax.trainer.interface import Trainer

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
    continual: Continual, config: str = "", report: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Trains all stages, or continues where an earlier call stopped.

    Args:
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.

    Returns:
      For every stage the headline figures of "test", "holdout" and "previous_000", ...
    """
    directory = RunDirectory(continual.model_dir)
    check_checkpoint(continual, directory)
    with (
        directory.lock(),
        watch(reporter.Reporter("continual", report), directory.path, durations(directory.path)),
    ):
        work = _Run(continual, directory, config, report)
        with work.summaries:
            return work.run()


class _Run(TrainedStages):
    """One training over its stages."""

    def __init__(self, continual, directory, config, report) -> None:
        super().__init__(continual, directory, config, report, grow_pool=continual.grow_pool)
        self.continual = continual

    def run(self) -> list[dict[str, Any]]:
        verb = "continuing" if self.continued else "starting"
        self.report(f"{verb} in {self.directory.path}: continual training on {self.pool!r}")
        drawn = self._first_stages()
        self.test = read_names(self.directory.round(0) / "test_tasks.txt")
        reporter.plan(self._plan(drawn))
        self.summaries.start()
        self.summaries.begun(self.config)
        if self.continual.evaluate_base and self.test:
            self.timed_stage("base/evaluate", self._evaluate_base)
            self.summaries.evaluated(None, 0, {"test": self.test}, curve=False)
        done: list[_Stage] = []
        while tasks := drawn[len(done)] if len(done) < len(drawn) else self._grown(len(done)):
            stage = _Stage(self, len(done), tasks, done)
            stage.run()
            done.append(stage)
            self.summaries.evaluated(stage.number, len(tasks), stage.groups, curve=False)
            self.write_report()
        results = [stage.result for stage in done]
        self._summarize(done)
        return results

    def _first_stages(self) -> list[tuple[str, ...]]:
        """Returns the tasks of the stages that the run begins with."""

        def draw() -> dict[str, Any]:
            stages = self.continual.stages.draw(self.pool, self.continual.seed)
            empty = [
                name for names in stages for name in names if not len(self.pool[name].instances)
            ]
            if empty:
                raise UserError(f"task {empty[0]!r} has no instances to train on; leave it out.")
            for number, names in enumerate(stages):
                files.write_lines(self.directory.round(number) / "stage_tasks.txt", names)
            test = self.pool.splits.test if self.pool.splits else ()
            test = [name for name in test if name in self.pool]
            files.write_lines(self.directory.round(0) / "test_tasks.txt", test)
            if self.generations:
                self.generations.begin(self.pool)
            return {"stages": len(stages)}

        count = self.directory.stage("round_000/splits", draw)["stages"]
        return [read_names(self.directory.round(n) / "stage_tasks.txt") for n in range(count)]

    def _plan(self, drawn: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
        """Returns the stages to come, each with its number of tasks, for estimates of time."""
        test = len(self.test)
        plan = [("base/evaluate", test)] if self.continual.evaluate_base and test else []
        seen = 0
        for number, tasks in enumerate(drawn):
            seen += len(tasks)
            name = self.directory.round(number).name
            plan += [(f"{name}/replay", seen), (f"{name}/train", len(tasks))]
            plan.append((f"{name}/evaluate", test + seen))
        return plan

    def _grown(self, number: int) -> tuple[str, ...]:
        """Returns the tasks that the pool has got since its last stage; none: the run is done."""
        if self.generations is None:
            return ()
        if not self.generations.is_settled(number):
            self.pool = self.pool.reopened()
            if not self.generations.pending(self.pool):
                return ()
        pool = self.generations.settle(number, self.pool)
        out = f", {pool['held_out']:,} are test or dev tasks" if pool["held_out"] else ""
        self.report(
            f"round_{number:03d}: the pool was extended, {pool['joined']:,} new tasks are the stage{out}; "
            f"generation {pool['generation']}, {pool['tasks']:,} tasks"
        )
        return self.generations.joined(number, self.pool)

    def _evaluate_base(self) -> dict[str, Any]:
        result = self.answer(self.base_params, {}, "base")
        self.report(f"base: {_described(result)}")
        return result

    def answer(self, params: Any, held_out: Mapping[str, TaskPool], folder: str) -> dict[str, Any]:
        """Writes predictions.jsonl and eval.json of the test tasks and of held-out instances.

        Args:
          held_out: name of the group -> its tasks with those instances alone.
        """
        limits = self.continual
        predictions = self.predictions(params, self.test, limits.max_eval_instances)
        groups: dict[str, Sequence[str]] = {"test": self.test}
        for name, pool in held_out.items():
            tasks = tuple(task for task in pool if len(pool[task].instances))
            predictions += self.predictions(params, tasks, limits.holdout_instances, pool)
            groups[name] = tasks
        path = self.directory.path / folder
        write_predictions(path / "predictions.jsonl", predictions)
        result = self.metrics(predictions, groups)
        files.write_json(path / "eval.json", result)
        return {name: headline(metrics) for name, metrics in result.items()}

    def _summarize(self, done: Sequence["_Stage"]) -> None:
        table = table_of([stage.row for stage in done])
        files.write_text(self.directory.path / "continual.txt", table + "\n")
        if self.test:
            seen = 0
            points = []
            for stage in done:
                seen += len(stage.tasks)
                points.append(CurvePoint.from_evaluation(stage.number, seen, stage.result))
            plot_learning_curve(
                self.directory.path / "learning_curve.png",
                points,
                strategy=f"replay {self.continual.replay}",
            )
        self.report(f"\nROUGE-L, {self.directory.path / 'continual.txt'}:\n{table}")
        self.report_page()
        if self.continual.grow_pool:
            self.report("extend the pool and give the same command to train a further stage")


class _Stage:
    """One stage: its tasks, the replayed ones, its trained parameters (read when needed)."""

    def __init__(
        self, owner: _Run, number: int, tasks: Sequence[str], earlier: Sequence["_Stage"]
    ) -> None:
        self._run, self.number, self.tasks, self.earlier = (
            owner,
            number,
            tuple(tasks),
            tuple(earlier),
        )
        self.name = f"round_{number:03d}"
        self.folder = owner.directory.round(number)
        self._trained: Any = None
        pool, settings = owner.pool, owner.continual
        halves = [
            hold_out(pool[name], settings.holdout_instances, settings.seed) for name in self.tasks
        ]
        self.training = TaskPool([kept for kept, _ in halves], name=pool.name)
        self.held_out = TaskPool([out for _, out in halves], name=pool.name)

    def run(self) -> None:
        run = self._run
        run.timed_stage(f"{self.name}/replay", self._choose_replay)
        run.timed_stage(f"{self.name}/train", self._train)
        self.result = run.timed_stage(f"{self.name}/evaluate", self._evaluate)
        run.report(f"{self.name}: {_described(self.result)}")

    @property
    def replayed(self) -> tuple[str, ...]:
        return read_names(self.folder / "replay_tasks.txt")

    @property
    def params(self) -> Any:
        return self._training().params

    @property
    def groups(self) -> dict[str, Sequence[str]]:
        """The tasks of every group of eval.json."""
        previous = {f"previous_{stage.number:03d}": stage.tasks for stage in self.earlier}
        return {"test": self._run.test, "holdout": self.tasks, **previous}

    @property
    def row(self) -> dict[str, Any]:
        """What the table has of this stage."""
        figures = {name: metrics["rougeL"] for name, metrics in self.result.items()}
        counts = {"stage": self.number, "tasks": len(self.tasks), "replayed": len(self.replayed)}
        return counts | figures

    def _choose_replay(self) -> dict[str, Any]:
        settings = self._run.continual
        previous = [name for stage in self.earlier for name in stage.tasks]
        rule = settings.replay if previous else replay.NONE
        chosen: tuple[str, ...] = ()
        if rule == replay.RANDOM:
            chosen = replay.choose_at_random(
                previous, settings.replay_tasks, settings.seed, self.number
            )
        elif rule != replay.NONE:
            scores = replay.replay_scores(rule, *self._embedded(rule))
            chosen = replay.choose(previous, scores, settings.replay_tasks)
            ranked = dict(sorted(zip(previous, scores.tolist()), key=lambda p: (-p[1], p[0])))
            files.write_json(self.folder / "replay_scores.json", ranked)
        files.write_lines(self.folder / "replay_tasks.txt", chosen)
        if previous:
            self._run.report(
                f"{self.name}: {len(chosen)} of {len(previous)} earlier tasks are replayed ({rule})"
            )
        return {"rule": rule, "tasks": len(chosen), "candidates": len(previous)}

    def _embedded(self, rule: str) -> tuple[Any, Any]:
        """Returns the embeddings of the stage's and of all earlier tasks."""
        run = self._run
        params = run.engine.place(self.earlier[-1].params)
        encoder = TextEncoder(run.engine, params, run.parts.vocabulary)
        groups = ([self], self.earlier)
        tasks = [[task for stage in g for task in stage.training.values()] for g in groups]
        embedder, count = run.continual.embedder, run.continual.embedded_instances
        if rule in replay.ON_DATA:
            return tuple(embeddings.embed_data(t, embedder, encoder, count) for t in tasks)
        return tuple(embeddings.embed_instructions(t, embedder, encoder) for t in tasks)

    def _train(self) -> dict[str, Any]:
        replayed = self.replayed
        self._run.report(
            f"{self.name}: training on {len(self.tasks)} tasks and {len(replayed)} replayed ones"
        )
        return {
            "tasks": len(self.tasks),
            "replayed": len(replayed),
            "checkpoint_step": self._training().step,
        }

    def _training(self) -> Any:
        """Trains, continues to train, or reads the finished training's checkpoint."""
        if self._trained is None:
            run, settings, replayed = self._run, self._run.continual, self.replayed
            pools = [self.training, *(stage.training for stage in self.earlier)]
            tasks = {name: task for pool in pools for name, task in pool.items()}
            pool = TaskPool([tasks[name] for name in (*self.tasks, *replayed)], name=run.pool.name)
            most = dict.fromkeys(self.tasks, settings.max_instances_per_task)
            most |= dict.fromkeys(replayed, settings.replay_instances)
            start = self.earlier[-1].params if self.earlier else run.base_params
            self._trained = run.train(
                self.number,
                settings.trainer,
                tuple(pool),
                start,
                max_instances_per_task=most,
                pool=pool,
            )
            if self.earlier:
                self.earlier[-1]._trained = None  # its parameters are not needed any more
        return self._trained

    def _evaluate(self) -> dict[str, Any]:
        held_out = {"holdout": self.held_out}
        held_out |= {f"previous_{s.number:03d}": s.held_out for s in self.earlier}
        return self._run.answer(self.params, held_out, self.name)


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
