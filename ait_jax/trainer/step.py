"""The train step: a pure function of (state, batch)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from ait_jax.models.likelihood import fused_cross_entropy_loss, shift_right
from ait_jax.runtime.hardware import options_of_training
from ait_jax.runtime.lanes import Lanes
from ait_jax.runtime.partitioning import Partitioner

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@struct.dataclass
class TrainState:
    """Everything that a checkpoint holds, or its shapes, or its shardings."""

    step: Any  # int32 scalar, number of updates made
    params: Any
    opt_state: Any


# (state, batch, seed of dropout, uint32) -> (state, metrics)
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


class StepScalars(NamedTuple):
    """What differs between steps and rounds besides state and batch: they share a program.

    Attributes:
      dropout_seed: uint32.
      learning_rate: float32, of this step.
    """

    dropout_seed: Any
    learning_rate: Any


# A schedule -> an optimizer, as `optimizer.adamw`.
MakeOptimizer = Callable[[optax.Schedule], optax.GradientTransformation]


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first update."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def state_shardings(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    param_shardings: Any,
    replicated: NamedSharding,
) -> TrainState:
    """Returns a tree of shardings for an (abstract) state.

    Moments with their parameter's shape are placed as it is; Adafactor's factored ones, which
    lack one axis, as its other axes are. Everything else is replicated: counters, and the
    factors of a square matrix, whose shape does not tell which axis is missing.
    """

    def moment(leaf: Any, param: Any, sharding: NamedSharding) -> NamedSharding:
        if leaf.shape == param.shape:
            return sharding
        spec = (*sharding.spec, *[None] * (len(param.shape) - len(sharding.spec)))
        candidates = {
            spec[:axis] + spec[axis + 1 :]
            for axis in range(len(param.shape))
            if leaf.shape == param.shape[:axis] + param.shape[axis + 1 :]
        }
        if len(candidates) != 1:
            return replicated
        return NamedSharding(sharding.mesh, PartitionSpec(*candidates.pop()))

    opt_state = optax.tree_map_params(
        optimizer,
        moment,
        state.opt_state,
        state.params,
        param_shardings,
        transform_non_params=lambda _: replicated,
    )
    return TrainState(replicated, param_shardings, opt_state)


# (params, batch, rng) -> (sum of losses, sums for the metrics), over a batch's examples.
LossSums = Callable[[Any, Batch, jax.Array], tuple[jax.Array, Metrics]]


def supervised_sums(model: Any, *, z_loss: float = 0.0, label_smoothing: float = 0.0) -> LossSums:
    """Returns the sums of the cross-entropy of "targets": "loss", "correct" and "tokens".

    Args:
      model: an `interface.Model` or an `adapters.Adapted`.
    """
    output_layer = getattr(model, "output_layer", model.config.output_layer)

    def loss_sums(params: Any, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        targets_BxL = batch["targets"]
        weights_BxL = (targets_BxL > 0).astype(jnp.float32)
        segments = {
            f"{side}coder_segment_ids": batch[f"{feature}_segments"]
            for side, feature in (("en", "inputs"), ("de", "targets"))
            if f"{feature}_segments" in batch
        }
        hidden_BxLxE = model.apply(
            {"params": params},
            batch["inputs"],
            shift_right(targets_BxL, batch.get("targets_segments")),
            targets_BxL,
            **segments,
            enable_dropout=model.config.dropout_rate > 0,
            rngs={"dropout": rng},
            return_hidden=True,
        )
        if model.config.float32_logits:
            hidden_BxLxE = hidden_BxLxE.astype(jnp.float32)
        output = output_layer(params)
        loss, correct = fused_cross_entropy_loss(
            hidden_BxLxE, output, targets_BxL, weights_BxL, z_loss, label_smoothing
        )
        return loss, {"loss": loss, "correct": correct, "tokens": jnp.sum(weights_BxL)}

    return loss_sums


def gradient_sums(
    loss_sums: LossSums, num_microbatches: int
) -> Callable[[Any, Batch, jax.Array], tuple[Any, Metrics]]:
    """Returns f(params, batch, rng) -> (gradient, sums) over the whole batch.

    Microbatch i has rows i, i + n, i + 2n, ... of the batch, and rng folded with i.
    """
    grad_sums = jax.grad(loss_sums, has_aux=True)

    def accumulate(params: Any, batch: Batch, rng: jax.Array) -> tuple[Any, Metrics]:
        rows = batch["inputs"].shape[0] // num_microbatches
        microbatches = jax.tree.map(
            # Strided rows, so that every microbatch keeps all shards of 'data' busy.
            lambda x: x.reshape(rows, num_microbatches, *x.shape[1:]).swapaxes(0, 1),
            batch,
        )

        def body(sums: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            microbatch, index = part
            new = grad_sums(params, microbatch, jax.random.fold_in(rng, index))
            return jax.tree.map(jnp.add, sums, new), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(grad_sums, params, jax.tree.map(lambda x: x[0], microbatches), rng),
        )
        return jax.lax.scan(body, zeros, (microbatches, jnp.arange(num_microbatches)))[0]

    return grad_sums if num_microbatches == 1 else accumulate


def updated(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """Returns the state after an update; grad_norm (before clipping) and param_norm (after it)."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    norms = {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
    return TrainState(state.step + 1, params, opt_state), norms


