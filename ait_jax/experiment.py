"""What one run consists of: the parts, the sizes, the seed. Gin fills it (gin/experiments)."""

from dataclasses import dataclass
from typing import Any

from ait_jax.batching import LengthBuckets
from ait_jax.errors import UserError
from ait_jax.models.t5 import Transformer
from ait_jax.partitioning import Partitioner
from ait_jax.pool import TaskPool
from ait_jax.prompts import TkInstructEncoding
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection import Strategy
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.vocabulary import Vocabulary

TRAIN_FROM = ("base", "previous")


@dataclass(frozen=True)
class Experiment:
    """One run of active instruction tuning; gin fills it (gin/experiments).

    Args:
      model_dir: the run directory; the same experiment continues there.
      pool: all tasks.
      initial_splits: pool, seed -> Splits of round 0 (`initial.Drawn`, `initial.FromFiles`).
      model, vocabulary: what is trained.
      init_checkpoint: parameters to start from (T5X, Orbax or safetensors); None is random.
      partitioner, trainer, scorer, strategy, encoding: the parts.
      buckets: the lengths that prompts and answers are padded to; the last ones are the
        maximum source and target length.
      tokens_per_batch: padded prompt tokens of one batch in decoding and scoring.
      rounds: trainings; the last one is evaluated and selects nothing.
      tasks_per_round: tasks added after every round but the last.
      cls_ratio: share of CLS tasks among them; None ranks CLS and GEN together.
      max_instances_per_task: training instances of a task.
      max_eval_instances: instances of a test or dev task that are evaluated after a round.
      max_dev_instances: instances of a dev task that choose the checkpoint during training.
      train_from: every round starts from the "base" checkpoint (paper) or the "previous" round.
      evaluate_base: evaluate the model before any training, the curve's first point.
      seed: of everything that is drawn.
    """

    model_dir: str
    pool: TaskPool
    initial_splits: Any
    model: Transformer
    vocabulary: Vocabulary
    trainer: EmbeddedTrainer
    scorer: Scorer
    strategy: Strategy
    init_checkpoint: str | None = None
    partitioner: Partitioner = Partitioner()
    encoding: TkInstructEncoding = TkInstructEncoding()
    buckets: LengthBuckets = LengthBuckets()
    tokens_per_batch: int = 16384
    rounds: int = 5
    tasks_per_round: int = 68
    cls_ratio: float | None = None
    max_instances_per_task: int = 200
    max_eval_instances: int = 100
    max_dev_instances: int = 50
    train_from: str = "base"
    evaluate_base: bool = True
    seed: int = 42

    def __post_init__(self):
        if self.train_from not in TRAIN_FROM:
            raise UserError(f"TRAIN_FROM = {self.train_from!r} is none of {TRAIN_FROM}.")
        for macro, value in {
            "ROUNDS": self.rounds,
            "TASKS_PER_ROUND": self.tasks_per_round,
            "MAX_INSTANCES_PER_TASK": self.max_instances_per_task,
            "MAX_EVAL_INSTANCES": self.max_eval_instances,
        }.items():
            if value < 1:
                raise UserError(f"{macro} = {value} must be at least 1.")
        if self.encoding.max_source_length != self.buckets.max_source_length:
            raise UserError(
                f"TkInstructEncoding.max_source_length = {self.encoding.max_source_length} differs "
                f"from the longest of LengthBuckets.inputs = {tuple(self.buckets.inputs)}; "
                "make them equal."
            )
        if self.vocabulary.vocab_size > self.model.config.vocab_size:
            raise UserError(
                f"The vocabulary {self.vocabulary.path} has {self.vocabulary.vocab_size} ids, the "
                f"model T5Config.vocab_size = {self.model.config.vocab_size}; give the model's own "
                "VOCABULARY_PATH or a larger vocab_size."
            )
