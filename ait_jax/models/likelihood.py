"""Log-likelihoods of target tokens, and the training loss, from logits or from hidden states.

Pure functions, all in float32 whatever the logits' dtype. Token 0 is padding.

Shape suffixes: B batch, L target length, V vocab_size, E emb_dim, N = B * L, S shards of the
vocabulary, C columns of the vocabulary taken together.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int, Shaped

from ait_jax.models.attention import capped
from ait_jax.runtime.hardware import target_platform

PAD_ID = 0
# Logits of a block that suit the caches of a CPU, and the memory of an accelerator.
_BLOCK_ELEMENTS = {"cpu": 2**20}
_MORE_BLOCK_ELEMENTS = 2**25
# Logits that a training loss holds at once.
_LOSS_ELEMENTS = {"cpu": 2**23}
_MORE_LOSS_ELEMENTS = 2**28

_Ids: TypeAlias = Int[Array | np.ndarray, "B L"]
_Logits: TypeAlias = Float[Array | np.ndarray, "B L V"]


def shift_right(targets_BxL: _Ids, segment_ids_BxL: _Ids | None = None) -> Int[Array, "B L"]:
    """Returns the decoder's inputs: the targets one step later, behind the start id 0.

    With segment ids, every packed example starts with 0 instead of its predecessor's
    end-of-sequence, as in seqio's feature converter.
    """
    shifted_BxL = jnp.pad(targets_BxL, ((0, 0), (1, 0)))[:, :-1]
    if segment_ids_BxL is None:
        return shifted_BxL
    previous_BxL = jnp.pad(segment_ids_BxL, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(segment_ids_BxL == previous_BxL, shifted_BxL, PAD_ID)


def _log_likelihood_and_log_z(
    logits_BxLxV: _Logits, targets_BxL: _Ids
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Returns the targets' log-probabilities and the log of the softmax's denominator.

    The target's logit is picked by comparing, not by gathering: along a vocabulary that is
    sharded over devices a comparison stays local, and no (B, L, V) log-softmax is stored.
    """
    logits_BxLxV = logits_BxLxV.astype(jnp.float32)
    largest_BxLx1 = lax.stop_gradient(jnp.max(logits_BxLxV, axis=-1, keepdims=True))
    shifted_BxLxV = logits_BxLxV - largest_BxLx1
    log_sum_BxL = jnp.log(jnp.sum(jnp.exp(shifted_BxLxV), axis=-1))
    is_target_BxLxV = jnp.arange(logits_BxLxV.shape[-1]) == targets_BxL[..., None]
    target_BxL = jnp.sum(jnp.where(is_target_BxLxV, shifted_BxLxV, 0.0), axis=-1)
    return target_BxL - log_sum_BxL, log_sum_BxL + largest_BxLx1[..., 0]


def token_log_likelihoods(logits_BxLxV: _Logits, targets_BxL: _Ids) -> Float[Array, "B L"]:
    """Returns log p(target) at every position, float32, padding included."""
    return _log_likelihood_and_log_z(logits_BxLxV, targets_BxL)[0]


def sum_log_likelihood(logits_BxLxV: _Logits, targets_BxL: _Ids) -> Float[Array, " B"]:
    """Returns the sum over the non-padding targets, float32: T5X's `score_batch`."""
    real_BxL = targets_BxL != PAD_ID
    return jnp.sum(
        jnp.where(real_BxL, token_log_likelihoods(logits_BxLxV, targets_BxL), 0.0), axis=-1
    )


class OutputLayer(NamedTuple):
    """What makes logits from the decoder's hidden states.

    Attributes:
        kernel: (E, V), or the token table (V, E) where the output layer is tied to it.
        vocab_axis: which axis of `kernel` is V.
        scale: the logits are multiplied by it.
        softcap: what no logit exceeds (`attention.capped`).
    """

    kernel: Array | np.ndarray
    vocab_axis: int
    scale: float
    softcap: float | None = None


