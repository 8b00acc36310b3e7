"""Attention inside of long rows that hold groups of texts, each behind its group's prefix.

A row of thousands of tokens holds several groups one after the other: a prefix, and the texts that
follow it. A text sees its group's prefix and itself. So a block of neighbouring queries needs the keys
of two short windows: one over the prefix of the group in which the block begins, and one from the
beginning of the text in which it begins to the block's end. Groups that begin inside of the block lie in
the second whole, as far as its queries see them.

All blocks and windows are of one size each, wherever groups and texts begin: that is data, and a
program serves all rows of its length.

Shape suffixes: B rows, N their tokens, C blocks of a row, Q = N / C queries of a block, W keys of a
window, L keys of both, H query heads, K key heads, D head_dim, R = Q * H / K.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ait_jax.models.attention import MASKED_LOGIT
from ait_jax.models.grouped_attention import KeyValue, product

# Queries of a block. More of them see more keys of others' texts, fewer make products too small.
# (Measured on 2 cores, N = 4,096: 128 as fast as 64, 32 and 256 slower.)
BLOCK = 64
# Blocks of a step; fewer were slower where windows are short.
_AT_ONCE = 4


class Groups(NamedTuple):
    """What the tokens of rows are, all int32.

    Attributes:
        positions_BxN: in the text, its prefix counted.
        groups_BxN: numbers of groups; 0 is padding.
        texts_BxN: numbers of texts, all of a row different; 0 is a group's prefix.
        begins_BxCx2: where each block's windows begin; none reaches beyond the row.
    """

    positions_BxN: jax.Array
    groups_BxN: jax.Array
    texts_BxN: jax.Array
    begins_BxCx2: jax.Array


class Windows(NamedTuple):
    """What blocks of queries see.

    Attributes:
        begins_BxCx2: where the windows begin.
        masks: bool, (B, C, Q, W) of either window.
    """

    begins_BxCx2: jax.Array
    masks: tuple[jax.Array, jax.Array]


def windows_of(groups: Groups, lengths: tuple[int, int]) -> Windows:
    """Returns what blocks see through windows of so many keys."""
    batch, num_blocks, _ = groups.begins_BxCx2.shape
    length = groups.texts_BxN.shape[1]

    def by_block(x_BxN: jax.Array) -> jax.Array:
        return x_BxN.reshape(batch, num_blocks, -1)

    places_BxCxQ = by_block(jnp.broadcast_to(jnp.arange(length), (batch, length)))
    group_BxCxQ, text_BxCxQ = by_block(groups.groups_BxN), by_block(groups.texts_BxN)
    masks = []
    for window, window_length in enumerate(lengths):
        places_BxCxW = groups.begins_BxCx2[..., window, None] + jnp.arange(window_length)
        of_key = [
            jnp.take_along_axis(x, places_BxCxW.reshape(batch, -1), axis=1)
            .reshape(places_BxCxW.shape)[:, :, None]
            for x in (groups.groups_BxN, groups.texts_BxN)
        ]  # fmt: skip
        group_of_key, text_of_key = of_key
        is_prefix = text_of_key == 0
        seen = (group_of_key == group_BxCxQ[..., None]) & (
            is_prefix | (text_of_key == text_BxCxQ[..., None])
        )
        seen &= places_BxCxW[:, :, None] <= places_BxCxQ[..., None]
        # Windows may overlap: the first one alone shows the prefix of the group that a block begins in.
        in_first = is_prefix & (group_of_key == group_BxCxQ[..., :1, None])
        masks.append(seen & (in_first if window == 0 else ~in_first))
    return Windows(groups.begins_BxCx2, tuple(masks))


def attend_windows(
    query_BxNxHxD: jax.Array, key_value: KeyValue, windows: Windows, *, blocks_dtype: Any = None
) -> jax.Array:
    """Returns the attended values (B, N, H, D) in the queries' dtype; queries are scaled already.

    Args:
        key_value: of the same rows.
        blocks_dtype: take a few blocks at a time, for the caches of a CPU, with products of this
            dtype. None takes all at once in the dtypes given.
    """
    batch, length, num_heads, head_dim = query_BxNxHxD.shape
    key_heads, num_blocks = key_value.key_PxKxDxL.shape[1], windows.begins_BxCx2.shape[1]
    key, value = (x.astype(blocks_dtype or x.dtype) for x in key_value)
    query = query_BxNxHxD.astype(blocks_dtype or query_BxNxHxD.dtype).reshape(
        batch, num_blocks, -1, key_heads, num_heads // key_heads, head_dim
    )
    query_CxBxKxGxQxD = jnp.transpose(query, (1, 0, 3, 4, 2, 5))
    begins_CxBx2 = jnp.moveaxis(windows.begins_BxCx2, 1, 0)
    mask_CxBxQxL = jnp.moveaxis(jnp.concatenate(windows.masks, axis=-1), 1, 0)
    lengths = [mask.shape[-1] for mask in windows.masks]

    def seen_by(x: jax.Array, begins_Bx2: jax.Array, axis: int) -> jax.Array:
        parts = [_slices(x, begins_Bx2[:, i], size, axis) for i, size in enumerate(lengths)]
        return jnp.concatenate(parts, axis=axis)

    def block(index: jax.Array) -> jax.Array:
        """Returns the attended values of a block in all rows, float32 (B, K, G, Q, D)."""
        query, begins_Bx2 = query_CxBxKxGxQxD[index], begins_CxBx2[index]
        shape = query.shape[:-1]
        folded_BxKxRxD = query.reshape(*shape[:2], -1, head_dim)
        logits = product("bkrd,bkdl->bkrl", folded_BxKxRxD, seen_by(key, begins_Bx2, 3))
        logits = logits.reshape(*shape, -1)
        logits = jnp.where(mask_CxBxQxL[index][:, None, None], logits, MASKED_LOGIT)
        largest = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(value.dtype).reshape(*folded_BxKxRxD.shape[:-1], -1)
        values = product("bkrl,bkld->bkrd", weights, seen_by(value, begins_Bx2, 2))
        return values.reshape(*shape, head_dim) / total

    if blocks_dtype is None:
        values = jax.vmap(block)(jnp.arange(num_blocks))
    else:
        at_once = math.gcd(num_blocks, _AT_ONCE)
        values = lax.map(
            lambda step: jnp.stack([block(step * at_once + i) for i in range(at_once)]),
            jnp.arange(num_blocks // at_once),
        ).reshape(query_CxBxKxGxQxD.shape)
    values = jnp.transpose(values, (1, 0, 4, 2, 3, 5))
    return values.reshape(batch, length, num_heads, head_dim).astype(query_BxNxHxD.dtype)


def _slices(x_Bx: jax.Array, begins_B: jax.Array, size: int, axis: int) -> jax.Array:
    """Returns `size` of an axis from where each row's begin."""
    if x_Bx.shape[0] == 1:
        return lax.dynamic_slice_in_dim(x_Bx, begins_B[0], size, axis)
    return jax.vmap(lambda x, begin: lax.dynamic_slice_in_dim(x, begin, size, axis - 1))(
        x_Bx, begins_B
    )
