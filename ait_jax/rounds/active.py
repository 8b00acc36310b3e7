"""The loop: train, evaluate, score the remaining tasks, select, next round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import write_predictions
from ait_jax.pool.splits import Splits, read_names, read_splits, write_splits
from ait_jax.rounds import round_zero
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.learning_curve import CurvePoint, render_text
from ait_jax.rounds.pictures import plot_learning_curve
from ait_jax.rounds.record import durations
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.stages import check_checkpoint, selection_summary
from ait_jax.rounds.trained_stages import TrainedStages, headline
from ait_jax.runtime import files, reporter
from ait_jax.runtime.watching import watch
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection.uncertainty import TaskScores


def run(
    experiment: Experiment,
    config: str = "",
    report: Callable[[str], None] = print,
    round_0_from: str | None = None,
) -> list[CurvePoint]:
    """Runs all rounds, or continues where an earlier call stopped.

    Args:
      config: the operative configuration, kept as config.gin.
      report: takes lines for the terminal.
      round_0_from: a run that differs in its strategy alone and has done round 0; a run that
        begins takes that over (`round_zero`).

    Returns:
      The learning curve's points.
    """
    directory = RunDirectory(experiment.model_dir)
    check_checkpoint(experiment, directory)
    with (
        directory.lock(),
        watch(reporter.Reporter("run", report), directory.path, durations(directory.path)),
    ):
        if round_0_from is not None:
            round_zero.take_over(directory, round_0_from, experiment, config)
        work = _Run(experiment, directory, config, report)
        with work.summaries:
            return work.run()


class _Run(TrainedStages):
    """One run over its rounds."""

    def __init__(self, experiment, directory, config, report) -> None:
        super().__init__(experiment, directory, config, report, grow_pool=experiment.grow_pool)
        self.experiment = experiment

    def run(self) -> list[CurvePoint]:
        experiment = self.experiment
        verb = "continuing" if self.continued else "starting"
        self.report(f"{verb} in {self.directory.path}: {experiment.rounds} rounds on {self.pool!r}")
        splits = self._initial_splits()
        self._report_growth()
        reporter.plan(self._plan(splits))
        if not self.directory.is_done(f"round_{experiment.rounds - 1:03d}/evaluate"):
            self.summaries.start()
        self.summaries.begun(self.config)
        points: list[CurvePoint] = []
        if experiment.evaluate_base:
            points.append(self._evaluate_base(splits))
            self.summaries.evaluated(None, 0, _groups(splits), curve=False)
        previous = None
        for number in range(experiment.rounds):
            round = _Round(self, number, splits, previous)
            points.append(round.train_and_evaluate())
            self._plot_curve(points)
            self.summaries.evaluated(number, len(splits.train), _groups(splits), curve=True)
            if number + 1 < experiment.rounds:
                splits = round.select_next()
                self.summaries.selected(number)
            self.write_report()
            previous = round
        self._summarize(points)
        return points

    def _initial_splits(self) -> Splits:
        def draw() -> dict[str, Any]:
            splits, dropped = self.experiment.initial_splits.draw(self.pool, self.experiment.seed)
            selections = range(self.experiment.rounds - 1)
            wanted = sum(map(self.experiment.tasks_of_round, selections))
            if wanted > len(splits.remain):
                raise UserError(
                    f"{len(selections)} selections of TASKS_PER_ROUND = "
                    f"{self.experiment.tasks_per_round} need {wanted} tasks, {len(splits.remain)} "
                    "remain; lower TASKS_PER_ROUND, ROUNDS or INITIAL_TASKS."
                )
            write_splits(self.directory.round(0), splits)
            if self.generations:
                self.generations.begin(self.pool)
            return {"dropped_tasks": dropped}

        stage = self.directory.stage("round_000/splits", draw)
        splits = read_splits(self.directory.round(0))
        self.report(
            f"tasks: {len(splits.train)} train, {len(splits.remain)} remain, "
            f"{len(splits.dev)} dev, {len(splits.test)} test"
            + (
                f"; {stage['dropped_tasks']} named in the split files are not in the pool"
                if stage["dropped_tasks"]
                else ""
            )
        )
        bare = [name for name, task in self.pool.items() if not len(task.instances)]
        if bare:
            self.report(
                f"{len(bare):,} of the pool's {len(self.pool):,} tasks have no instances to train on or to "
                f"score, {bare[0]} for one"
            )
        has_few = set(self.pool.few_examples if self.experiment.encoding.shows_examples else ())
        few = [name for name in splits.names if name in has_few]
        if few:
            self.report(f"{len(few)} tasks have fewer than 2 positive examples, {few[0]} for one")
        return splits

    def _plan(self, splits: Splits) -> list[tuple[str, float]]:
        """Returns the stages to come, each with its number of tasks, for estimates of time."""
        experiment = self.experiment
        train, remain = len(splits.train), len(splits.remain)
        evaluated = len(splits.test) + len(splits.dev)
        plan = [("base/evaluate", evaluated)] if experiment.evaluate_base else []
        for number in range(experiment.rounds):
            name = self.directory.round(number).name
            plan += [(f"{name}/train", train), (f"{name}/evaluate", evaluated)]
            if number + 1 < experiment.rounds:
                if experiment.strategy.needs_scores:
                    plan.append((f"{name}/score", remain))
                plan.append((f"{name}/select", remain))
                chosen = experiment.tasks_of_round(number)
                train, remain = train + chosen, remain - chosen
        return plan

    def _report_growth(self) -> None:
        """Says at the start what became of the pool since the run stopped."""
        pending = self.generations.pending(self.pool) if self.generations else 0
        if pending:
            selections = range(self.experiment.rounds - 1)
            if all(map(self.generations.is_settled, selections)):
                outcome = "no selection is left to take them from"
            else:
                outcome = "they join at the next selection"
            self.report(f"the pool was extended by {pending:,} tasks; {outcome}")

    def joined(self, number: int) -> tuple[str, ...]:
        """Returns the tasks that join what remains at a round's selection, if the pool may grow."""
        if self.generations is None:
            return ()
        if not self.generations.is_settled(number):
            # Once in every process: another one may be extending the pool just now.
            self.pool = self.pool.reopened()
        pool = self.generations.settle(number, self.pool)
        if pool["joined"] or pool["held_out"]:
            out = f", {pool['held_out']:,} are test or dev tasks" if pool["held_out"] else ""
            self.report(
                f"round_{number:03d}: {pool['joined']:,} new tasks joined{out}; generation "
                f"{pool['generation']} of the pool, {pool['tasks']:,} tasks"
            )
        return self.generations.joined(number, self.pool)

    def _evaluate_base(self, splits: Splits) -> CurvePoint:
        def work():
            return self.evaluate(self.base_params, splits, self.directory.path / "base")

        result = self.timed_stage("base/evaluate", work)
        point = CurvePoint.from_evaluation(None, 0, result)
        self._report_scores("base", result)
        return point

    def evaluate(self, params: Any, splits: Splits, folder: Path) -> dict[str, Any]:
        """Writes predictions.jsonl and eval.json; returns the headline figures."""
        predictions = self.predictions(
            params, splits.test + splits.dev, self.experiment.max_eval_instances
        )
        write_predictions(folder / "predictions.jsonl", predictions)
        result = self.metrics(predictions, {"test": splits.test, "dev": splits.dev})
        files.write_json(folder / "eval.json", result)
        return {split: headline(metrics) for split, metrics in result.items()}

    def _report_scores(self, name: str, result: Mapping[str, Any]) -> None:
        test = result["test"]
        if test["rougeL"] is None:
            self.report(f"{name}: answered, not measured: no test instance has a reference")
            return
        self.report(
            f"{name}: test ROUGE-L {test['rougeL']:.2f}, exact match {test['exact_match']:.2f}"
        )

    def _plot_curve(self, points: Sequence[CurvePoint]) -> None:
        plot_learning_curve(
            self.directory.path / "learning_curve.png",
            points,
            strategy=self.experiment.strategy.name,
        )

    def _summarize(self, points: Sequence[CurvePoint]) -> None:
        path = self.directory.path
        self.report(f"\nlearning curve: {path / 'learning_curve.png'}\n{render_text(points)}")
        for number in range(self.experiment.rounds - 1):
            folder = self.directory.round(number)
            chosen = read_names(folder / "selected.txt")
            shown = ", ".join(chosen[:4]) + (", ..." if len(chosen) > 4 else "")
            self.report(f"selected after round {number} ({folder / 'selected.txt'}): {shown}")
            if (folder / "task_map.png").exists():
                self.report(f"task map of round {number}: {folder / 'task_map.png'}")
        self.report_page()
        self.report(f"run directory: {path}")


