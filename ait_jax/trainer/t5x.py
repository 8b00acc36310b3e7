"""T5X as the trainer: a round's training is one call of T5X's own `t5x.train.train`.

Its Trainer, PjitPartitioner, checkpoints and summaries do the work. The examples are a SeqIO
mixture in the embedded trainer's order, so both trainers see the same batches, and a training
that continues skips what it has seen. T5X is optional, and imported late.
"""

import functools
import importlib.util
import inspect
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax

from ait_jax.errors import UserError, first_line, nearest, shown
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.runtime import buckets, files, preemption, reporter
from ait_jax.runtime.terminal import quiet_stderr
from ait_jax.trainer.checkpointing import NUM_LATEST, best_step
from ait_jax.trainer.data import TokenPairs, in_order
from ait_jax.trainer.interface import Trained, Trainer, TrainingJob
from ait_jax.trainer.metrics import MetricsFile, TrainingLog, TrainingWork
from ait_jax.trainer.optimizer import schedule_over

NETWORKS = ("ait_jax", "t5x")
# What T5X imports in addition to what ait-jax needs.
_PACKAGES = ("t5x", "airio", "jestimator", "fiddle", "tensorboard", "cached_property")
_INSTALL = (
    "install the extra in a clone of ait-jax: pip install -e '.[t5x]' && "
    "pip install --no-deps -r requirements-t5x.txt"
)


@dataclass(frozen=True)
class T5XTrainer(Trainer):
    """Trains with T5X; the same call continues from T5X's last checkpoint.

    With `optimizer.adafactor` T5X uses its own Adafactor; any other optimizer is wrapped. T5X's
    factors the moments of scanned layers (scan_layers) of any size, layer by layer. With
    num_microbatches the gradient is the sum of the microbatches' mean gradients, as always in
    T5X; Adafactor's updates do not depend on that scale.

    Args:
      network: "ait_jax" trains our network, "t5x" T5X's own T5 of the same sizes.
      Others: see `Trainer`.

    Raises:
      UserError: T5X is not installed, or a value is out of its range.
    """

    network: str = "ait_jax"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self.network, f"{self.gin_name}.network (NETWORK)")
        require_t5x()

    def train(self, job: TrainingJob) -> Trained:
        """Trains on `TokenPairs`, which T5X pads to the longest of their `buckets`."""
        return _Training(self, job).run()


def check_network(name: str, gin_name: str) -> None:
    """Raises UserError if T5X has no such network."""
    if name not in NETWORKS:
        near = nearest(str(name), NETWORKS)
        raise UserError(f"{gin_name} = {shown(name)} must be one of {', '.join(NETWORKS)}.{near}")


def require_t5x() -> None:
    """Raises UserError, with what to install, if T5X or what it imports is missing."""
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        raise UserError(
            f"The T5X trainer needs {', '.join(missing)}, not installed here; {_INSTALL} "
            "(or leave out --gin_file=trainers/t5x.gin to use the embedded trainer)."
        )


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # A mere folder named t5x, such as gin/t5x, is a namespace package without a file.
    return spec is not None and (name != "t5x" or spec.origin is not None)


def _import_t5x() -> tuple[Any, Any]:
    """Returns the modules t5x.train and t5x_parts.

    Raises:
      UserError: T5X cannot be imported, or is too old.
    """
    import gin

    try:
        # T5X registers its functions with gin, whose configuration is final by now.
        with gin.unlock_config(), quiet_stderr():
            from t5x import train as t5x_train  # pyright: ignore - optional

            from ait_jax.tasks.seqio_tasks import hide_accelerators
            from ait_jax.trainer import t5x_parts

            hide_accelerators()
    except (ImportError, AttributeError) as error:
        raise UserError(f"T5X cannot be imported ({first_line(error)}); {_INSTALL}.") from error
    needed = {"train_state_initializer_cls", "use_orbax", "actions", "stats_period"}
    lacking = needed - set(inspect.signature(t5x_train.train).parameters)
    if lacking:
        from t5x import version  # pyright: ignore - optional

        raise UserError(
            f"T5X {version.__version__} in {Path(t5x_train.__file__).parent} is too old: its "
            f"train() lacks {', '.join(sorted(lacking))}; {_INSTALL}."
        )
    return t5x_train, t5x_parts


