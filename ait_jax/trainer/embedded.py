"""The embedded trainer: optax updates over the mesh, Orbax checkpoints, exact resume."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ait_jax.console import progress
from ait_jax.errors import UserError
from ait_jax.hardware import peak_flops
from ait_jax.models.parameters import abstract_params
from ait_jax.models.t5 import Transformer, flops_per_example
from ait_jax.partitioning import Partitioner
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.data import ExampleSource, batches
from ait_jax.trainer.metrics import TrainingLog
from ait_jax.trainer.optimizer import adamw, constant_with_warmup
from ait_jax.trainer.step import init_state, make_train_step, state_shardings

Evaluate = Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind: the parameters of its chosen checkpoint."""

    params: Any
    step: int
    directory: Path


@dataclass(frozen=True)
class EmbeddedTrainer:
    """Trains with jit over the mesh; the same call continues what was interrupted.

    Args:
      batch_size: examples per update; a multiple of the mesh's 'data' axis x num_microbatches.
      epochs: passes over the examples; exactly one of `epochs` and `steps` is set.
      steps: number of updates.
      optimizer: makes the optax optimizer from a schedule.
      schedule: learning rate by step.
      num_microbatches: gradient accumulation, T5X's name.
      eval_period: updates between evaluations on the dev tasks; 0 is once an epoch
        (or at the end only, where `steps` is set).
      checkpoint_period: updates between checkpoints; one is also kept at every evaluation.
      best_metric: the dev metric whose best checkpoint is kept and returned; None is the last.
      log_period: updates between lines of metrics.
      z_loss, label_smoothing: as in T5X; both 0 for fine-tuning.
    """

    batch_size: int = 128
    epochs: int | None = 8
    steps: int | None = None
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation] = adamw
    schedule: optax.Schedule = field(default_factory=constant_with_warmup)
    num_microbatches: int = 1
    eval_period: int = 0
    checkpoint_period: int = 500
    best_metric: str | None = None
    log_period: int = 10
    z_loss: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise UserError(
                f"embedded.EmbeddedTrainer needs one of epochs and steps, got epochs = "
                f"{self.epochs} and steps = {self.steps}; set the other to None."
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
                raise UserError(
                    f"embedded.EmbeddedTrainer.{name} = {value} must be at least {least}."
                )
        if self.batch_size % self.num_microbatches:
            raise UserError(
                f"embedded.EmbeddedTrainer.batch_size = {self.batch_size} is not a multiple of "
                f"num_microbatches = {self.num_microbatches}."
            )

    def total_steps(self, num_examples: int) -> int:
        if self.steps is not None:
            return self.steps
        return self.epochs * self.steps_per_epoch(num_examples)

    def steps_per_epoch(self, num_examples: int) -> int:
        return math.ceil(num_examples / self.batch_size)

    def train(
        self,
        source: ExampleSource,
        params: Any,
        directory: Path,
        *,
        model: Transformer,
        partitioner: Partitioner,
        seed: int,
        evaluate: Evaluate | None = None,
        report: Callable[[str], None] = print,
    ) -> Trained:
        """Trains from `params` on `source`; continues from the last checkpoint in `directory`.

        Args:
          params: float32 parameters to start from.
          directory: gets checkpoint_<step>/, metrics.jsonl and train/.
          seed: of the order of examples and of dropout.
          evaluate: parameters -> dev metrics.

        Raises:
          UserError: a non-finite loss (the last good checkpoint is kept), a batch size
            that the mesh does not divide, nothing to train on, a damaged checkpoint, one of
            more steps than asked for, a folder that cannot be written to.
        """
        return _Training(
            self, source, params, directory, model, partitioner, seed, evaluate, report
        ).run()


class _Training:
    """One call of `EmbeddedTrainer.train`."""

    def __init__(
        self, config, source, params, directory, model, partitioner, seed, evaluate, report
    ):
        partitioner.check_batch_size(
            config.batch_size // config.num_microbatches,
            "embedded.EmbeddedTrainer.batch_size / num_microbatches",
        )
        self.config, self.source, self.params = config, source, params
        self.directory, self.model, self.partitioner = directory, model, partitioner
        self.seed, self.evaluate, self.report = seed, evaluate, report
        self.total_steps = config.total_steps(len(source))
        self.eval_period = config.eval_period or (
            config.steps_per_epoch(len(source)) if config.epochs else self.total_steps
        )
        self.checkpoints = Checkpoints(
            directory, best_metric=config.best_metric if evaluate else None
        )
        self.optimizer = config.optimizer(config.schedule)
        self._compile_step()

    def _compile_step(self) -> None:
        shapes, axes = abstract_params(self.model)
        self.param_shardings = self.partitioner.param_shardings(shapes, axes)
        abstract_state = jax.eval_shape(lambda p: init_state(p, self.optimizer), shapes)
        self.shardings = state_shardings(
            abstract_state, self.optimizer, self.param_shardings, self.partitioner.replicated
        )
        self.abstract_state = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract_state,
            self.shardings,
        )
        step = make_train_step(
            self.model,
            self.optimizer,
            dropout_seed=self.seed,
            num_microbatches=self.config.num_microbatches,
            z_loss=self.config.z_loss,
            label_smoothing=self.config.label_smoothing,
        )
        self.train_step = jax.jit(
            step,
            in_shardings=(self.shardings, self.partitioner.batch_sharding),
            out_shardings=(self.shardings, self.partitioner.replicated),
            donate_argnums=0,
        )

    def _initial_state(self):
        if self.checkpoints.latest_step is not None:
            state = self.checkpoints.restore(self.abstract_state)
            self.report(f"continuing from step {int(state.step)}")
            return state
        return jax.jit(
            # A copy, since the train step donates its state and the caller keeps `params`.
            lambda p: init_state(jax.tree.map(jnp.copy, p), self.optimizer),
            out_shardings=self.shardings,
        )(self.params)

    def run(self) -> Trained:
        with self.checkpoints, self.partitioner.activate():
            start = self.checkpoints.latest_step or 0
            if start > self.total_steps:
                raise UserError(
                    f"{self.directory} holds checkpoint_{start}, but the training ends at step "
                    f"{self.total_steps}; give another MODEL_DIR or more steps or epochs."
                )
            if start < self.total_steps:
                self._train(start)
            step = self.checkpoints.chosen_step
            self.checkpoints.keep_only({step, self.total_steps})
            params = self.checkpoints.restore(self.abstract_state, step).params
        return Trained(params, step, self.directory / f"checkpoint_{step}")

    def _train(self, start: int) -> None:
        state = self._initial_state()
        log = TrainingLog(self.directory, start, self.total_steps, peak_flops(), self.report)
        try:
            with progress("training", self.total_steps, start) as show:
                self._loop(state, start, log, show)
            self.checkpoints.wait()
        finally:
            log.close()

    def _loop(self, state, start: int, log: TrainingLog, show: Callable[[int], None]) -> None:
        previous = None
        stream = batches(
            self.source,
            batch_size=self.config.batch_size,
            seed=self.seed,
            start=start,
            stop=self.total_steps,
        )
        for step, batch in enumerate(stream, start=start + 1):
            state, metrics = self.train_step(state, self.partitioner.shard_batch(batch))
            work = _real_work(self.model.config, batch)
            # The metrics of the step before: the device computes while the host reads them.
            if previous is not None:
                self._log(log, *previous)
            previous = (step, metrics, work)
            evaluating = step % self.eval_period == 0 or step == self.total_steps
            if evaluating or step % self.config.checkpoint_period == 0:
                self._log(log, *previous)
                previous = None
                dev = self._evaluate(log, step, state.params) if evaluating else None
                self.checkpoints.save(step, state, dev)
            show(step)

    def _evaluate(self, log: TrainingLog, step: int, params) -> dict[str, float] | None:
        if self.evaluate is None:
            return None
        dev = {name: float(value) for name, value in self.evaluate(params).items()}
        log.evaluation(step, dev)
        return dev

    def _log(self, log: TrainingLog, step: int, metrics, work: tuple[int, float]) -> None:
        self._check_finite(step, metrics)
        log.count(*work)
        if step % self.config.log_period == 0 or step == self.total_steps:
            # optax counts from 0: the first update has the schedule's value at 0.
            log.step(step, metrics, float(self.config.schedule(step - 1)))

    def _check_finite(self, step: int, metrics) -> None:
        """Stops before a step that ran away reaches a checkpoint."""
        for name in ("loss", "grad_norm", "param_norm"):
            value = float(metrics[name])
            if math.isfinite(value):
                continue
            self.checkpoints.wait()
            kept = self.checkpoints.latest_step
            raise UserError(
                f"The {name} at step {step} is {value}. Training stopped; "
                + (f"checkpoint_{kept} is kept" if kept is not None else "no checkpoint was made")
                + f" in {self.directory}. Lower LEARNING_RATE, or set T5Config.dtype "
                "(ACTIVATION_DTYPE) = 'float32' where it is not."
            )


def _real_work(config, batch) -> tuple[int, float]:
    """Returns the unpadded tokens of a batch and the model FLOPs of training on them."""
    lengths = zip(_lengths(batch, "inputs"), _lengths(batch, "targets"))
    # Backward costs twice forward.
    flops = 3 * sum(flops_per_example(config, inputs, targets) for inputs, targets in lengths)
    return int(np.count_nonzero(batch["inputs"]) + np.count_nonzero(batch["targets"])), flops


def _lengths(batch, feature: str) -> list[int]:
    """Returns the length of every example, packed or not."""
    segments = batch.get(f"{feature}_segments", (batch[feature] > 0).astype(np.int32))
    return [
        int(np.count_nonzero(row == segment)) for row in segments for segment in range(1, row.max() + 1)
    ]
