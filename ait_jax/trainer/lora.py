"""LoRA: adapters (`models.adapters`) learn beside the frozen model; the result is their sum."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ait_jax.models import adapters
from ait_jax.models.interface import Model
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.runtime import reporter
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.embedded import Training
from ait_jax.trainer.interface import Trained, Trainer, TrainingJob
from ait_jax.trainer.metrics import TrainingLog
from ait_jax.trainer.step import CompiledStep, LossSums, TrainState, placed_state


@dataclass(frozen=True)
class LoRATrainer(Trainer):
    """Trains low-rank adapters of some of the model's matrices, and nothing else.

    An adapted matrix W becomes W + (alpha / rank) A B, with A (in, rank) random and B (rank, out)
    0 at the start. Only A and B have gradients, optimizer moments and a place in the training's
    checkpoints, in the folder adapters/ of the round's. Beside it the training leaves one ordinary
    checkpoint_<step>, of the merged parameters and without optimizer states.

    Args:
      rank: of A B.
      alpha: the branch is scaled by alpha / rank.
      targets: names of the adapted matrices (`adapters.targeted`).
      dropout: share of the branch's inputs set to 0 in training.
      Others: see `Trainer`.

    Raises:
      UserError: a value out of its range; in training, a target that the model lacks.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("query", "key", "value", "out", "wi*", "wo")
    dropout: float = 0.0

    trains_all: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.targets, list):  # as gin may give it: not hashable
            object.__setattr__(self, "targets", tuple(self.targets))
        self._check("rank", "LORA_RANK", self.rank >= 1, "at least 1")
        self._check("alpha", "LORA_ALPHA", self.alpha > 0, "above 0")
        self._check("dropout", "LORA_DROPOUT", 0 <= self.dropout < 1, "at least 0 and below 1")

    @property
    def scale(self) -> float:
        """The factor of the branch."""
        return self.alpha / self.rank

    def kernels(self, model: Model) -> list[adapters.Kernel]:
        """Returns the adapted matrices."""
        gin_name = f"{self.gin_name}.targets (LORA_TARGETS)"
        return adapters.targeted(adapters.kernels_of(model), self.targets, gin_name)

    def check_model(self, model: Model) -> None:
        """See `Trainer.check_model`."""
        self.kernels(model)

    def train(self, job: TrainingJob) -> Trained:
        """See `Trainer.train`."""
        self.check_model(job.model)  # before a folder is made
        return _LoRATraining(self, job).run()

    def compiled_step(self, model: Model, partitioner: Partitioner) -> tuple[Any, tuple[Any, ...]]:
        """Returns step(state, frozen, parts, scalars), and the abstract state and frozen."""

        def loss_of(frozen: Any) -> LossSums:
            return self.loss_sums(adapters.Adapted(model, frozen, self.scale, self.dropout))

        shapes, axes = adapters.abstract_adapters(self.kernels(model), self.rank)
        state = placed_state(shapes, axes, self.any_rate, partitioner)
        placed = state, _frozen(model, partitioner)
        step = CompiledStep(
            loss_of, self.optimizer, placed, partitioner, model.config.dtype, self.rows_at_once
        )
        return step, placed


def _frozen(model: Model, partitioner: Partitioner) -> Any:
    """Returns shapes, dtypes and shardings of the parameters that do not learn."""
    shapes, axes = abstract_params(model)
    return jax.tree.map(
        lambda leaf, dtype, place: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place),
        shapes,
        adapters.frozen_dtypes(model, adapters.kernels_of(model)),
        partitioner.param_shardings(shapes, axes),
    )


class _LoRATraining(Training[LoRATrainer]):
    """One call of `LoRATrainer.train`: what learns, `state.params`, are the adapters."""

    folder = "adapters"

    def _first_params(self) -> Any:
        return adapters.init_adapters(
            self.config.kernels(self.job.model),
            self.config.rank,
            self.job.seed,
            jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state.params),
        )

    def _begin(self, state: TrainState, log: TrainingLog) -> None:
        frozen = jax.tree.map(
            # Where the dtype is float32 these are the caller's own arrays.
            lambda leaf, to: jax.device_put(leaf.astype(to.dtype, copy=False), to.sharding),
            self.job.params,
            *self.abstract_others,
        )
        self.others = (frozen,)
        learn, stay = num_params(state.params), num_params(frozen)
        reporter.say(
            f"LoRA: {learn:,} values learn beside {stay:,} frozen ones, {learn / stay:.2%}"
        )

    def _whole(self, params: Any) -> Any:
        placed = jax.tree.map(
            lambda leaf, to: jax.device_put(leaf, to.sharding),
            self.job.params,
            *self.abstract_others,
        )
        return adapters.merged(placed, params, self.config.scale)

    def _result(self, step: int) -> Any:
        """Merges a step's adapters, or reads what was merged before."""
        self.others = ()  # frees them
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=leaf.sharding),
            *self.abstract_others,
        )
        with Checkpoints(self.job.directory) as ordinary:
            if step not in ordinary.steps:
                learned = self.checkpoints.restore(self.abstract_state, step).params
                ordinary.save(step, {"params": self._whole(learned)}, None)
                ordinary.wait()
            ordinary.keep_only({step})
            return ordinary.restore({"params": wanted}, step)["params"]
