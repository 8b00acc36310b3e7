"""The train step: a pure function of (state, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from ait_jax.models.likelihood import cross_entropy_loss, shift_right
from ait_jax.runtime.hardware import options_of_training
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
    """Returns the sums of the cross-entropy of "targets": "loss", "correct" and "tokens"."""

    def loss_sums(params: Any, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        targets_BxL = batch["targets"]
        weights_BxL = (targets_BxL > 0).astype(jnp.float32)
        segments = {
            f"{side}coder_segment_ids": batch[f"{feature}_segments"]
            for side, feature in (("en", "inputs"), ("de", "targets"))
            if f"{feature}_segments" in batch
        }
        logits_BxLxV = model.apply(
            {"params": params},
            batch["inputs"],
            shift_right(targets_BxL, batch.get("targets_segments")),
            targets_BxL,
            **segments,
            enable_dropout=model.config.dropout_rate > 0,
            rngs={"dropout": rng},
        )
        loss, tokens = cross_entropy_loss(
            logits_BxLxV, targets_BxL, weights_BxL, z_loss=z_loss, label_smoothing=label_smoothing
        )
        correct = jnp.sum((jnp.argmax(logits_BxLxV, -1) == targets_BxL) * weights_BxL)
        return loss, {"loss": loss, "correct": correct, "tokens": tokens}

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
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Step:
    """Returns step(state, batch, dropout_seed) -> (state, metrics).

    The loss is the mean cross-entropy over the batch's target tokens, for any number of
    microbatches (`gradient_sums`). Dropout is a function of (dropout_seed, state.step,
    microbatch); the seed, uint32, is an argument so that rounds, which differ in it, share a
    program. Metrics (float32 scalars): loss, accuracy, grad_norm (before clipping), param_norm
    (after the update), tokens (of the targets).
    """
    loss_sums = supervised_sums(model, z_loss=z_loss, label_smoothing=label_smoothing)
    compute = gradient_sums(loss_sums, num_microbatches)

    def train_step(
        state: TrainState, batch: Batch, dropout_seed: jax.Array
    ) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.key(dropout_seed), state.step)
        grads, sums = compute(state.params, batch, rng)
        tokens = jnp.maximum(sums["tokens"], 1.0)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        state, norms = updated(state, grads, optimizer)
        metrics = {
            "loss": sums["loss"] / tokens,
            "accuracy": sums["correct"] / tokens,
            **norms,
            "tokens": sums["tokens"],
        }
        return state, metrics

    return train_step


# A jitted step, and its abstract, placed arguments before the batch and dropout's seed: the state,
# which is donated, and what else the step needs.
CompiledStep = tuple[jax.stages.Wrapped, tuple[Any, ...]]


def sharded_step(
    function: Callable[..., tuple[TrainState, Metrics]],
    placed: tuple[Any, ...],
    partitioner: Partitioner,
    dtype: Any,
) -> CompiledStep:
    """Returns a step jitted on a mesh; call or lower it under `partitioner.activate()`.

    Args:
      function: takes what is `placed`, a batch and dropout's seed.
      dtype: of the model's multiplications.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
    step = jax.jit(
        function,
        in_shardings=(*shardings, partitioner.batch_sharding, partitioner.replicated),
        out_shardings=(shardings[0], partitioner.replicated),
        donate_argnums=0,
        compiler_options=options_of_training(partitioner.platform, dtype),
    )
    return step, placed


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
