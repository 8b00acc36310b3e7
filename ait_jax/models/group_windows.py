"""Attention inside of long rows that hold groups of texts, each behind its group's prefix.

A row of thousands of tokens holds several groups one after the other: a prefix, and the texts that
follow it. A text sees its group's prefix and itself. So a block of neighboring queries needs two
stretches of keys, put into one window: the prefix of the group in which the block begins, and
everything from the beginning of the text in which the block begins to the block's end. Groups that
begin inside of the block lie in the second stretch.

Where groups and texts begin is data, so that one program serves all rows of its length. Blocks need
different numbers of keys: in steps, which suit a CPU, blocks of similar needs are taken together,
and each step chooses among a few lengths of windows while it runs. All at once, every block has
the longest window.

Shape suffixes: B rows, N their tokens, C blocks of a row, Q = N / C queries of a block, S steps,
W keys of the longest window, L keys of a window, H query heads, K key heads, D head_dim,
R = Q * H / K.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ait_jax.models.attention import MASKED_LOGIT, capped
from ait_jax.models.grouped_attention import KeyValue, product

# Queries of a block. More of them see more keys of others' texts, fewer make products too small.
# (Measured on 2 cores, N = 4,096, windows of one length: 128 as fast as 64, 32 and 256 slower.)
BLOCK = 64
# Blocks of a step, with operations of their own, so that a product as small as a block's can run on
# one core beside another. (On 2 cores 4 took 0.94 times as long and twice as long to compile.)
_AT_ONCE = 2
# Lengths of the steps' windows, as shares of the longest one. (Over 12 NIV2 tasks, n = k = 10,
# blocks need 397 keys on average and get 461; the longest are 706. Each length costs half a second
# of compilation; eight more of them would leave 439.)
_SHARES = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1)
# Windows are multiples of it.
_MULTIPLE = 32


class Groups(NamedTuple):
    """What the tokens of rows are, all int32.

    Attributes:
        positions_BxN: in the text, its prefix counted.
        groups_BxN: numbers of groups; 0 is padding.
        texts_BxN: numbers of texts, all of a row different; 0 is a group's prefix.
        begins_BxCx3: of the first token of every block: where its group's prefix begins and ends,
            and where its text begins; for a token of a prefix that is the prefix, for padding
            itself.
    """

    positions_BxN: Int[Array, "B N"]
    groups_BxN: Int[Array, "B N"]
    texts_BxN: Int[Array, "B N"]
    begins_BxCx3: Int[Array, "B C 3"]


class Windows(NamedTuple):
    """What blocks of queries see, in the order in which they are taken.

    Attributes:
        blocks_BxC: the blocks of every row in that order.
        stretches_BxCx3: where a window's first stretch of keys begins, how many keys it has (maybe
            none), and where the window would begin if all of it were of the second stretch.
        masks_BxCxQxW: which keys of a window its queries see.
        distances_BxCxQxW: how far before its queries the keys of a window are, int32; None where
            nobody asks.
        lengths_S: which of `window_lengths(W)` a step's windows have; None is the last.
    """

    blocks_BxC: Int[Array, "B C"]
    stretches_BxCx3: Int[Array, "B C 3"]
    masks_BxCxQxW: Bool[Array, "B C Q W"]
    lengths_S: Int[Array, " S"] | None
    distances_BxCxQxW: Int[Array, "B C Q W"] | None = None

    def within(self, window: Array | np.ndarray) -> "Windows":
        """Returns what queries see of the `window` positions that end with their own."""
        assert self.distances_BxCxQxW is not None
        near_BxCxQxW = self.distances_BxCxQxW < window
        return self._replace(masks_BxCxQxW=self.masks_BxCxQxW & near_BxCxQxW)


def window_lengths(longest: int) -> tuple[int, ...]:
    """Returns the lengths among which steps choose, ascending; the last one is `longest`."""
    shares = {math.ceil(share * longest / _MULTIPLE) * _MULTIPLE for share in _SHARES}
    return (*sorted(length for length in shares if BLOCK <= length < longest), longest)


def windows_of(
    groups: Groups, longest: int, *, in_steps: bool, with_distances: bool = False
) -> Windows:
    """Returns what the blocks of rows see.

    Args:
        longest: keys of the longest window: no block needs more, and no row is shorter.
        in_steps: give each step the shortest window that its blocks allow.
        with_distances: for `Windows.within`.
    """
    batch, num_blocks, _ = groups.begins_BxCx3.shape
    length = groups.texts_BxN.shape[1]
    prefix_BxC, behind_BxC, text_BxC = jnp.moveaxis(groups.begins_BxCx3, 2, 0)
    end_BxC = jnp.broadcast_to((jnp.arange(num_blocks) + 1) * BLOCK, prefix_BxC.shape)
    blocks_BxC = jnp.broadcast_to(jnp.arange(num_blocks), prefix_BxC.shape)
    window_BxC, lengths_S = longest, None
    if in_steps:
        needed_BxC = jnp.minimum(end_BxC - prefix_BxC, behind_BxC - prefix_BxC + end_BxC - text_BxC)
        lengths = jnp.array(window_lengths(longest))
        number_BxC = jnp.searchsorted(lengths, needed_BxC)
        blocks_BxC = jnp.argsort(number_BxC, axis=1)
        at_once = math.gcd(num_blocks, _AT_ONCE)
        number_BxC = jnp.take_along_axis(number_BxC, blocks_BxC, axis=1)
        lengths_S = jnp.max(number_BxC.reshape(batch, -1, at_once), axis=(0, 2))
        window_BxC = jnp.repeat(lengths[lengths_S], at_once)[None]
    prefix_BxC, behind_BxC, end_BxC = (
        jnp.take_along_axis(x, blocks_BxC, axis=1) for x in (prefix_BxC, behind_BxC, end_BxC)
    )
    # One stretch, if all from the prefix to the block's end fits.
    first_BxC = jnp.where(end_BxC - prefix_BxC <= window_BxC, 0, behind_BxC - prefix_BxC)
    stretches = (
        jnp.where(first_BxC > 0, prefix_BxC, 0),
        first_BxC,
        jnp.maximum(end_BxC - window_BxC, 0),
    )
    place_W = jnp.arange(longest)
    from_first, count, from_second = (x[..., None] for x in stretches)
    keys_BxCxW = jnp.where(place_W < count, from_first, from_second) + place_W
    keys_BxCxW = jnp.minimum(keys_BxCxW, length - 1)  # of what shorter windows do not have
    queries_BxCxQ = blocks_BxC[..., None] * BLOCK + jnp.arange(BLOCK)
    masks_BxCxQxW = _seen(groups, queries_BxCxQ, keys_BxCxW)
    distances_BxCxQxW = None
    if with_distances:
        of_queries = _at(groups.positions_BxN, queries_BxCxQ)[..., None]
        distances_BxCxQxW = of_queries - _at(groups.positions_BxN, keys_BxCxW)[:, :, None]
    stretches_BxCx3 = jnp.stack(stretches, axis=-1)
    return Windows(blocks_BxC, stretches_BxCx3, masks_BxCxQxW, lengths_S, distances_BxCxQxW)


def _at(x_BxN: Array, places_BxCx: Array) -> Array:
    flat = places_BxCx.reshape(places_BxCx.shape[0], -1)
    return jnp.take_along_axis(x_BxN, flat, axis=1).reshape(places_BxCx.shape)


def _seen(groups: Groups, queries_BxCxQ: Array, keys_BxCxW: Array) -> Array:
    """Returns which keys queries see, bool (B, C, Q, W)."""

    def same(x_BxN: Array) -> Array:
        return _at(x_BxN, queries_BxCxQ)[..., None] == _at(x_BxN, keys_BxCxW)[:, :, None]

    is_prefix_BxCx1xW = (_at(groups.texts_BxN, keys_BxCxW) == 0)[:, :, None]
    in_text = same(groups.groups_BxN) & (is_prefix_BxCx1xW | same(groups.texts_BxN))
    return in_text & (keys_BxCxW[:, :, None] <= queries_BxCxQ[..., None])


def attend_windows(
    query_BxNxHxD: Float[Array, "B N H D"],
    key_value: KeyValue,
    windows: Windows,
    *,
    dtype: Any = None,
    softcap: float | None = None,
) -> Float[Array, "B N H D"]:
    """Returns the attended values in the queries' dtype; queries are scaled already.

    Args:
        key_value: of the same rows.
        dtype: of products; None is that of the queries, keys and values.
        softcap: what no logit exceeds (`attention.capped`).
    """
    batch, length, num_heads, head_dim = query_BxNxHxD.shape
    key_heads, num_blocks = key_value.key_PxKxDxL.shape[1], windows.blocks_BxC.shape[1]
    key, value = (x.astype(dtype or x.dtype) for x in key_value)
    query = query_BxNxHxD.astype(dtype or query_BxNxHxD.dtype).reshape(
        batch, num_blocks, -1, key_heads, num_heads // key_heads, head_dim
    )
    query_BxCxKxGxQxD = jnp.transpose(query, (0, 1, 3, 4, 2, 5))
    rows = (query_BxCxKxGxQxD, key, value, *windows[:3])

    def blocks(place: Array, window: int) -> Array:
        """Returns the attended values of a block of every row."""
        block = partial(_block, place, (window, softcap))
        if batch == 1:
            return block(*(x[0] for x in rows))[None]
        return jax.vmap(block)(*rows)

    if windows.lengths_S is None:
        longest = windows.masks_BxCxQxW.shape[-1]
        of_all = jax.vmap(partial(blocks, window=longest), out_axes=1)
        values_BxCxKxGxQxD = of_all(jnp.arange(num_blocks))
    else:
        values_BxCxKxGxQxD = _in_steps(blocks, windows, windows.lengths_S)
    values = jnp.transpose(values_BxCxKxGxQxD, (0, 1, 4, 2, 3, 5))
    return values.reshape(batch, length, num_heads, head_dim).astype(query_BxNxHxD.dtype)


def _in_steps(blocks: Callable[[Array, int], Array], windows: Windows, lengths_S: Array) -> Array:
    """Returns what `blocks` gives for all blocks, in their order in the row, (B, C, ...)."""
    (batch, num_blocks), num_steps = windows.blocks_BxC.shape, lengths_S.shape[0]
    at_once = num_blocks // num_steps

    def of_window(window: int, step: Array) -> Array:
        return jnp.stack([blocks(step * at_once + i, window) for i in range(at_once)])

    lengths = window_lengths(windows.masks_BxCxQxW.shape[-1])
    choices = [partial(of_window, window) for window in lengths]
    values = lax.map(lambda step: lax.switch(lengths_S[step], choices, step), jnp.arange(num_steps))
    values_BxCx = jnp.moveaxis(values.reshape(num_blocks, *values.shape[2:]), 0, 1)
    places_BxC = jnp.argsort(windows.blocks_BxC, axis=1)
    places_BxCx = places_BxC.reshape(batch, num_blocks, *[1] * (values_BxCx.ndim - 2))
    return jnp.take_along_axis(values_BxCx, places_BxCx, axis=1)


def _block(
    place: Array,
    shape_and_cap: tuple[int, float | None],
    query_CxKxGxQxD: Array,
    key_KxDxN: Array,
    value_KxNxD: Array,
    blocks_C: Array,
    stretches_Cx3: Array,
    masks_CxQxW: Array,
) -> Array:
    """Returns the attended values of a row's block, float32 (K, G, Q, D)."""
    window, softcap = shape_and_cap
    query_KxGxQxD = query_CxKxGxQxD[blocks_C[place]]
    from_first, count, from_second = stretches_Cx3[place]
    is_first_L = jnp.arange(window) < count

    def joined(x: Array, axis: int) -> Array:
        is_first = is_first_L if axis == x.ndim - 1 else is_first_L[:, None]
        first, second = (
            lax.dynamic_slice_in_dim(x, begin, window, axis) for begin in (from_first, from_second)
        )
        return jnp.where(is_first, first, second)

    shape = query_KxGxQxD.shape[:-1]
    folded_KxRxD = query_KxGxQxD.reshape(shape[0], -1, query_KxGxQxD.shape[-1])
    logits = product("krd,kdl->krl", folded_KxRxD, joined(key_KxDxN, 2))
    logits = capped(logits, softcap).reshape(*shape, window)
    logits = jnp.where(masks_CxQxW[place, :, :window], logits, MASKED_LOGIT)
    largest = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights_KxRxL = weights.astype(value_KxNxD.dtype).reshape(shape[0], -1, window)
    values_KxRxD = product("krl,kld->krd", weights_KxRxL, joined(value_KxNxD, 1))
    return values_KxRxD.reshape(query_KxGxQxD.shape) / total
