"""The embedded trainer: optax updates over the mesh, Orbax checkpoints, exact resume."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ait_jax.models.interface import Model
from ait_jax.runtime import distributed, preemption
from ait_jax.runtime.hardware import peak_flops
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.runtime.reporter import progress
from ait_jax.summaries import Summaries
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.data import ExampleSource, batches
from ait_jax.trainer.interface import Evaluate, Trained, Trainer
from ait_jax.trainer.metrics import TrainingLog
from ait_jax.trainer.step import Metrics, TrainState, init_state

Work = tuple[int, float]  # unpadded tokens, model FLOPs


@dataclass(frozen=True)
class EmbeddedTrainer(Trainer):
    """Trains with jit over the mesh; the same call continues what was interrupted."""

    def train(
        self,
        source: ExampleSource,
        params: Any,
        directory: Path,
        *,
        model: Model,
        partitioner: Partitioner,
        seed: int,
        evaluate: Evaluate | None = None,
        report: Callable[[str], None] = print,
        summaries: Summaries | None = None,
    ) -> Trained:
        """See `Trainer.train`."""
        return Training(
            self, source, params, directory, model, partitioner, seed, evaluate, report, summaries
        ).run()


class Training:
    """One call of `EmbeddedTrainer.train`.

    Others, such as the feedback stage, have steps of their own: `_stream` says what one is made
    from and `_update` makes it. Or other things that learn: `_first_params` are these at the start,
    `_whole` makes a model's parameters of them and `_result` is what the training leaves.
    """

    def __init__(
        self,
        config,
        source,
        params,
        directory,
        model,
        partitioner,
        seed,
        evaluate,
        report,
        summaries,
    ) -> None:
        partitioner.check_batch_size(
            config.batch_size // config.num_microbatches,
            f"{config.gin_name}.batch_size / num_microbatches",
        )
        self.config, self.source, self.params = config, source, params
        self.directory, self.model, self.partitioner = directory, model, partitioner
        self.seed, self.evaluate, self.report = seed, evaluate, report
        self.summaries = summaries
        self.total_steps = config.total_steps(len(source))
        self.eval_period = config.steps_between_evaluations(len(source))
        self.kept_in = self._checkpoint_folder()
        self.checkpoints = Checkpoints(
            self.kept_in, best_metric=config.best_metric if evaluate else None
        )
        self.schedule = config.schedule_over(self.total_steps)
        self.optimizer = config.optimizer(self.schedule)
        self._compile_step()

    def _checkpoint_folder(self) -> Any:
        return self.directory

    def _compile_step(self) -> None:
        self.train_step, (self.abstract_state,) = self.config.compiled_step(
            self.model, self.optimizer, self.partitioner, self.config.num_microbatches
        )

    def _initial_state(self):
        if self.checkpoints.latest_step is not None:
            state = self.checkpoints.restore(self.abstract_state)
            self.report(f"continuing from step {int(state.step)}")
            return state
        return jax.jit(
            # A copy, since the train step donates its state and the caller keeps `params`.
            lambda p: init_state(jax.tree.map(jnp.copy, p), self.optimizer),
            out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state),
        )(self._first_params())

    def _first_params(self) -> Any:
        return self.params

    def _whole(self, params: Any) -> Any:
        """Returns the parameters of the model, as it is evaluated, from what learns."""
        return params

    def run(self) -> Trained:
        with self.checkpoints, self.partitioner.activate():
            start = self.checkpoints.latest_step or 0
            self.config.check_start(start, self.total_steps, self.kept_in)
            if start < self.total_steps:
                self._train(start)
            step = self.checkpoints.chosen_step
            self.checkpoints.keep_only({step, self.total_steps})
            params = self._result(step)
        return Trained(params, step, self.directory / f"checkpoint_{step}")

    def _result(self, step: int) -> Any:
        """Returns the parameters of a step's checkpoint."""
        return self.checkpoints.restore(self.abstract_state, step).params

    def _train(self, start: int) -> None:
        state = self._initial_state()
        # Without a checkpoint nothing counts that an earlier attempt wrote.
        resumed = -1 if self.checkpoints.latest_step is None else start
        log = TrainingLog(
            self.directory, resumed, self.total_steps, peak_flops(), self.report, self.summaries
        )
        try:
            self._begin(state, log)
            with progress("training", self.total_steps, start) as show:
                self._loop(state, start, log, show)
            self.checkpoints.wait()
        finally:
            log.close()

    def _begin(self, state: TrainState, log: TrainingLog) -> None:
        """What comes before the first step that this call makes."""

    def _stream(self, start: int) -> Iterator[Any]:
        """Yields what the steps start + 1, ... are made from: the batches."""
        return batches(
            self.source,
            batch_size=self.config.batch_size,
            seed=self.seed,
            start=start,
            stop=self.total_steps,
            rows=self.partitioner.own_rows(self.config.batch_size),
        )

    def _update(self, state: TrainState, item: Any) -> tuple[TrainState, Metrics, Work]:
        """Makes a step of what `_stream` yields; returns the real tokens and FLOPs, too."""
        state, metrics = self.train_step(
            state, self.partitioner.shard_batch(item), np.uint32(self.seed)
        )
        return state, metrics, self._work(item)

    def _work(self, batch: Any) -> Work:
        return _real_work(self.model.config, batch, self.config.forward_passes)

    def _loop(self, state, start: int, log: TrainingLog, show: Callable[[int], None]) -> None:
        previous = None
        for step, item in enumerate(self._stream(start), start=start + 1):
            state, metrics, work = self._update(state, item)
            # The metrics of the step before: the device computes while the host reads them.
            if previous is not None:
                self._log(log, *previous)
            previous = (step, metrics, work)
            evaluating = step % self.eval_period == 0 or step == self.total_steps
            if evaluating or step % self.config.checkpoint_period == 0:
                self._log(log, *previous)
                previous = None
                dev = self._evaluate(log, step, state.params) if evaluating else None
                log.flush()
                self.checkpoints.save(step, state, dev)
            show(step)
            if preemption.is_due() and step < self.total_steps:
                if previous is not None:
                    self._log(log, *previous)
                    log.flush()
                    self.checkpoints.save(step, state, None)
                self.checkpoints.wait()
                self.report(f"saved step {step}")
                raise preemption.Preempted

    def _evaluate(self, log: TrainingLog, step: int, params) -> dict[str, float] | None:
        if self.evaluate is None:
            return None
        dev = {name: float(value) for name, value in self.evaluate(self._whole(params)).items()}
        self.config.check_best_metric(dev)
        log.evaluation(step, dev)
        return dev

    def _log(self, log: TrainingLog, step: int, metrics, work: Work) -> None:
        self._check_finite(step, metrics)
        log.count(*work)
        if step % self.config.log_period == 0 or step == self.total_steps:
            # optax counts from 0: the first update has the schedule's value at 0.
            log.step(step, metrics, float(self.schedule(step - 1)))

    def _check_finite(self, step: int, metrics) -> None:
        """Stops before a step that ran away reaches a checkpoint."""
        checked = {name: metrics[name] for name in ("loss", "grad_norm", "param_norm")}
        if not all(math.isfinite(float(value)) for value in checked.values()):
            self.checkpoints.wait()
        self.config.check_finite(step, checked, self.checkpoints.latest_step, self.kept_in)


def _real_work(config, batch, forward_passes: int) -> Work:
    """Returns the unpadded tokens of a batch and the model FLOPs of training on them.

    Other processes' rows are taken to be like this one's.
    """
    lengths = zip(_lengths(batch, "inputs"), _lengths(batch, "targets"))
    forward = sum(config.flops_per_example(inputs, targets) for inputs, targets in lengths)
    flops = forward_passes * forward
    tokens = int(np.count_nonzero(batch["inputs"]) + np.count_nonzero(batch["targets"]))
    return tokens * distributed.process_count(), flops * distributed.process_count()


def _lengths(batch, feature: str) -> list[int]:
    """Returns the length of every example, packed or not."""
    segments = batch.get(f"{feature}_segments", (batch[feature] > 0).astype(np.int32))
    return [
        int(np.count_nonzero(row == segment))
        for row in segments
        for segment in range(1, row.max() + 1)
    ]
