"""A training's job and result, and the settings and checks that all trainers share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import optax

from ait_jax.errors import UserError, nearest, shown
from ait_jax.models.interface import Model
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.summaries import Summaries
from ait_jax.trainer.data import Examples, TokenPairs
from ait_jax.trainer.metrics import TrainingWork
from ait_jax.trainer.optimizer import Schedule, adamw, constant_with_warmup
from ait_jax.trainer.packing import Packing, tokens_that_suit_a_cpu
from ait_jax.trainer.step import CompiledStep, LossSums, placed_state, supervised_sums

Evaluate = Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True)
class TrainingJob:
    """One training: what to train, on what, where.

    Args:
      examples: to train on.
      params: float32 parameters to start from.
      directory: gets checkpoint_<step>/, metrics.jsonl and train/; a job whose directory has
        checkpoints continues from the last one.
      seed: of the order of examples and of dropout.
      evaluate: parameters -> dev metrics.
      summaries: of the run, for train/; None is TensorBoard.
    """

    examples: Examples
    params: Any
    directory: Path
    model: Model
    partitioner: Partitioner
    seed: int
    evaluate: Evaluate | None = None
    summaries: Summaries | None = None


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind: the parameters of its chosen checkpoint.

    Attributes:
      directory: of the checkpoint.
      work: what this call did; nothing where the training was already finished.
    """

    params: Any
    step: int
    directory: Path
    work: TrainingWork = field(default_factory=TrainingWork)


