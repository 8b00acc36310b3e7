"""Attention for training on CPUs: a block of queries at a time, recomputed in the backward pass.

`attention.dot_product_attention` writes its (B, H, Q, K) logits to memory and reads them again a
dozen times, forward and backward. Here those of a block stay in a core's cache, and what is kept
for the backward pass is a number a query (Dao et al. 2022, arXiv 2205.14135, section 3.1).

Shape suffixes: as in `attention`; N = B * H heads of rows, R queries of a block.
"""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ait_jax.models.attention import MASKED_LOGIT, dot_product_attention

# Logits of a block, float32: 1 MiB, a core's second cache.
_BLOCK_LOGITS = 2**18
# XLA runs small operations on one core each, and those that do not wait for each other together.
_MOST_AT_ONCE = 4


class _Head(NamedTuple):
    """What a head of a row attends with; bias and mask are by queries, backward by keys."""

    query: Array
    key: Array
    value: Array
    bias: Array | None
    mask: Array | None


def recomputed_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    bias_1xHxQxK: Float[Array, "1 H Q K"] | None,
    mask_Bx1xQxK: Bool[Array, "#B 1 #Q K"] | None,
) -> Float[Array, "B Q H D"]:
    """Returns what `dot_product_attention` does, from any dtype in float32 inside.

    Gradients reach query, key, value and bias. Few logits, and rows on several devices, are left
    to `dot_product_attention`.
    """
    batch, queries, heads, _ = query_BxQxHxD.shape
    logits = heads * queries * key_BxKxHxD.shape[1]
    if logits <= 2 * _BLOCK_LOGITS or jax.sharding.get_abstract_mesh().size > 1:
        return dot_product_attention(
            query_BxQxHxD, key_BxKxHxD, value_BxKxHxD, bias_1xHxQxK, mask_Bx1xQxK
        )
    by_head = [_by_head(x.astype(jnp.float32)) for x in (query_BxQxHxD, key_BxKxHxD, value_BxKxHxD)]
    bias = None if bias_1xHxQxK is None else bias_1xHxQxK[0].astype(jnp.float32)
    mask = None
    if mask_Bx1xQxK is not None:
        mask = jnp.broadcast_to(mask_Bx1xQxK[:, 0], (batch, *mask_Bx1xQxK.shape[2:]))
    attended_NxQxD = _attended(*by_head, bias, mask)
    attended = attended_NxQxD.reshape(batch, heads, queries, -1)
    return jnp.moveaxis(attended, 1, 2).astype(value_BxKxHxD.dtype)


def _by_head(x_BxLxHxD: Array) -> Array:
    return jnp.moveaxis(x_BxLxHxD, 2, 1).reshape(-1, x_BxLxHxD.shape[1], x_BxLxHxD.shape[3])


@jax.custom_vjp
def _attended(
    query_NxQxD: Array, key_NxKxD: Array, value_NxKxD: Array, bias: Array | None, mask: Array | None
) -> Array:
    return _forward(query_NxQxD, key_NxKxD, value_NxKxD, bias, mask)[0]


def _forward(*arrays: Any) -> tuple[Array, Any]:
    def attend(number: Array) -> tuple[Array, Array]:
        head = _head(number, *arrays)
        blocks = [_attend_block(head, rows) for rows in _blocks(head.query, head.key)]
        values, log_sums = zip(*blocks, strict=True)
        return jnp.concatenate(values), jnp.concatenate(log_sums)

    attended_NxQxD, log_sums_NxQ = _over_heads(attend, arrays[0].shape[0])
    return attended_NxQxD, (*arrays, attended_NxQxD, log_sums_NxQ)