def _groups(splits: Splits) -> dict[str, Sequence[str]]:
    return {"test": splits.test, "dev": splits.dev}


class _Round:
    """One round: its tasks, its trained parameters (read back only when needed)."""

    def __init__(self, run: _Run, number: int, splits: Splits, previous: "_Round | None") -> None:
        self.run, self.number, self.splits, self.previous = run, number, splits, previous
        self.folder = run.directory.round(number)
        self.name = self.folder.name
        self._params: Any = None

    @property
    def params(self) -> Any:
        """Trains, continues to train, or reads the finished training's chosen checkpoint."""
        if self._params is None:
            experiment = self.run.experiment
            self._step, self._params = self._train(experiment)
        return self._params

    def _train(self, experiment: Experiment):
        from_previous = experiment.train_from == "previous" and self.previous is not None
        start = self.previous.params if from_previous else self.run.base_params
        trained = self.run.train(
            self.number,
            experiment.trainer_of(self.number),
            self.splits.train,
            start,
            max_instances_per_task=experiment.max_instances_per_task,
            evaluate=self._dev_metrics if self.splits.dev else None,
        )
        return trained.step, trained.params

    def _dev_metrics(self, params: Any) -> dict[str, float]:
        dev = self.splits.dev
        predictions = self.run.predictions(params, dev, self.run.experiment.max_dev_instances)
        return headline(self.run.metrics(predictions, {"dev": dev})["dev"], flat=True)

    def train_and_evaluate(self) -> CurvePoint:
        def train():
            num_tasks = len(self.splits.train)
            self.run.report(f"{self.name}: training on {num_tasks} tasks")
            self.params
            return {"tasks": num_tasks, "checkpoint_step": self._step}

        self.run.timed_stage(f"{self.name}/train", train)
        result = self.run.timed_stage(
            f"{self.name}/evaluate",
            lambda: self.run.evaluate(self.params, self.splits, self.folder),
        )
        self.run._report_scores(self.name, result)
        return CurvePoint.from_evaluation(self.number, len(self.splits.train), result)

    def select_next(self) -> Splits:
        """Scores and selects; returns the next round's splits, already written."""
        experiment = self.run.experiment
        joined = self.run.joined(self.number)
        self.splits = replace(self.splits, remain=self.splits.remain + joined)
        if experiment.strategy.needs_scores:
            self.run.timed_stage(f"{self.name}/score", self._score)
        selection = self.run.timed_stage(f"{self.name}/select", self._select)
        for group, margin in selection["close_calls"].items():
            self.run.report(
                f"{self.name}: the last {group} task won by {margin:.1e}; "
                "another mesh may select otherwise"
            )
        return read_splits(self.run.directory.round(self.number + 1))

    def _score(self) -> dict[str, Any]:
        with reporter.prefixed(self.name):
            return self.run.score(
                self.splits.remain,
                self.folder,
                self.params,
                self.number,
                strategy=self.run.experiment.strategy,
            )

    def _select(self) -> dict[str, Any]:
        strategy = self.run.experiment.strategy
        scored = strategy.needs_scores
        scores = (
            read_task_scores(self.folder / "task_scores.parquet")
            if scored
            else TaskScores.unscored(self.splits.remain)
        )
        context = self.run.selection_context(scores, self.number)
        selection = self.run.select(self.folder, strategy, context)
        if scored:
            self.run.draw_task_map(
                self.folder,
                context,
                selection.tasks,
                round_index=self.number,
                strategy=strategy.name,
            )
        chosen = set(selection.tasks)
        following = Splits(
            train=self.splits.train + selection.tasks,
            remain=tuple(name for name in self.splits.remain if name not in chosen),
            dev=self.splits.dev,
            test=self.splits.test,
        )
        write_splits(self.run.directory.round(self.number + 1), following)
        return selection_summary(strategy, selection)