def logits_of(hidden: Float[Array, "*batch E"], output: OutputLayer) -> Float[Array, "*batch V"]:
    """Returns the logits of hidden states, multiplied in their dtype, summed in float32."""
    axes = ((hidden.ndim - 1,), (1 - output.vocab_axis,))
    kernel = output.kernel.astype(hidden.dtype)
    products = lax.dot_general(hidden, kernel, (axes, ((), ())), preferred_element_type=jnp.float32)
    return capped(output.scale * products, output.softcap)


def fused_mean_log_likelihood(
    hidden_BxLxE: Float[Array, "B L E"], output: OutputLayer, targets_BxL: _Ids
) -> Float[Array, " B"]:
    """Returns the mean over the non-padding targets, end-of-sequence included, float32.

    Its exponential is the likelihood p_ij of the paper's prompt uncertainty (section 3.2). A row
    of padding alone gives 0. Arguments as of `fused_token_log_likelihoods`.
    """
    log_p_BxL = fused_token_log_likelihoods(hidden_BxLxE, output, targets_BxL)
    real_BxL = targets_BxL != PAD_ID
    num_tokens_B = jnp.sum(real_BxL, axis=-1)
    return jnp.sum(jnp.where(real_BxL, log_p_BxL, 0.0), axis=-1) / jnp.maximum(num_tokens_B, 1)


def fused_token_log_likelihoods(
    hidden_BxLxE: Float[Array, "B L E"], output: OutputLayer, targets_BxL: _Ids
) -> Float[Array, "B L"]:
    """Returns `token_log_likelihoods` of the logits of `hidden`, which never exist as a whole.

    The vocabulary is taken in blocks of columns with a running maximum and sum, so that a
    block's logits stay in fast memory (32,128 columns of 128 tokens of 64 rows in float32
    are 1 GB, written once and read three times). Where V is sharded over the mesh's 'model'
    axis every shard goes through its own columns and only (N, S) numbers meet at the end.

    Args:
        hidden: in the dtype of the multiplication; sums are float32.
    """
    hidden_NxE = hidden_BxLxE.reshape(-1, hidden_BxLxE.shape[-1])
    targets_N = targets_BxL.reshape(-1)
    log_z_N = _log_sum_exp(hidden_NxE, output)
    rows_NxE = jnp.take(output.kernel, targets_N, axis=output.vocab_axis, mode="clip")
    rows_NxE = rows_NxE if output.vocab_axis == 0 else rows_NxE.T
    products_NxE = hidden_NxE.astype(jnp.float32) * rows_NxE.astype(jnp.float32)
    target_N = capped(output.scale * jnp.sum(products_NxE, axis=-1), output.softcap)
    return (target_N - log_z_N).reshape(targets_BxL.shape)