def _backward(kept: Any, cotangent_NxQxD: Array) -> tuple[Any, ...]:
    *arrays, attended_NxQxD, log_sums_NxQ = kept
    num, bias = arrays[0].shape[0], arrays[3]
    # What a query's weights lose together: the softmax's gradient needs it.
    means_NxQ = jnp.sum(attended_NxQxD * cotangent_NxQxD, axis=-1)
    # By keys, so that two of the three products with gradients of logits read rows, not columns.
    arrays[3:] = [None if x is None else jnp.swapaxes(x, 1, 2) for x in arrays[3:]]

    def of_head(number: Array) -> tuple[Array, ...]:
        head = _head(number, *arrays)
        known = [
            lax.dynamic_index_in_dim(x, number, keepdims=False)
            for x in (cotangent_NxQxD, log_sums_NxQ, means_NxQ)
        ]
        blocks = _blocks(head.key, head.query)
        parts = [_gradients_of_block(head, keys, *known) for keys in blocks]
        of_query, *others = zip(*parts, strict=True)
        return sum(of_query), *(jnp.concatenate(x) for x in others[: 2 + (bias is not None)])

    of_query, of_key, of_value, *of_logits = _over_heads(of_head, num)
    if bias is None:
        return of_query, of_key, of_value, None, None
    of_bias = jnp.sum(of_logits[0].reshape(-1, *arrays[3].shape), axis=0)
    return of_query, of_key, of_value, jnp.swapaxes(of_bias, 1, 2), None


_attended.defvjp(_forward, _backward)


def _head(number: Array, query: Array, key: Array, value: Array, bias: Any, mask: Any) -> _Head:
    pick = partial(lax.dynamic_index_in_dim, keepdims=False)
    heads = 1 if mask is None else query.shape[0] // mask.shape[0]
    return _Head(
        *(pick(x, number) for x in (query, key, value)),
        None if bias is None else pick(bias, number % bias.shape[0]),
        None if mask is None else pick(mask, number // heads),
    )


def _blocks(rows: Array, columns: Array) -> list[slice]:
    size = max(1, min(len(rows), _BLOCK_LOGITS // len(columns)))
    return [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def _biased_and_masked(logits: Array, head: _Head, rows: slice) -> Array:
    if head.bias is not None:
        logits = logits + head.bias[rows]
    if head.mask is not None:
        seen = head.mask if head.mask.shape[0] == 1 else head.mask[rows]
        logits = jnp.where(seen, logits, MASKED_LOGIT)
    return logits


def _attend_block(head: _Head, rows: slice) -> tuple[Array, Array]:
    """Returns a block's attended values (R, D) and the logs of its softmaxes' sums (R,)."""
    logits_RxK = _biased_and_masked(head.query[rows] @ head.key.T, head, rows)
    largest_Rx1 = jnp.max(logits_RxK, axis=1, keepdims=True)
    weights_RxK = jnp.exp(logits_RxK - largest_Rx1)
    total_Rx1 = jnp.sum(weights_RxK, axis=1, keepdims=True)
    log_sums_R = (largest_Rx1 + jnp.log(total_Rx1))[:, 0]
    return (weights_RxK @ head.value) / total_Rx1, log_sums_R


def _gradients_of_block(
    head: _Head, keys: slice, cotangent_QxD: Array, log_sums_Q: Array, means_Q: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns what R keys add to queries' gradients (Q, D), and their own: keys', values' (R, D).

    The last is that of the logits, (R, Q).
    """
    logits_RxQ = _biased_and_masked(head.key[keys] @ head.query.T, head, keys)
    weights_RxQ = jnp.exp(logits_RxQ - log_sums_Q)
    of_weights_RxQ = head.value[keys] @ cotangent_QxD.T
    of_logits_RxQ = weights_RxQ * (of_weights_RxQ - means_Q)
    return (
        of_logits_RxQ.T @ head.key[keys],
        of_logits_RxQ @ head.query,
        weights_RxQ @ cotangent_QxD,
        of_logits_RxQ,
    )


def _over_heads(function: Any, num: int) -> Any:
    """Maps over the heads, a few in one step."""
    most = min(_MOST_AT_ONCE, os.cpu_count() or 1)
    at_once = max(n for n in range(1, most + 1) if num % n == 0)

    def step(index: Array) -> Any:
        heads = [function(index * at_once + place) for place in range(at_once)]
        return jax.tree.map(lambda *x: jnp.stack(x), *heads)

    results = lax.map(step, jnp.arange(num // at_once))
    return jax.tree.map(lambda x: x.reshape(num, *x.shape[2:]), results)
