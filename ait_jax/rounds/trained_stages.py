"""What loops of trainings share beyond `stages`: training, answers, metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ait_jax import randomness
from ait_jax.evaluation.evaluation import Prediction, evaluate_splits
from ait_jax.evaluation.prediction import predict
from ait_jax.pool.pool import TaskPool
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.run_summaries import RunSummaries
from ait_jax.rounds.stages import Stages
from ait_jax.runtime import reporter
from ait_jax.trainer.examples import InstructionExamples
from ait_jax.trainer.interface import Evaluate, Trained, Trainer, TrainingJob


class TrainedStages(Stages):
    """Stages of a run that trains, round after round.

    Attributes:
      config: the operative configuration.
      summaries: of the run; the caller closes them.
      Others: see `Stages`.
    """

    def __init__(
        self,
        parts: Any,
        directory: RunDirectory,
        config: str,
        report: Callable[[str], None],
        grow_pool: bool = False,
    ) -> None:
        super().__init__(parts, directory, config, report, grow_pool=grow_pool)
        self.config = config
        self.summaries = RunSummaries(parts.summaries, directory, lambda: self.pool)

    def train(
        self,
        round: int,
        trainer: Trainer,
        tasks: Sequence[str],
        start: Any,
        *,
        max_instances_per_task: int | Mapping[str, int],
        pool: TaskPool | None = None,
        evaluate: Evaluate | None = None,
    ) -> Trained:
        """Trains in the round's folder, continues there, or reads what a finished training chose.

        Args:
          start: float32 parameters.
          pool: that `tasks` are in; by default the run's.
          evaluate: parameters -> dev metrics.
        """
        parts = self.parts
        folder = self.directory.round(round)
        examples = InstructionExamples(
            pool or self.pool,
            tasks,
            max_instances_per_task=max_instances_per_task,
            vocabulary=parts.vocabulary,
            encoding=parts.encoding,
            buckets=parts.buckets,
            seed=parts.seed,
        )
        job = TrainingJob(
            examples,
            start,
            folder,
            parts.model,
            parts.partitioner,
            seed=randomness.stable_hash(parts.seed, "train", round) % 2**31,
            evaluate=evaluate,
            summaries=self.summaries,
        )
        with reporter.prefixed(folder.name):
            return trainer.train(job)

    def predictions(
        self, params: Any, tasks: Sequence[str], max_instances: int, pool: TaskPool | None = None
    ) -> list[Prediction]:
        """Returns greedy answers to the first instances of tasks, of the run's pool by default."""
        return predict(self.asker(params, pool), tasks, max_instances=max_instances)

    def metrics(
        self, predictions: Sequence[Prediction], splits: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        """Returns split -> metrics; splits without tasks are left out."""
        named = {name: tasks for name, tasks in splits.items() if tasks}
        return evaluate_splits(
            predictions, named, self.pool.is_cls, lambda name: self.pool[name].category
        )


def headline(metrics: Mapping[str, Any], flat: bool = False) -> dict[str, Any]:
    """Returns ROUGE-L and exact match, overall, CLS and GEN; what was not measured is left out of a flat one."""
    names = ("rougeL", "exact_match")
    figures: dict[str, Any] = {
        name: metrics[name] for name in names if not flat or metrics[name] is not None
    }
    for group in ("cls", "gen"):
        values = {name: metrics[group][name] for name in names}
        if not flat:
            figures[group] = values
        elif None not in values.values():
            figures |= {f"{name}_{group}": value for name, value in values.items()}
    return figures
