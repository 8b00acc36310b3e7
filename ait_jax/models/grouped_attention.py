"""Attention of grouped queries to several runs of keys, each kept where it is.

A text's keys and values come in parts: a prefix that was run before, perhaps shared by several
rows, a row's own prompt, the answer so far. Nothing is joined: every part is attended to by itself,
with its largest logit and the sum of its weights, and these put the parts together exactly (the
"online softmax", Milakov and Gimelshein 2018, arXiv 1805.02867).

Query head h goes with key head h // (H / K) (Ainslie et al. 2023, arXiv 2305.13245): the queries of a
group, and those of rows that share a prefix, are folded into one longer axis of queries, so that the
keys they share are read once.

Shape suffixes: B rows, P rows of a part (B is a multiple of P: rows that share lie side by side), Q
query length, L length of a part, H query heads, K key heads, D head_dim, G = H / K, S = B / P.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ait_jax.models.attention import MASKED_LOGIT, over_blocks


class KeyValue(NamedTuple):
    """The keys and values of a part, laid out so that one query a row reads them in order.

    (Measured on a CPU at L = 300: 3 and 4 times as fast as the other order of the last two axes.)
    """

    key_PxKxDxL: jax.Array
    value_PxKxLxD: jax.Array


class Part(NamedTuple):
    """Keys, values and which of them a query sees.

    Attributes:
        mask: bool, (P or 1, 1 or Q, L).
    """

    key_value: KeyValue
    mask: jax.Array


def attend(query_BxQxHxD: jax.Array, parts: Sequence[Part], *, blocked: bool = False) -> jax.Array:
    """Returns the attended values (B, Q, H, D) in the queries' dtype; queries are scaled already.

    Products and softmax are in float32. A query that sees nothing gets the mean of what it must
    not see.

    Args:
        blocked: a few rows at a time, as `attention.blocked_attention`.
    """
    attended = [_attend_part(query_BxQxHxD, part, blocked) for part in parts]
    if len(attended) == 1:
        values, _, total = attended[0]
        return (values / total).astype(query_BxQxHxD.dtype)
    largest = jnp.max(jnp.stack([part[1] for part in attended]), axis=0)
    scales = [jnp.exp(part[1] - largest) for part in attended]
    values = sum(scale * part[0] for scale, part in zip(scales, attended))
    total = sum(scale * part[2] for scale, part in zip(scales, attended))
    return (values / total).astype(query_BxQxHxD.dtype)


def _attend_part(
    query_BxQxHxD: jax.Array, part: Part, blocked: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the weighted sum (B, Q, H, D), the largest logit and the sum of weights (B, Q, H, 1).

    Weights are exp(logit - largest), all float32.
    """
    (key, value), mask = part
    batch, query_length, num_heads, head_dim = query_BxQxHxD.shape
    rows, key_heads, _, length = key.shape
    shared, group = batch // rows, num_heads // key_heads
    query = query_BxQxHxD.reshape(rows, shared, query_length, key_heads, group, head_dim)
    common_mask = mask if mask.shape[0] == 1 else None

    def attend_rows(query_PxSxQxKxGxD, key, value, mask):
        mask = common_mask if mask is None else mask
        folded = jnp.transpose(query_PxSxQxKxGxD, (0, 3, 4, 1, 2, 5))
        shape = folded.shape[:-1]
        folded = folded.reshape(*shape[:2], -1, head_dim)
        logits = jnp.einsum("pkrd,pkdl->pkrl", folded, key, preferred_element_type=jnp.float32)
        logits = logits.reshape(*shape, length)
        logits = jnp.where(mask[:, None, None, None], logits, MASKED_LOGIT)
        # The result does not depend on it, so neither does the gradient.
        largest = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        values = jnp.einsum(
            "pkrl,pkld->pkrd",
            weights.astype(value.dtype).reshape(*shape[:2], -1, length),
            value,
            preferred_element_type=jnp.float32,
        ).reshape(*shape, head_dim)
        return tuple(jnp.transpose(x, (0, 3, 4, 1, 2, 5)) for x in (values, largest, total))

    arrays = (query, key, value, None if common_mask is not None else mask)
    if blocked and query_length > 1:
        results = over_blocks(attend_rows, shared * num_heads * query_length * length, *arrays)
    else:
        results = attend_rows(*arrays)
    return tuple(x.reshape(batch, query_length, num_heads, -1) for x in results)
