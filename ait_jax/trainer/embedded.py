"""The embedded trainer: optax updates over the mesh, Orbax checkpoints, exact resume."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ait_jax.models.interface import Model
from ait_jax.runtime import distributed, preemption, reporter
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.data import Batch, batches
from ait_jax.trainer.interface import Trained, Trainer, TrainingJob
from ait_jax.trainer.metrics import TrainingLog, TrainingWork
from ait_jax.trainer.optimizer import rates_over
from ait_jax.trainer.step import Metrics, StepScalars, TrainState, init_state

TrainerT = TypeVar("TrainerT", bound=Trainer)


@dataclass(frozen=True)
class EmbeddedTrainer(Trainer):
    """Trains with jit over the mesh; the same call continues what was interrupted."""

    def train(self, job: TrainingJob) -> Trained:
        """See `Trainer.train`."""
        return Training(self, job).run()


@lru_cache(maxsize=2)
def _compiled_step(
    config: Trainer, model: Model, partitioner: Partitioner
) -> tuple[Any, tuple[Any, ...]]:
    """Returns `Trainer.compiled_step`: traced once for all rounds of a run."""
    return config.compiled_step(model, partitioner)


class Training(Generic[TrainerT]):
    """One call of `EmbeddedTrainer.train`.

    Subclasses change what a step is (`_stream` yields its input, `_update` makes it) or what learns
    (`_first_params` at the start; `_whole` makes a model's parameters of it, `_result` is what the
    training leaves).
    """

    # In the job's, of the checkpoints.
    folder: ClassVar[str] = ""

    def __init__(self, config: TrainerT, job: TrainingJob) -> None:
        config.check_batch_size(job.partitioner)
        self.config, self.job = config, job
        self.total_steps = config.total_steps(len(job.examples))
        self.eval_period = config.steps_between_evaluations(len(job.examples))
        self.kept_in = job.directory / self.folder
        self.checkpoints = Checkpoints(
            self.kept_in, best_metric=config.best_metric if job.evaluate else None
        )
        self.learning_rates = rates_over(config.schedule, self.total_steps)
        self.work = TrainingWork()
        self.others: tuple[Any, ...] = ()  # arguments of a step between state and batch
        self.train_step, (self.abstract_state, *self.abstract_others) = _compiled_step(
            config, job.model, job.partitioner
        )

    def _initial_state(self) -> TrainState:
        if self.checkpoints.latest_step is not None:
            state = self.checkpoints.restore(self.abstract_state)
            reporter.say(f"continuing from step {int(state.step)}")
            return state
        return jax.jit(
            # A copy, since the train step donates its state and the caller keeps `params`.
            lambda p: init_state(jax.tree.map(jnp.copy, p), self.config.any_rate),
            out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state),
        )(self._first_params())

    def _first_params(self) -> Any:
        return self.job.params

    def _whole(self, params: Any) -> Any:
        """Returns the model's parameters, for evaluation, from what learns."""
        return params

    def run(self) -> Trained:
        """Trains to the end, and returns the chosen checkpoint's parameters."""
        with self.checkpoints, self.job.partitioner.activate():
            start = self.checkpoints.latest_step or 0
            self.config.check_start(start, self.total_steps, self.kept_in)
            if start < self.total_steps:
                self._train(start)
            step = self.checkpoints.chosen_step
            self.checkpoints.keep_only({step, self.total_steps})
            params = self._result(step)
        return Trained(params, step, self.job.directory / f"checkpoint_{step}", self.work)

    def _result(self, step: int) -> Any:
        """Returns the parameters of a step's checkpoint."""
        return self.checkpoints.restore(self.abstract_state, step).params

    def _train(self, start: int) -> None:
        state = self._initial_state()
        # Without a checkpoint, what an earlier attempt wrote does not count.
        resumed = -1 if self.checkpoints.latest_step is None else start
        job = self.job
        log = TrainingLog(job.directory, resumed, self.total_steps, job.summaries)
        try:
            self._begin(state, log)
            preemption.check()  # compiling the first step takes long
            with reporter.progress("training", self.total_steps, start) as show:
                self._loop(state, start, log, show)
            self.checkpoints.wait()
        finally:
            log.close()
        self.work = log.work

    def _begin(self, state: TrainState, log: TrainingLog) -> None:
        """Does what comes before this call's first step."""

    def _stream(self, start: int) -> Iterator[Any]:
        """Yields the input of the steps start + 1, ...: the parts of batches."""
        return batches(
            self.job.examples,
            batch_size=self.config.batch_size,
            seed=self.job.seed,
            start=start,
            stop=self.total_steps,
            packing=self.config.packing(self.job),
            own_rows=self.job.partitioner.own_rows,
        )

    def _update(
        self, state: TrainState, item: Any, scalars: StepScalars
    ) -> tuple[TrainState, Metrics, TrainingWork]:
        """Makes a step from what `_stream` yields."""
        parts = [self.job.partitioner.shard_batch(part) for part in item]
        state, metrics = self.train_step(state, *self.others, parts, scalars)
        works = map(self._work, item)
        return state, metrics, sum(works, TrainingWork(steps=1))

    def _work(self, batch: Batch) -> TrainingWork:
        """Returns what a part of a batch costs; other processes' rows are assumed to be alike."""
        config, ids = self.job.model.config, (batch["inputs"], batch["targets"])
        # A row may lack one of them.
        lengths = zip(_lengths(batch, "inputs"), _lengths(batch, "targets"), strict=False)
        forward = sum(config.flops_per_example(inputs, targets) for inputs, targets in lengths)
        processes = distributed.process_count()
        return TrainingWork(
            tokens=sum(map(np.count_nonzero, ids)) * processes,
            padded_tokens=sum(array.size for array in ids) * processes,
            flops=float(self.config.forward_passes * forward * processes),
        )

    def _loop(
        self, state: TrainState, start: int, log: TrainingLog, show: Callable[[int], None]
    ) -> None:
        # The metrics of a step are read after the next one began: the device never waits for that.
        previous: tuple[int, Metrics, TrainingWork] | None = None
        stream = self._stream(start)
        for step in range(start + 1, self.total_steps + 1):
            since = time.perf_counter()
            item = next(stream)
            # Not in the stubs of jax.Array: is_ready.
            if previous is None or previous[1]["loss"].is_ready():  # pyright: ignore
                log.count(TrainingWork(host_wait=time.perf_counter() - since))
            scalars = StepScalars(np.uint32(self.job.seed), self.learning_rates[step - 1])
            state, metrics, work = self._update(state, item, scalars)
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
                reporter.say(f"saved step {step}")
                raise preemption.Preempted

    def _evaluate(self, log: TrainingLog, step: int, params: Any) -> dict[str, float] | None:
        evaluate = self.job.evaluate
        if evaluate is None:
            return None
        dev = log.evaluation(step, lambda: evaluate(self._whole(params)))
        self.config.check_best_metric(dev)
        return dev

    def _log(self, log: TrainingLog, step: int, metrics: Metrics, work: TrainingWork) -> None:
        checked = {name: metrics[name] for name in ("loss", "grad_norm", "param_norm")}
        self.config.check_finite(step, checked, self._last_kept, self.kept_in)
        log.count(work)
        if step % self.config.log_period == 0 or step == self.total_steps:
            log.step(step, metrics, float(self.learning_rates[step - 1]))

    def _last_kept(self) -> int | None:
        self.checkpoints.wait()
        return self.checkpoints.latest_step


def _lengths(batch: Batch, feature: str) -> list[int]:
    """Returns the length of every example, packed or not."""
    segments = batch.get(f"{feature}_segments", (batch[feature] > 0).astype(np.int32))
    return [
        int(np.count_nonzero(row == segment))
        for row in segments
        for segment in range(1, row.max() + 1)
    ]
