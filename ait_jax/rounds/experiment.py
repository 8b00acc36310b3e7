"""The settings of a run of active instruction tuning, as gin files bind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown
from ait_jax.evaluation.rouge import AUTO, check_choice
from ait_jax.scorer.parts import Parts, check_positive
from ait_jax.scorer.racing import check_strategy
from ait_jax.selection.selection import Strategy
from ait_jax.summaries import Board, TensorBoard
from ait_jax.trainer.interface import Trainer

TRAIN_FROM = ("base", "previous")


@dataclass(frozen=True, kw_only=True)
class Experiment(Parts):
    """One run of active instruction tuning (gin/experiments).

    Args:
      initial_splits: draws round 0's splits (`initial.Drawn`, `initial.FromFiles`).
      strategy: selects the next tasks.
      trainer: one for all rounds, or {round: trainer}, each used until the next one's round:
        {0: @embedded.EmbeddedTrainer(), 2: @t5x.T5XTrainer()}.
      rounds: trainings; the last one is evaluated and selects nothing.
      tasks_per_round: see `Parts`; a list may be longer than the number of selections.
      max_instances_per_task: training instances of a task.
      max_eval_instances: instances of a test or dev task that are evaluated after a round.
      max_dev_instances: instances of a dev task that choose the checkpoint during training.
      dev_instances_seed: shuffles the instances of dev tasks before these are taken, as the authors
        do (`prediction.shuffled_positions`); None takes the first ones.
      redraw_references: every epoch draws which of an instance's references is trained on, as the
        authors do; otherwise an instance keeps its reference.
      train_from: every round starts from the "base" checkpoint (paper) or the "previous" round.
      evaluate_base: evaluate the model before any training, the curve's first point.
      grow_pool: continue the run with a pool that has got more tasks: they join the remaining
        ones at the next selection. Otherwise another pool is refused.
      summaries: where curves, answers and pictures go; may change between calls.
      rouge_tokenizer: how ROUGE splits texts: "english", "unicode", a folder with tokenizer.json,
        or "auto", by the scripts of the test and dev tasks' references (`rouge`).
      Others: see `Parts`.
    """

    initial_splits: Any
    trainer: Trainer | Mapping[int, Trainer]
    strategy: Strategy
    rounds: int = 5
    max_instances_per_task: int = 200
    max_eval_instances: int = 100
    max_dev_instances: int = 50
    dev_instances_seed: int | None = None
    redraw_references: bool = False
    train_from: str = "base"
    evaluate_base: bool = True
    grow_pool: bool = False
    summaries: Sequence[Board] = (TensorBoard(),)
    rouge_tokenizer: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.rouge_tokenizer)
        if self.racing:
            check_strategy(self.strategy)
        if isinstance(self.trainer, Mapping):
            _check_trainers(self.trainer, self.rounds)
        for first in self.trainer if isinstance(self.trainer, Mapping) else (0,):
            self.trainer_of(first).check_model(self.model)
        if self.train_from not in TRAIN_FROM:
            raise UserError(
                f"TRAIN_FROM = {shown(self.train_from)} is unknown; set it to 'base' or 'previous'."
            )
        sizes = self.tasks_per_round
        if not isinstance(sizes, int) and len(sizes) < self.rounds - 1:
            raise UserError(
                f"TASKS_PER_ROUND = {list(sizes)} is for {len(sizes)} selections, ROUNDS = "
                f"{self.rounds} makes {self.rounds - 1}; give {self.rounds - 1} numbers or lower "
                "ROUNDS."
            )
        check_positive(self, "rounds", "max_instances_per_task", "max_eval_instances")

    def trainer_of(self, round_index: int) -> Trainer:
        """Returns the trainer of a round."""
        if not isinstance(self.trainer, Mapping):
            return self.trainer
        return self.trainer[max(first for first in self.trainer if first <= round_index)]


def _check_trainers(trainers: Mapping[int, Trainer], rounds: int) -> None:
    fits = all(type(first) is int and 0 <= first < rounds for first in trainers)
    if not fits or 0 not in trainers:
        raise UserError(
            f"TRAINER has trainers for the rounds {list(trainers)}; it needs one for round 0, and "
            f"every other round must be below ROUNDS = {rounds}."
        )
