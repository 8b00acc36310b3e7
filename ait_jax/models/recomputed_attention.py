"""Attention for training on CPUs: a block of queries at a time, recomputed in the backward pass.

`attention.dot_product_attention` writes its (B, H, Q, K) logits to memory and reads them again a
dozen times, forward and backward. Here those of a block stay in a core's cache, and what is kept
for the backward pass is a number a query (Dao et al. 2022, arXiv 2205.14135, section 3.1).

Shape suffixes: as in `attention`; N = B * H heads of rows, R rows of a block, C distances.
"""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ait_jax.models.attention import MASKED_LOGIT, Seen, by_pairs

# Logits of a block, float32: 1 MiB, a core's second cache.
_BLOCK_LOGITS = 2**18
# Fewer logits than these of a head stay in the caches in the plain form, too.
_FEWEST_LOGITS = 384**2
# XLA runs small operations on one core each, and those that do not wait for each other together.
_MOST_AT_ONCE = 4


def suits(query_BxQxHxD: Float[Array, "B Q H D"], key_BxKxHxD: Float[Array, "B K H D"]) -> bool:
    """Says whether these sizes are worth it: long rows, on one device."""
    logits = query_BxQxHxD.shape[1] * key_BxKxHxD.shape[1]
    return logits >= _FEWEST_LOGITS and jax.sharding.get_abstract_mesh().size <= 1


def recomputed_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    by_distance_HxC: Float[Array, "H C"] | None,
    seen: Seen,
) -> Float[Array, "B Q H D"]:
    """Returns what `dot_product_attention` does, in float32 inside.

    Gradients reach query, key, value and bias.

    Args:
        by_distance_HxC: what is added to the logits at distances 1 - L, ..., L - 1 of a key from
            its query, where Q = K = L (see `attention.by_pairs`).
    """
    batch, queries, heads, _ = query_BxQxHxD.shape
    by_head = [_by_head(x.astype(jnp.float32)) for x in (query_BxQxHxD, key_BxKxHxD, value_BxKxHxD)]
    if by_distance_HxC is not None:
        by_distance_HxC = by_distance_HxC.astype(jnp.float32)
    segments = seen.query_segments_BxQ, seen.key_segments_BxK
    attended_NxQxD: Any = _attended(seen.causal, *by_head, by_distance_HxC, *segments)
    attended = attended_NxQxD.reshape(batch, heads, queries, -1)
    return jnp.moveaxis(attended, 1, 2).astype(value_BxKxHxD.dtype)


class _Head(NamedTuple):
    """A head of a row.

    Attributes:
        query_QxD, key_KxD, value_KxD: float32.
        bias: (Q, K), in the backward pass (K, Q); None without biases.
        query_segments_Q, key_segments_K: as of `Seen`.
    """

    query_QxD: Array
    key_KxD: Array
    value_KxD: Array
    bias: Array | None
    query_segments_Q: Int[Array, " Q"]
    key_segments_K: Int[Array, " K"]


def _by_head(x_BxLxHxD: Array) -> Array:
    return jnp.moveaxis(x_BxLxHxD, 2, 1).reshape(-1, x_BxLxHxD.shape[1], x_BxLxHxD.shape[3])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attended(causal: bool, *arrays: Any) -> Array:
    return _forward(causal, *arrays)[0]


def _forward(causal: bool, *arrays: Any) -> tuple[Array, Any]:
    *by_head, by_distance_HxC, query_segments, key_segments = arrays
    bias = None if by_distance_HxC is None else by_pairs(by_distance_HxC)

    def attend(number: Array) -> tuple[Array, Array]:
        head = _head(number, by_head, bias, (query_segments, key_segments))
        blocks = [
            _attend_block(head, rows, causal) for rows in _blocks(head.query_QxD, head.key_KxD)
        ]
        values, log_sums = zip(*blocks, strict=True)
        return jnp.concatenate(values), jnp.concatenate(log_sums)

    attended_NxQxD, log_sums_NxQ = _over_heads(attend, by_head[0].shape[0])
    return attended_NxQxD, (*arrays, attended_NxQxD, log_sums_NxQ)


def _backward(causal: bool, kept: Any, cotangent_NxQxD: Array) -> tuple[Any, ...]:
    *by_head, by_distance_HxC, query_segments, key_segments, attended_NxQxD, log_sums_NxQ = kept
    # What a query's weights lose together: the softmax's gradient needs it.
    means_NxQ = jnp.sum(attended_NxQxD * cotangent_NxQxD, axis=-1)
    bias = None if by_distance_HxC is None else by_pairs(by_distance_HxC[:, ::-1])

    def of_head(number: Array) -> tuple[Array, ...]:
        head = _head(number, by_head, bias, (query_segments, key_segments))
        known = [
            lax.dynamic_index_in_dim(x, number, keepdims=False)
            for x in (cotangent_NxQxD, log_sums_NxQ, means_NxQ)
        ]
        parts = [
            _gradients_of_block(head, keys, causal, *known)
            for keys in _blocks(head.key_KxD, head.query_QxD)
        ]
        of_query, of_key, of_value, *of_bias = zip(*parts, strict=True)
        sums = [jnp.sum(jnp.stack(x), axis=0) for x in (of_query, *of_bias)]
        return sums[0], jnp.concatenate(of_key), jnp.concatenate(of_value), *sums[1:]

    *of_heads, of_bias = *_over_heads(of_head, by_head[0].shape[0]), None
    if by_distance_HxC is not None:
        *of_heads, of_distances_NxC = of_heads
        heads, distances = by_distance_HxC.shape
        of_bias = jnp.sum(of_distances_NxC.reshape(-1, heads, distances), axis=0)[:, ::-1]
    return (*of_heads, of_bias, None, None)