@dataclass(frozen=True)
class Trainer:
    """The settings that trainers share.

    Args:
      batch_size: examples per update; a multiple of the mesh's 'data' axis x num_microbatches.
      epochs: passes over the examples; set exactly one of `epochs` and `steps`.
      steps: number of updates.
      optimizer: schedule -> optax optimizer.
      schedule: learning rate by step, or `optimizer.CosineOfTraining`.
      num_microbatches: T5X's name for gradient accumulation.
      eval_period: updates between evaluations on the dev tasks; 0 is once an epoch
        (or at the end only, if `steps` is set).
      checkpoint_period: updates between checkpoints; every evaluation also keeps one.
      best_metric: the dev metric whose best checkpoint is kept and returned; None is the last.
      log_period: updates between lines of metrics.
      z_loss, label_smoothing: as in T5X; both 0 for fine-tuning.

    Raises:
      UserError: a value out of its range.
    """

    batch_size: int = 128
    epochs: int | None = 8
    steps: int | None = None
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation] = adamw
    schedule: Schedule = field(default_factory=constant_with_warmup)
    num_microbatches: int = 1
    eval_period: int = 0
    checkpoint_period: int = 500
    best_metric: str | None = None
    log_period: int = 10
    z_loss: float = 0.0
    label_smoothing: float = 0.0

    # Whether all parameters of the model learn, and so have gradients.
    trains_all: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UserError(
                f"{self.gin_name} needs one of epochs and steps, got epochs = {self.epochs} and "
                f"steps = {self.steps}; set the other to None."
            )
        for name, least in {
            "batch_size": 1,
            "epochs": 1,
            "steps": 1,
            "num_microbatches": 1,
            "eval_period": 0,
            "checkpoint_period": 1,
            "log_period": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{self.gin_name}.{name} = {value} must be at least {least}.")
        if self.batch_size % self.num_microbatches:
            raise UserError(
                f"{self.gin_name}.batch_size = {self.batch_size} is not a multiple of "
                f"num_microbatches = {self.num_microbatches}."
            )

    def _check(self, name: str, macro: str, holds: bool, needed: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise UserError(f"{self.gin_name}.{name} ({macro}) = {value} must be {needed}.")

    @property
    def gin_name(self) -> str:
        """Its name in gin files and messages: "embedded.EmbeddedTrainer"."""
        return f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"

    @property
    def rows_at_once(self) -> int:
        """The rows of a microbatch."""
        return self.batch_size // self.num_microbatches

    def packing(self, job: TrainingJob) -> Packing | None:
        """Returns how the job's batches are packed, None if its examples are rows already."""
        if not isinstance(job.examples, TokenPairs):
            return None
        tokens_of_a_part = None
        if job.partitioner.platform == "cpu":
            tokens_of_a_part = tokens_that_suit_a_cpu(num_params(abstract_params(job.model)[0]))
        return Packing(
            job.examples.buckets,
            job.model.config.flops_per_example,
            job.partitioner.data_size,
            self.rows_at_once,
            tokens_of_a_part,
        )

    @property
    def forward_passes(self) -> int:
        """A step's cost: backward is twice a forward pass, or one if the matrices do not learn."""
        return 3 if self.trains_all else 2

    def loss_sums(self, model: Any) -> LossSums:
        """Returns the loss of a model, or of its adapters (`step.supervised_sums`)."""
        return supervised_sums(model, z_loss=self.z_loss, label_smoothing=self.label_smoothing)

    def compiled_step(self, model: Model, partitioner: Partitioner) -> tuple[Any, tuple[Any, ...]]:
        """Returns step(*placed, parts, scalars), compiled at its first call, and `placed`.

        That is the abstract state, which is donated, and what else a step needs.
        """
        state = placed_state(*abstract_params(model), self.any_rate, partitioner)
        loss, dtype = self.loss_sums(model), model.config.dtype
        step = CompiledStep(
            lambda: loss, self.optimizer, (state,), partitioner, dtype, self.rows_at_once
        )
        return step, (state,)

    @property
    def any_rate(self) -> optax.GradientTransformation:
        """The optimizer with a learning rate of 0, which has the states of all."""
        return self.optimizer(lambda _: 0.0)

    def total_steps(self, num_examples: int) -> int:
        """Returns the number of updates."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * self.steps_per_epoch(num_examples)

    def steps_per_epoch(self, num_examples: int) -> int:
        """Returns the number of updates in a pass over the examples."""
        return math.ceil(num_examples / self.batch_size)

    def steps_between_evaluations(self, num_examples: int) -> int:
        """Returns `eval_period`, or what it stands for if 0."""
        return self.eval_period or self.steps or self.steps_per_epoch(num_examples)

    def check_model(self, model: Model) -> None:
        """Raises UserError, before a run begins, if this trainer cannot train such a model."""

    def check_batch_size(self, partitioner: Partitioner) -> None:
        """Raises UserError if the mesh does not divide a microbatch."""
        partitioner.check_batch_size(
            self.rows_at_once,
            f"{self.gin_name}.batch_size / num_microbatches",
        )

    def check_start(self, start: int, total_steps: int, directory: Path) -> None:
        """Refuses to continue from a checkpoint beyond the end."""
        if start > total_steps:
            raise UserError(
                f"{directory} holds checkpoint_{start}, but the training ends at step "
                f"{total_steps}; give another MODEL_DIR, or more steps or epochs."
            )

    def check_best_metric(self, metrics: Mapping[str, float]) -> None:
        """Refuses a `best_metric` that the dev metrics lack."""
        if self.best_metric and self.best_metric not in metrics:
            raise UserError(
                f"{self.gin_name}.best_metric (BEST_METRIC) = {shown(self.best_metric)} must be "
                f"one of the dev metrics {sorted(metrics)}.{nearest(self.best_metric, metrics)}"
            )

    def check_finite(
        self,
        step: int,
        metrics: Mapping[str, Any],
        last_kept: Callable[[], int | None],
        directory: Path,
    ) -> None:
        """Stops before a diverged step reaches a checkpoint.

        Args:
          metrics: scalars that must be finite.
          last_kept: waits for checkpoints that are being written, and returns the last one's step.
        """
        for name, value in metrics.items():
            if math.isfinite(float(value)):
                continue
            kept = last_kept()
            what = "no checkpoint was made" if kept is None else f"checkpoint_{kept} is kept"
            raise UserError(
                f"The {name} at step {step} is {float(value)}. Training stopped; {what} in "
                f"{directory}. Lower LEARNING_RATE, or set ACTIVATION_DTYPE (the dtype in the "
                "model's configuration) = 'float32' if it is not."
            )

    def train(self, job: TrainingJob) -> Trained:
        """Trains, or continues from the job's last checkpoint.

        Raises:
          UserError: a non-finite loss (the last good checkpoint is kept), a batch size that the
            mesh does not divide, nothing to train on, a checkpoint that is damaged or beyond the
            last step, a folder that cannot be written to.
        """
        raise NotImplementedError
