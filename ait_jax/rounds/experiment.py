"""What one run consists of: the parts, the sizes, the seed. Gin fills it (gin/experiments)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError
from ait_jax.rounds.parts import Parts, check_positive
from ait_jax.scorer.racing import check_strategy
from ait_jax.selection.selection import Strategy
from ait_jax.summaries import Board, TensorBoard
from ait_jax.trainer.interface import Trainer

TRAIN_FROM = ("base", "previous")


@dataclass(frozen=True, kw_only=True)
class Experiment(Parts):
    """One run of active instruction tuning; gin fills it (gin/experiments).

    Args:
      initial_splits: pool, seed -> Splits of round 0 (`initial.Drawn`, `initial.FromFiles`).
      strategy: the part that `Parts` lacks.
      trainer: one for all rounds, or {round: trainer}, each used until the next one's round:
        {0: @embedded.EmbeddedTrainer(), 2: @t5x.T5XTrainer()}.
      rounds: trainings; the last one is evaluated and selects nothing.
      tasks_per_round: see `Parts`; of a list longer than the selections the first numbers count.
      max_instances_per_task: training instances of a task.
      max_eval_instances: instances of a test or dev task that are evaluated after a round.
      max_dev_instances: instances of a dev task that choose the checkpoint during training.
      train_from: every round starts from the "base" checkpoint (paper) or the "previous" round.
      evaluate_base: evaluate the model before any training, the curve's first point.
      grow_pool: a pool with more tasks continues the run: they join what remains at the next
        selection. Otherwise only the pool that the run began with does.
      summaries: where curves, answers and pictures go; a run may go on with others.
      Others: see `Parts`.
    """

    initial_splits: Any
    trainer: Trainer | Mapping[int, Trainer]
    strategy: Strategy
    rounds: int = 5
    max_instances_per_task: int = 200
    max_eval_instances: int = 100
    max_dev_instances: int = 50
    train_from: str = "base"
    evaluate_base: bool = True
    grow_pool: bool = False
    summaries: Sequence[Board] = (TensorBoard(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.racing:
            check_strategy(self.strategy)
        if isinstance(self.trainer, Mapping):
            _check_trainers(self.trainer, self.rounds)
        for round in self.trainer if isinstance(self.trainer, Mapping) else (0,):
            self.trainer_of(round).check_model(self.model)
        if self.train_from not in TRAIN_FROM:
            raise UserError(f"TRAIN_FROM = {self.train_from!r} is none of {TRAIN_FROM}.")
        sizes = self.tasks_per_round
        if not isinstance(sizes, int) and len(sizes) < self.rounds - 1:
            raise UserError(
                f"TASKS_PER_ROUND = {list(sizes)} is for {len(sizes)} selections, ROUNDS = "
                f"{self.rounds} makes {self.rounds - 1}; give as many numbers, or lower ROUNDS."
            )
        check_positive(
            {
                "ROUNDS": self.rounds,
                "MAX_INSTANCES_PER_TASK": self.max_instances_per_task,
                "MAX_EVAL_INSTANCES": self.max_eval_instances,
            }
        )

    def trainer_of(self, round: int) -> Trainer:
        if not isinstance(self.trainer, Mapping):
            return self.trainer
        return self.trainer[max(first for first in self.trainer if first <= round)]


def _check_trainers(trainers: Mapping[int, Trainer], rounds: int) -> None:
    bad = [
        r
        for r in trainers
        if isinstance(r, bool) or not isinstance(r, int) or r not in range(rounds)
    ]
    if bad or 0 not in trainers:
        raise UserError(
            f"TRAINER gives trainers for the rounds {list(trainers)}; it must have 0, and others "
            f"below ROUNDS = {rounds}."
        )