class _Training:
    """One call of `T5XTrainer.train`."""

    def __init__(self, config: T5XTrainer, job: TrainingJob) -> None:
        config.check_batch_size(job.partitioner)
        if not isinstance(job.examples, TokenPairs):
            raise UserError(
                f"{config.gin_name} cannot train on {type(job.examples).__name__}; use "
                "embedded.EmbeddedTrainer for them."
            )
        if not buckets.is_local(job.directory):
            raise UserError(
                f"MODEL_DIR: {config.gin_name} keeps its checkpoints on disk, but {job.directory} "
                "is in a bucket; give a folder that all hosts mount, or use "
                "embedded.EmbeddedTrainer."
            )
        self.config, self.job, self.examples = config, job, job.examples
        self.directory = files.absolute(job.directory)
        self.total_steps = config.total_steps(len(job.examples))
        self.schedule = schedule_over(config.schedule, self.total_steps)
        self.eval_period = config.steps_between_evaluations(len(job.examples))
        self.work = TrainingWork()

    # Checkpoints: T5X writes and restores them, we choose and delete.

    @property
    def steps(self) -> list[int]:
        """The steps of finished checkpoints, found as T5X finds them."""
        names = (path.name for path in self.directory.glob("checkpoint_*") if path.is_dir())
        matches = (re.fullmatch(r"checkpoint_(\d+)", name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def _saving_steps(self) -> list[int]:
        """All steps with a checkpoint, with the last one: without it in its list T5X runs on."""
        periods = (self.config.checkpoint_period, self.eval_period)
        steps = {s for period in periods for s in range(period, self.total_steps, period)}
        return sorted(steps | {self.total_steps})

    def _best_step(self) -> int | None:
        """The checkpoint with the best dev metric; None without dev metrics."""
        name, there = f"dev/{self.config.best_metric}", set(self.steps)
        lines = [line for line in self._file.lines() if name in line and line["step"] in there]
        return best_step({line["step"]: line[name] for line in lines})

    def _wait_for_writing(self, grace: float = 5.0) -> None:
        """Returns once the checkpoint that T5X writes in the background is there.

        T5X's checkpoint manager is out of reach, so this looks at the folder.
        """
        name = f"checkpoint_{self._saved}"
        since = time.monotonic()
        while not (self.directory / name).exists():
            if list(self.directory.glob(f"{name}.*tmp*")):
                since = time.monotonic()
            elif time.monotonic() - since > grace:
                return
            time.sleep(0.02)

    def _delete_all_but(self, kept: set[int | None]) -> None:
        for step in set(self.steps) - kept:
            files.remove_tree(self.directory / f"checkpoint_{step}")

    # The training

    def run(self) -> Trained:
        """Trains to the end, and returns the chosen checkpoint's parameters."""
        start = self.steps[-1] if self.steps else None
        self.config.check_start(start or 0, self.total_steps, self.directory)
        self._file = MetricsFile(self.directory / "metrics.jsonl", start or 0)
        if start != self.total_steps:
            self._train(start)
        step = self._best_step() if self.config.best_metric and self.job.evaluate else None
        step = self.total_steps if step is None else step
        folder = self.directory / f"checkpoint_{step}"
        params = restore_params(folder, self.job.model, self.job.partitioner).params
        self._delete_all_but({step, self.total_steps})
        return Trained(params, step, folder, self.work)

    def _train(self, start: int | None) -> None:
        t5x_train, parts = _import_t5x()
        if start:
            reporter.say(f"continuing from step {start}")
        self._step = self._saved = start or 0
        num_examples = self.total_steps * self.config.batch_size
        self._order = in_order(self.examples, seed=self.job.seed, num_examples=num_examples)
        resumed = -1 if start is None else start
        self._log = TrainingLog(
            self.directory, resumed, self.total_steps, self.job.summaries, has_events=True
        )
        examples = parts.mixture(
            "ait_jax_" + re.sub(r"\W", "_", self.directory.name),
            self.examples,
            vocab_size=self.job.model.config.vocab_size,
            batch_size=self.config.batch_size,
            seed=self.job.seed,
            start=start or 0,
            stop=self.total_steps,
        )
        with (
            _quiet(),
            examples as mixture,
            reporter.progress("training", self.total_steps, start or 0) as self._show,
        ):
            arguments = self._arguments(parts, mixture)
            try:
                t5x_train.train(**arguments)
            except Exception as error:  # T5X, Orbax and TensorStore raise many kinds
                self._wait_for_writing()
                if isinstance(error, UserError) or not start or self._step > start:
                    raise
                raise UserError(
                    f"T5X cannot continue from {self.directory / f'checkpoint_{start}'} "
                    f"({first_line(error)}). If it is damaged or of another model, delete that "
                    "folder to continue from the checkpoint before it."
                ) from error
            finally:
                self._log.close()
        self.work = self._log.work

    def _arguments(self, parts: Any, mixture: str) -> dict[str, Any]:
        """Returns the arguments of `t5x.train.train`."""
        config = self.config
        save = parts.utils.SaveCheckpointConfig(
            dtype="float32", period=self.total_steps, checkpoint_steps=self._saving_steps()
        )
        return {
            "model": parts.encoder_decoder(
                parts.network(self.job.model, config.network),
                self.job.model.config.vocab_size,
                config.optimizer(self.schedule),
                z_loss=config.z_loss,
                label_smoothing=config.label_smoothing,
            ),
            "train_dataset_cfg": parts.utils.DatasetConfig(
                mixture_or_task_name=mixture,
                task_feature_lengths=self._feature_lengths,
                split="train",
                batch_size=config.batch_size,
                shuffle=False,
                seed=0,
            ),
            "train_eval_dataset_cfg": None,
            "infer_eval_dataset_cfg": None,
            "checkpoint_cfg": parts.utils.CheckpointConfig(save=save),
            "partitioner": parts.MeshPartitioner(self.job.partitioner),
            "trainer_cls": functools.partial(
                parts.t5x_trainer.Trainer,
                learning_rate_fn=self.schedule,
                num_microbatches=config.num_microbatches if config.num_microbatches > 1 else None,
            ),
            "model_dir": str(self.directory),
            "total_steps": self.total_steps,
            "eval_steps": 0,
            "eval_period": 0,
            # After every step, so that logs do not depend on where a run stopped.
            "stats_period": 1,
            "random_seed": self.job.seed,
            "summarize_config_fn": lambda *_: None,
            "concurrent_metrics": False,
            "actions": {"TRAIN": [parts.EveryStep(self._after_step)]},
            "train_state_initializer_cls": parts.start_from(self.job.params),
            "verify_matching_vocabs_fn": None,
        }

    @property
    def _feature_lengths(self) -> dict[str, int]:
        buckets = self.examples.buckets
        return {"inputs": buckets.max_source_length, "targets": buckets.max_target_length}

    def _after_step(self, step: int, metrics: Mapping[str, Any], params: Any) -> None:
        """Logs and evaluates; T5X saves the step's checkpoint after this."""
        config, last = self.config, step == self.total_steps
        self._step = step
        values = {name: float(metrics[name]) for name in ("loss", "accuracy", "learning_rate")}
        evaluating = last or step % self.eval_period == 0
        saving = evaluating or step % config.checkpoint_period == 0
        checked = {"loss": values["loss"]}
        if saving:
            checked["param_norm"] = float(optax.tree.norm(params))
        config.check_finite(step, checked, self._last_kept, self.directory)
        self._log.count(self._cost(step))
        if last or step % config.log_period == 0:
            rate = values.pop("learning_rate")
            self._log.step(step, values, rate)
        if evaluating and self.job.evaluate is not None:
            evaluate = functools.partial(self.job.evaluate, params)
            config.check_best_metric(self._log.evaluation(step, evaluate))
        if saving:
            self._log.flush()
            self._delete_all_but({*self.steps[-NUM_LATEST:], self._best_step()})
            self._saved = step
        self._show(step)
        # T5X saves at its own list of steps only: those after the last saved one are repeated.
        preemption.check()

    def _last_kept(self) -> int | None:
        self._wait_for_writing()
        return self.steps[-1] if self.steps else None

    def _cost(self, step: int) -> TrainingWork:
        """Returns what a step costs; T5X pads every batch to the feature lengths."""
        size = self.config.batch_size
        lengths = [
            tuple(map(len, self._order[position]))
            for position in range((step - 1) * size, step * size)
        ]
        flops = sum(self.job.model.config.flops_per_example(*pair) for pair in lengths)
        return TrainingWork(
            steps=1,
            tokens=sum(map(sum, lengths)),
            padded_tokens=size * sum(self._feature_lengths.values()),
            flops=float(self.config.forward_passes * flops),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps T5X's warnings, one per parameter of Adafactor, off the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