def make_train_step(
    loss_sums: LossSums, optimizer: optax.GradientTransformation, num_microbatches: int = 1
) -> Step:
    """Returns step(state, batch, dropout_seed) -> (state, metrics).

    The loss is the mean over the batch's target tokens, for any number of microbatches
    (`gradient_sums`). Dropout is a function of (dropout_seed, state.step, microbatch); the seed,
    uint32, is an argument so that rounds, which differ in it, share a program. Metrics: `finished`.
    """
    compute = gradient_sums(loss_sums, num_microbatches)

    def train_step(
        state: TrainState, batch: Batch, dropout_seed: jax.Array
    ) -> tuple[TrainState, Metrics]:
        rng = _step_key(dropout_seed, state.step)
        return finished(state, compute(state.params, batch, rng), optimizer)

    return train_step


def finished(
    state: TrainState, gradient_and_sums: tuple[Any, Metrics], optimizer: Any
) -> tuple[TrainState, Metrics]:
    """Returns the state after an update by a batch's sums, and metrics.

    These are float32 scalars: loss and accuracy (means over the target tokens), grad_norm (before
    clipping), param_norm (after the update), tokens (of the targets).
    """
    grads, sums = gradient_and_sums
    tokens = jnp.maximum(sums["tokens"], 1.0)
    state, norms = updated(state, jax.tree.map(lambda g: g / tokens, grads), optimizer)
    means = {"loss": sums["loss"] / tokens, "accuracy": sums["correct"] / tokens}
    return state, {**means, **norms, "tokens": sums["tokens"]}


