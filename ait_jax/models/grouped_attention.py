"""Attention of grouped queries to several parts of keys, each kept where it is.

A text's keys and values come in parts: a prefix that was run before, perhaps shared by several
rows, a row's own prompt, the answer so far. Parts are never joined. All at once, each part is
attended to by itself, and the largest logits and sums of weights combine the parts exactly (the
"online softmax", Milakov and Gimelshein 2018, arXiv 1805.02867); in blocks, which suit a CPU, a
block of queries has one softmax over all parts.

Query head h goes with key head h // (H / K) (Ainslie et al. 2023, arXiv 2305.13245): the queries
of a group, and those of rows that share a prefix, are folded into one longer axis of queries, so
that the keys they share are read once.

Shape suffixes: B rows, P rows of a part (B is a multiple of P: rows that share lie side by side),
Q query length, L length of a part, H query heads, K key heads, D head_dim, G = H / K, S = B / P.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ait_jax.models.attention import MASKED_LOGIT, capped

# Logits of one block, float32: 4 MiB stay in a core's share of the last-level cache.
_BLOCK_LOGITS = 2**20
# Blocks of a step; more were not faster on 2 cores.
_MOST_AT_ONCE = 4


class KeyValue(NamedTuple):
    """The keys and values of a part, laid out so that one query a row reads them in order.

    (Measured on a CPU at L = 300: 3 and 4 times as fast as the other order of the last two axes.)
    """

    key_PxKxDxL: Array
    value_PxKxLxD: Array


class Part(NamedTuple):
    """Keys, values and which of them a query sees, the mask (P, B or 1, 1 or Q, L)."""

    key_value: KeyValue
    mask: Bool[Array, "#P #Q L"]


def attend(
    query_BxQxHxD: Float[Array, "B Q H D"],
    parts: Sequence[Part],
    *,
    blocks_dtype: Any = None,
    softcap: float | None = None,
) -> Float[Array, "B Q H D"]:
    """Returns the attended values in the queries' dtype; queries are scaled already.

    Products are summed and the softmax is taken in float32. A query that sees nothing gets the mean
    of what it must not see.

    Args:
        blocks_dtype: attend a few queries at a time, for the caches of a CPU, with products of
            this dtype. None attends all at once in the dtypes given.
        softcap: what no logit exceeds (`attention.capped`).
    """
    shards = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    if blocks_dtype is None or query_BxQxHxD.shape[1] == 1 or query_BxQxHxD.shape[0] % shards:
        return _attend_parts(query_BxQxHxD, parts, softcap).astype(query_BxQxHxD.dtype)
    blocks = _Blocks(query_BxQxHxD, parts, blocks_dtype, shards, softcap)
    return blocks.attended().astype(query_BxQxHxD.dtype)


# --- all at once ---


def _attend_parts(query_BxQxHxD: Array, parts: Sequence[Part], softcap: float | None) -> Array:
    attended = [_attend_part(query_BxQxHxD, part, softcap) for part in parts]
    if len(attended) == 1:
        values, _, total = attended[0]
        return values / total
    largest = jnp.max(jnp.stack([part[1] for part in attended]), axis=0)
    scales = [jnp.exp(part[1] - largest) for part in attended]
    values, total = (
        sum(scale * part[at] for scale, part in zip(scales, attended, strict=True)) for at in (0, 2)
    )
    return jnp.asarray(values / total)


def _attend_part(
    query_BxQxHxD: Array, part: Part, softcap: float | None
) -> tuple[Array, Array, Array]:
    """Returns the weighted sum (B, Q, H, D), the largest logit and the sum of weights (B, Q, H, 1).

    Weights are exp(logit - largest), all float32.
    """
    (key, value), mask = part
    batch, query_length, num_heads, head_dim = query_BxQxHxD.shape
    rows, key_heads, _, length = key.shape
    shared, group = batch // rows, num_heads // key_heads
    query = query_BxQxHxD.reshape(rows, shared, query_length, key_heads, group, head_dim)
    folded = jnp.transpose(query, (0, 3, 4, 1, 2, 5))
    shape = folded.shape[:-1]
    folded = folded.reshape(*shape[:2], -1, head_dim)
    logits = capped(product("pkrd,pkdl->pkrl", folded, key), softcap).reshape(*shape, length)
    if mask.shape[0] > rows:  # every row's own
        mask_Px1x1xSxQxL = mask.reshape(rows, 1, 1, shared, *mask.shape[1:])
    else:
        mask_Px1x1xSxQxL = mask[:, None, None, None]
    logits = jnp.where(mask_Px1x1xSxQxL, logits, MASKED_LOGIT)
    # The result does not depend on it, so neither does the gradient.
    largest = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    folded = weights.astype(value.dtype).reshape(*shape[:2], -1, length)
    values = product("pkrl,pkld->pkrd", folded, value).reshape(*shape, head_dim)

    def unfolded(x: Array) -> Array:
        return jnp.transpose(x, (0, 3, 4, 1, 2, 5)).reshape(batch, query_length, num_heads, -1)

    return unfolded(values), unfolded(largest), unfolded(total)


def product(equation: str, first: Array, second: Array) -> Array:
    """Returns an einsum that is summed in float32."""
    return jnp.einsum(equation, first, second, preferred_element_type=jnp.float32)


# --- a block at a time ---


class _Blocks:
    """Attention of every row's queries, a block of them at a time and to all parts together.

    Logits of a block stay in a core's cache, and its parts have one softmax. XLA's CPU backend
    runs a product as small as a block's on one core, but products that do not depend on each
    other side by side: so a step takes several blocks, each with operations of its own.
    (Measured on 2 cores with bfloat16 products: 20 rows of 128 behind prefixes of 288 tokens
    13 ms instead of 27, 4 rows of 256 behind one of 1,024 19 ms instead of 66.)

    Rows lie in shards over the mesh's 'data' axis; a block takes one row of every shard, so that
    no row moves. Shape suffixes: X shards, N blocks of a shard, C blocks of a row, R queries of a
    block times G.
    """

    def __init__(
        self,
        query_BxQxHxD: Array,
        parts: Sequence[Part],
        dtype: Any,
        shards: int,
        softcap: float | None,
    ) -> None:
        self.softcap = softcap
        batch, self.length, self.num_heads, self.head_dim = query_BxQxHxD.shape
        self.key_heads = parts[0].key_value.key_PxKxDxL.shape[1]
        self.shards, self.rows = shards, batch // shards
        keys = sum(part.mask.shape[-1] for part in parts)
        self.at_once = min(_MOST_AT_ONCE, os.cpu_count() or 1)
        self.chunks = self._chunks(keys)
        if self.rows * self.chunks % self.at_once:
            self.at_once = 1
        self.query_NxXxKxRxD = self._folded(query_BxQxHxD.astype(dtype))
        self.parts = [
            (self._by_row(key.astype(dtype)), self._by_row(value.astype(dtype)), self._mask(mask))
            for (key, value), mask in parts
        ]

    def _chunks(self, keys: int) -> int:
        """Returns C: the least for which a block is small and blocks fill the steps."""
        fitting = [
            chunks
            for chunks in range(1, self.length + 1)
            if self.length % chunks == 0
            and self.shards * self.num_heads * self.length * keys <= chunks * _BLOCK_LOGITS
        ]
        filling = [chunks for chunks in fitting if self.rows * chunks % self.at_once == 0]
        return next(iter([*filling, *fitting, self.length]))

    def _folded(self, query_BxQxHxD: Array) -> Array:
        queries, group = self.length // self.chunks, self.num_heads // self.key_heads
        query = query_BxQxHxD.reshape(
            self.shards, self.rows, self.chunks, queries, self.key_heads, group, self.head_dim
        )
        query = jnp.transpose(query, (1, 2, 0, 4, 5, 3, 6))
        return query.reshape(-1, self.shards, self.key_heads, group * queries, self.head_dim)

    def _by_row(self, x_Px: Array) -> Array:
        """Returns (P / X, X, ...)."""
        return jnp.moveaxis(x_Px.reshape(self.shards, -1, *x_Px.shape[1:]), 1, 0)

    def _mask(self, mask: Array) -> Array:
        """Returns (P / X, B / X or 1, X or 1, C or 1, Q / C or 1, L)."""
        by_row = mask[None] if mask.shape[0] == 1 else self._by_row(mask)
        per_query = (1, 1) if mask.shape[1] == 1 else (self.chunks, -1)
        return by_row.reshape(*by_row.shape[:2], *per_query, mask.shape[-1])

    def attended(self) -> Array:
        """Returns the attended values, float32 (B, Q, H, D)."""

        def step(index: Array) -> Array:
            first = index * self.at_once
            return jnp.stack([self._block(first + place) for place in range(self.at_once)])

        values = lax.map(step, jnp.arange(self.rows * self.chunks // self.at_once))
        queries, group = self.length // self.chunks, self.num_heads // self.key_heads
        values = values.reshape(
            self.rows, self.chunks, self.shards, self.key_heads, group, queries, self.head_dim
        )
        values = jnp.transpose(values, (2, 0, 1, 5, 3, 4, 6))
        return values.reshape(-1, self.length, self.num_heads, self.head_dim)

    def _block(self, number: Array) -> Array:
        """Returns the attended values of a block, float32 (X, K, R, D)."""
        query_XxKxRxD = self.query_NxXxKxRxD[number]
        row, chunk = number // self.chunks, number % self.chunks
        logits, values = [], []
        for key, value, mask in self.parts:
            of_part = row // (self.rows // key.shape[0])
            logits_XxKxRxL = product("xkrd,xkdl->xkrl", query_XxKxRxD, key[of_part])
            logits_XxKxRxL = capped(logits_XxKxRxL, self.softcap)
            seen = mask[row // (self.rows // mask.shape[0])]
            seen = seen[:, chunk if seen.shape[1] > 1 else 0]
            by_query = logits_XxKxRxL.reshape(
                *logits_XxKxRxL.shape[:2], -1, self.length // self.chunks, seen.shape[-1]
            )
            masked = jnp.where(seen[:, None, None], by_query, MASKED_LOGIT)
            logits.append(masked.reshape(logits_XxKxRxL.shape))
            values.append(value[of_part])
        largest = [jnp.max(x, axis=-1, keepdims=True) for x in logits]
        largest = lax.stop_gradient(functools.reduce(jnp.maximum, largest))
        weights = [jnp.exp(x - largest) for x in logits]
        total = sum(jnp.sum(x, axis=-1, keepdims=True) for x in weights)
        attended = sum(
            product("xkrl,xkld->xkrd", x.astype(value.dtype), value)
            for x, value in zip(weights, values, strict=True)
        )
        return jnp.asarray(attended / total)