def _log_sum_exp(hidden_NxE: Float[Array, "N E"], output: OutputLayer) -> Float[Array, " N"]:
    """Returns log(sum(exp(logits))) over the vocabulary, float32."""
    block_elements = _BLOCK_ELEMENTS.get(target_platform(), _MORE_BLOCK_ELEMENTS)
    shards = jax.sharding.get_abstract_mesh().shape.get("model", 1)
    vocab_size = output.kernel.shape[output.vocab_axis]
    shards = shards if vocab_size % shards == 0 else 1
    columns = vocab_size // shards
    block = min(columns, max(256, block_elements // hidden_NxE.shape[0]))
    num_blocks = -(-columns // block)
    axis = output.vocab_axis
    shape = list(output.kernel.shape)
    shape[axis : axis + 1] = [shards, columns]
    kernel = output.kernel.reshape(shape)
    equation = "ne,sce->nsc" if axis == 0 else "ne,esc->nsc"

    def step(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
        largest_NxS, sum_NxS = carry
        # The last block starts early instead of reaching beyond the end; what it shares with
        # the one before is masked.
        start = jnp.minimum(index * block, columns - block)
        kernel_block = lax.dynamic_slice_in_dim(kernel, start, block, axis + 1)
        logits_NxSxC = output.scale * jnp.einsum(
            equation,
            hidden_NxE,
            kernel_block.astype(hidden_NxE.dtype),
            preferred_element_type=jnp.float32,
        )
        logits_NxSxC = capped(logits_NxSxC, output.softcap)
        if columns % block:
            is_new_C = start + jnp.arange(block) >= index * block
            logits_NxSxC = jnp.where(is_new_C, logits_NxSxC, -jnp.inf)
        larger_NxS = jnp.maximum(largest_NxS, jnp.max(logits_NxSxC, axis=-1))
        sum_NxS = sum_NxS * jnp.exp(largest_NxS - larger_NxS)
        sum_NxS += jnp.sum(jnp.exp(logits_NxSxC - larger_NxS[..., None]), axis=-1)
        return (larger_NxS, sum_NxS), None

    # Finite, so that the first step's difference of maxima is not NaN.
    start = jnp.full((hidden_NxE.shape[0], shards), jnp.finfo(jnp.float32).min)
    (largest_NxS, sum_NxS), _ = lax.scan(
        step, (start, jnp.zeros_like(start)), jnp.arange(num_blocks)
    )
    return jax.nn.logsumexp(largest_NxS + jnp.log(sum_NxS), axis=-1)


def cross_entropy_loss(
    logits_BxLxV: _Logits,
    targets_BxL: _Ids,
    weights_BxL: Shaped[Array | np.ndarray, "B L"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns (sum of weighted losses, sum of weights), float32 scalars.

    As T5X's compute_weighted_cross_entropy (t5x/losses.py): `z_loss` times the squared
    log of the softmax's denominator is added; with `label_smoothing` the rest of the
    probability is spread over the other tokens and the smoothed targets' own entropy is
    subtracted, so that a perfect model has loss 0.
    """
    vocab_size = logits_BxLxV.shape[-1]
    log_p_BxL, log_z_BxL = _log_likelihood_and_log_z(logits_BxLxV, targets_BxL)
    loss_BxL = -log_p_BxL
    if label_smoothing:
        confidence, rest = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
        sum_log_p_BxL = jnp.sum(logits_BxLxV.astype(jnp.float32), -1) - vocab_size * log_z_BxL
        loss_BxL = -(confidence * log_p_BxL + rest * (sum_log_p_BxL - log_p_BxL))
        entropy = -(confidence * math.log(confidence) + label_smoothing * math.log(rest))
        loss_BxL = loss_BxL - entropy
    if z_loss:
        loss_BxL = loss_BxL + z_loss * lax.square(log_z_BxL)
    weights_BxL = weights_BxL.astype(jnp.float32)
    return jnp.sum(loss_BxL * weights_BxL), jnp.sum(weights_BxL)


class _Loss(NamedTuple):
    """How `fused_cross_entropy_loss` computes; hashable."""

    vocab_axis: int
    scale: float
    z_loss: float
    label_smoothing: float
    block: int  # target positions taken together
    softcap: float | None = None


def fused_cross_entropy_loss(
    hidden_BxLxE: Float[Array, "B L E"],
    output: OutputLayer,
    targets_BxL: _Ids,
    weights_BxL: Shaped[Array | np.ndarray, "B L"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns `cross_entropy_loss` of the logits of `hidden`, and how many argmaxes are right.

    The logits never exist as a whole: a few target positions at a time are taken through loss and
    gradient together, which needs the same three products. Differentiable in `hidden` and the
    kernel; only what is asked for is computed. Both results are float32 and weighted.
    """
    rows, length = targets_BxL.shape
    vocab_size = output.kernel.shape[output.vocab_axis]
    most = _LOSS_ELEMENTS.get(target_platform(), _MORE_LOSS_ELEMENTS)
    blocks = min(length, max(1, rows * length * vocab_size // most))
    block = -(-length // blocks)
    how = _Loss(output.vocab_axis, output.scale, z_loss, label_smoothing, block, output.softcap)
    weights_BxL = jnp.asarray(weights_BxL, jnp.float32)
    kernel = jnp.asarray(output.kernel)
    return _blockwise_loss(how, hidden_BxLxE, kernel, jnp.asarray(targets_BxL), weights_BxL)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blockwise_loss(
    how: _Loss, hidden: Any, kernel: Any, targets: Any, weights: Any
) -> tuple[Array, Array]:
    def add(sums: Any, block: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, _loss_of_block(how, block[0], kernel, *block[1:])), None

    zero = jnp.zeros((), jnp.float32)
    return _over_positions(how, add, (zero, zero), hidden, targets, weights)[0]


def _loss_and_gradients(
    how: _Loss, hidden: Any, kernel: Any, targets: Any, weights: Any
) -> tuple[tuple[Array, Array], tuple[Array | None, Array | None]]:
    """The forward pass: also what the backward pass needs, the gradients of a loss of 1."""
    table = kernel.value
    asked = tuple(i for i, x in enumerate((hidden, kernel)) if x.perturbed)
    gradients_of_block = jax.value_and_grad(partial(_loss_of_block, how), asked, has_aux=True)

    def add(sums: Any, block: Any) -> tuple[Any, Array | None]:
        (loss, correct), gradients = gradients_of_block(block[0], table, *block[1:])
        of_kernel = gradients[-1] if kernel.perturbed else None
        sums = jax.tree.map(jnp.add, sums, (loss, correct, of_kernel))
        return sums, gradients[0] if hidden.perturbed else None

    zero = jnp.zeros((), jnp.float32)
    start = (zero, zero, jnp.zeros_like(table) if kernel.perturbed else None)
    arrays = (hidden.value, targets.value, weights.value)
    (loss, correct, of_kernel), of_hidden = _over_positions(how, add, start, *arrays)
    return (loss, correct), (of_hidden, of_kernel)


def _scaled_gradients(
    how: _Loss, gradients: tuple[Array | None, Array | None], cotangents: Any
) -> tuple[Any, ...]:
    """The backward pass. The number of right argmaxes has no gradient."""
    del how
    scale = cotangents[0]
    if isinstance(scale, SymbolicZero):
        return None, None, None, None
    return (*(g if g is None else (scale * g).astype(g.dtype) for g in gradients), None, None)


_blockwise_loss.defvjp(_loss_and_gradients, _scaled_gradients, symbolic_zeros=True)


def _loss_of_block(
    how: _Loss, hidden: Any, kernel: Any, targets: Any, weights: Any
) -> tuple[Array, Array]:
    logits = logits_of(hidden, OutputLayer(kernel, how.vocab_axis, how.scale, how.softcap))
    loss, _ = cross_entropy_loss(logits, targets, weights, how.z_loss, how.label_smoothing)
    of_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    is_right = lax.stop_gradient(of_target >= jnp.max(logits, axis=-1))
    return loss, jnp.sum(is_right * weights)


def _over_positions(
    how: _Loss, add: Callable[[Any, Any], tuple[Any, Any]], start: Any, *arrays: Any
) -> tuple[Any, Any]:
    """Scans `add` over blocks of the positions (axis 1) of arrays; rows stay where they are."""
    rows, length = arrays[0].shape[:2]
    blocks = -(-length // how.block)
    if blocks == 1:
        return add(start, arrays)

    def split(x: Any) -> Array:
        padding = [(0, 0), (0, blocks * how.block - length)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, padding).reshape(rows, blocks, how.block, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    sums, parts = lax.scan(add, start, tuple(map(split, arrays)))
    if parts is None:
        return sums, None
    joined = jnp.moveaxis(parts, 0, 1).reshape(rows, blocks * how.block, *parts.shape[3:])
    return sums, joined[:, :length]