class CompiledStep:
    """An update on a mesh: of one batch in one program, or of the parts of a batch in several.

    A step of one part is one program, optimizer and all. Parts of different shapes are one program
    each, which adds to the sums of its lane, and one for the update. All are compiled at their
    first use; call or lower under `partitioner.activate()`.

    Args:
      loss_of: what else a step needs besides state and batch -> its loss.
      optimizer: made in each program, of its own argument's learning rate.
      placed: the abstract, placed state, and what `loss_of` takes.
      dtype: of the model's multiplications.
      rows_at_once: more are divided into microbatches.
    """

    def __init__(
        self,
        loss_of: Callable[..., LossSums],
        optimizer: MakeOptimizer,
        placed: tuple[Any, ...],
        partitioner: Partitioner,
        dtype: Any,
        rows_at_once: int,
    ) -> None:
        def whole(state: TrainState, *rest: Any) -> tuple[TrainState, Metrics]:
            *others, batch, scalars = rest
            num_microbatches = math.ceil(batch["inputs"].shape[0] / rows_at_once)
            made = optimizer(lambda _: scalars.learning_rate)
            step = make_train_step(loss_of(*others), made, num_microbatches)
            return step(state, batch, scalars.dropout_seed)

        def add(sums: Any, params: Any, *rest: Any) -> Any:
            *others, part, dropout_seed, step, index = rest
            rng = jax.random.fold_in(_step_key(dropout_seed, step), index)
            new = gradient_sums(loss_of(*others), 1)(params, part, rng)
            return jax.tree.map(jnp.add, sums, new)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
        state, *others = shardings
        rows, replicated = partitioner.batch_sharding, partitioner.replicated
        sums = (state.params, replicated)
        self._lanes = Lanes(partitioner)
        self.whole = sharded_step(whole, placed, partitioner, dtype)
        self._begin = jax.jit(
            lambda params: (jax.tree.map(jnp.zeros_like, params), _no_sums()), out_shardings=sums
        )
        self._add = jax.jit(
            add,
            in_shardings=(sums, state.params, *others, rows, *[replicated] * 3),
            out_shardings=sums,
            donate_argnums=0,
            compiler_options=options_of_training(partitioner.platform, dtype),
        )
        self._finish = jax.jit(
            lambda state, lanes, rate: finished(state, _total(lanes), optimizer(lambda _: rate)),
            in_shardings=(state, [sums] * self._lanes.count, replicated),
            out_shardings=(state, replicated),
            donate_argnums=0,
        )

    def __call__(self, state: TrainState, *rest: Any) -> tuple[TrainState, Metrics]:
        """Takes a state, what `loss_of` needs, the parts of a batch and `StepScalars`."""
        *others, parts, scalars = rest
        if len(parts) == 1:
            return self.whole(state, *others, parts[0], scalars)
        numbered = list(enumerate(parts))

        def added(numbered: list[tuple[int, Batch]]) -> Any:
            # Beside a program with loops not even zeros are made: see `Lanes`.
            sums = self._lanes.call("begin", self._begin, state.params)
            for index, part in numbered:
                draws = scalars.dropout_seed, state.step, np.uint32(index)
                shape = part["inputs"].shape, part["targets"].shape
                args = (sums, state.params, *others, part, *draws)
                sums = self._lanes.call(shape, self._add, *args)
            return sums

        # One lane begins with the shortest rows, the other with the longest: while there are
        # programs to compile, they compile different ones.
        lanes = [numbered[lane :: self._lanes.count] for lane in range(self._lanes.count)]
        started = [
            self._lanes.start(added, own[::-1] if lane % 2 else own)
            for lane, own in enumerate(lanes)
        ]
        return self._finish(state, [wait() for wait in started], scalars.learning_rate)


def sharded_step(
    function: Callable[..., tuple[TrainState, Metrics]],
    placed: tuple[Any, ...],
    partitioner: Partitioner,
    dtype: Any,
) -> jax.stages.Wrapped:
    """Returns a step of one program jitted on a mesh; the state is donated.

    Args:
      function: takes what is `placed`, the state first, a batch and `StepScalars`.
      dtype: of the model's multiplications.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
    return jax.jit(
        function,
        in_shardings=(*shardings, partitioner.batch_sharding, partitioner.replicated),
        out_shardings=(shardings[0], partitioner.replicated),
        donate_argnums=0,
        compiler_options=options_of_training(partitioner.platform, dtype),
    )


def _step_key(dropout_seed: jax.Array, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(dropout_seed), step)


def _total(lanes: list[Any]) -> Any:
    return jax.tree.map(lambda *sums: sum(sums[1:], sums[0]), *lanes)


def _no_sums() -> Metrics:
    return {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "tokens")}


def placed_state(
    shapes: Any, axes: Any, optimizer: optax.GradientTransformation, partitioner: Partitioner
) -> TrainState:
    """Returns the abstract state, with shardings, of parameters that learn.

    Args:
      shapes, axes: of these, as `abstract_params` returns them.
    """
    abstract_state = jax.eval_shape(lambda p: init_state(p, optimizer), shapes)
    shardings = state_shardings(
        abstract_state, optimizer, partitioner.param_shardings(shapes, axes), partitioner.replicated
    )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract_state, shardings
    )