_attended.defvjp(_forward, _backward)


def _head(number: Array, by_head: list[Array], bias: Any, segments: tuple[Array, Array]) -> _Head:
    pick = partial(lax.dynamic_index_in_dim, keepdims=False)
    query, key, value = (pick(x, number) for x in by_head)
    heads = by_head[0].shape[0] // segments[0].shape[0]
    of_head = None if bias is None else pick(bias, number % heads)
    of_query, of_key = (pick(x, number // heads) for x in segments)
    return _Head(query, key, value, of_head, of_query, of_key)


def _blocks(rows: Array, columns: Array) -> list[slice]:
    size = max(1, min(len(rows), _BLOCK_LOGITS // len(columns)))
    return [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def _logits(head: _Head, rows: slice, by_key: bool, causal: bool) -> Array:
    """Returns the masked logits of a block of queries (R, K) or, by key, of keys (R, Q)."""
    sides = (head.query_QxD, head.query_segments_Q), (head.key_KxD, head.key_segments_K)
    (own, own_segments), (others, other_segments) = reversed(sides) if by_key else sides
    logits = own[rows] @ others.T
    if head.bias is not None:
        logits = logits + head.bias[rows]
    # Equal segments are both padding or neither.
    seen = (own_segments[rows, None] == other_segments) & (other_segments != 0)
    if causal:
        places, all_places = jnp.arange(rows.start, rows.stop)[:, None], jnp.arange(len(others))
        seen &= places <= all_places if by_key else places >= all_places
    return jnp.where(seen, logits, MASKED_LOGIT)


def _attend_block(head: _Head, rows: slice, causal: bool) -> tuple[Array, Array]:
    """Returns a block's attended values (R, D) and the logs of its softmaxes' sums (R,)."""
    logits_RxK = _logits(head, rows, False, causal)
    largest_Rx1 = jnp.max(logits_RxK, axis=1, keepdims=True)
    weights_RxK = jnp.exp(logits_RxK - largest_Rx1)
    total_Rx1 = jnp.sum(weights_RxK, axis=1, keepdims=True)
    log_sums_R = (largest_Rx1 + jnp.log(total_Rx1))[:, 0]
    return (weights_RxK @ head.value_KxD) / total_Rx1, log_sums_R


def _gradients_of_block(
    head: _Head, keys: slice, causal: bool, cotangent_QxD: Array, log_sums_Q: Array, means_Q: Array
) -> tuple[Array, ...]:
    """Returns what R keys add to the gradient of queries (Q, D), and keys' and values' own (R, D).

    With biases, also what they add to that of distances from keys to queries, (C,). By keys,
    because two of three products then read rows of logits' gradients, not columns.
    """
    weights_RxQ = jnp.exp(_logits(head, keys, True, causal) - log_sums_Q)
    of_weights_RxQ = head.value_KxD[keys] @ cotangent_QxD.T
    of_logits_RxQ = weights_RxQ * (of_weights_RxQ - means_Q)
    gradients = (
        of_logits_RxQ.T @ head.key_KxD[keys],
        of_logits_RxQ @ head.query_QxD,
        weights_RxQ @ cotangent_QxD,
    )
    if head.bias is None:
        return gradients
    return (*gradients, _by_distance(of_logits_RxQ, keys, len(head.key_KxD)))


def _by_distance(of_logits_RxQ: Array, keys: slice, length: int) -> Array:
    """Returns the sums over pairs of each distance of a query from a key, (2 * length - 1,)."""
    rows, queries = of_logits_RxQ.shape
    # Rows that begin one further to the left each, as `by_pairs` does it the other way.
    sheared = jnp.pad(of_logits_RxQ, ((0, 0), (rows - 1, 0))).reshape(-1)
    sheared = jnp.pad(lax.optimization_barrier(sheared), (0, rows)).reshape(rows, -1)
    sums = jnp.ones((rows,)) @ sheared
    before = length - rows - keys.start
    return jnp.pad(sums[: queries + rows - 1], (before, keys.start))


def _over_heads(function: Any, num: int) -> Any:
    """Maps over the heads, a few in one step."""
    most = min(_MOST_AT_ONCE, os.cpu_count() or 1)
    at_once = max(n for n in range(1, most + 1) if num % n == 0)

    def step(index: Array) -> Any:
        heads = [function(index * at_once + place) for place in range(at_once)]
        return jax.tree.map(lambda *x: jnp.stack(x), *heads)

    results = lax.map(step, jnp.arange(num // at_once))
    return jax.tree.map(lambda x: x.reshape(num, *x.shape[2:]), results)
