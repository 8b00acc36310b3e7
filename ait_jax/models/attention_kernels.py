"""What `fused_attention` runs on the chip: a block of queries with all keys of its row.

So a row of logits has its softmax at once. A position bias depends on the distance of a key from
its query alone: row r of a block of queries has what row 0 has, r places further to the right. So
a head has one strip of R rows, made from its distances, and the bias of a block is a window of it.
Its gradient is summed over all rows of the batch in such a strip, whose diagonals are added up at
the end.

Shape suffixes: B batch, Q query length, K key length, H heads, D head_dim, J = H * D, R queries of
a block, G heads of a block, N = G * D, S keys of a block (K, rounded up), W distances of a strip.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from ait_jax.models.attention import MASKED_LOGIT

# The width of a TPU's vector registers: blocks are multiples of it.
LANES = 128
# Queries of a block.
ROWS = 128


def _heads_together(num_heads: int, head_dim: int) -> int:
    """Returns G: as few heads as fill whole registers, all where no number of them does."""
    fitting = (g for g in range(1, num_heads) if num_heads % g == 0 and g * head_dim % LANES == 0)
    return next(fitting, num_heads)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Lengths, blocks and the grid (H / G, B, Q / R) of a device, whose last axis is inmost.

    So a row's keys are read once for all of its queries, and the distances once for all rows.

    Attributes:
        axes: of the mesh, over which rows and heads lie.
    """

    query_length: int
    key_length: int
    num_heads: int
    head_dim: int
    axes: tuple[str | None, str | None]

    @property
    def together(self) -> int:
        """G."""
        return _heads_together(self.num_heads, self.head_dim)

    @property
    def query_blocks(self) -> int:
        """Q / R, rounded up."""
        return pl.cdiv(self.query_length, ROWS)

    @property
    def keys(self) -> int:
        """S."""
        return pl.cdiv(self.key_length, LANES) * LANES

    @property
    def strip(self) -> int:
        """W."""
        return self.query_blocks * ROWS + self.keys

    def padded(self, by_distance_HxC: Array) -> Array:
        """Returns (H / G, G, W): row 0 of the strips."""
        before = self.query_blocks * ROWS - self.query_length + 1
        behind = self.keys - self.key_length
        strip_HxW = jnp.pad(by_distance_HxC, ((0, 0), (before, behind)))
        return strip_HxW.reshape(-1, self.together, self.strip)

    def window(self, index: Array) -> Any:
        """Returns where in a strip the bias of a block of queries lies."""
        return pl.ds(pl.multiple_of((self.query_blocks - index) * ROWS, ROWS), self.keys)

    def specs(self) -> dict[str, pl.BlockSpec]:
        """Returns the blocks of every kind of array."""
        lanes = self.together * self.head_dim
        return {
            "queries": pl.BlockSpec((1, ROWS, lanes), lambda h, b, i: (b, i, h)),
            "keys": pl.BlockSpec((1, self.keys, lanes), lambda h, b, i: (b, 0, h)),
            "strip": pl.BlockSpec((1, self.together, self.strip), lambda h, b, i: (h, 0, 0)),
            "query_segments": pl.BlockSpec((1, 1, ROWS), lambda h, b, i: (b, 0, i)),
            "key_segments": pl.BlockSpec((1, 1, self.keys), lambda h, b, i: (b, 0, 0)),
        }

    def cost(self, products: int, moved: Any) -> pl.CostEstimate:
        """Returns what a call costs that multiplies Q x K x D `products` times a head.

        Args:
            moved: all that is read and written, queries first.
        """
        moved = jax.tree.leaves(moved)
        pairs = moved[0].shape[0] * self.num_heads * self.query_length * self.key_length
        return pl.CostEstimate(
            flops=2 * products * pairs * self.head_dim,
            transcendentals=pairs,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
        )

    def lanes(self, head: int) -> slice:
        """Returns where a head of a block lies."""
        return slice(head * self.head_dim, (head + 1) * self.head_dim)

    def strips(self) -> Any:
        """Returns the memory for a block's strips (G, R, W)."""
        return pltpu.VMEM((self.together, ROWS, self.strip), jnp.float32)


class Inputs(NamedTuple):
    """What both kernels read: arrays, or the blocks of them that are on the chip."""

    query_BxQxJ: Any
    key_BxKxJ: Any
    value_BxKxJ: Any
    strip_HxW: Any
    query_segments_Bx1xQ: Any
    key_segments_Bx1xK: Any


class Gradients(NamedTuple):
    """What the backward kernel writes, alike."""

    query_BxQxJ: Any
    key_BxKxJ: Any
    value_BxKxJ: Any
    strip_HxW: Any


def forward_kernel(sizes: Sizes, inputs: Inputs, attended_1xRxN: Any, strips_GxRxW: Any) -> None:
    """Writes the attended values of a block of queries, those of all its heads."""
    _make_strips(sizes, inputs.strip_HxW, strips_GxRxW)
    seen_RxS = _seen(inputs)
    query_RxN, key_SxN = inputs.query_BxQxJ[0], inputs.key_BxKxJ[0]
    value_SxN = _real(inputs.value_BxKxJ[0], sizes.key_length)
    for head in range(sizes.together):
        lanes = sizes.lanes(head)
        products = (query_RxN[:, lanes], key_SxN[:, lanes])
        weights_RxS, total_Rx1 = _weights(sizes, head, *products, strips_GxRxW, seen_RxS)
        values_RxD = _dot(weights_RxS.astype(value_SxN.dtype), value_SxN[:, lanes])
        attended_1xRxN[0, :, lanes] = (values_RxD / total_Rx1).astype(attended_1xRxN.dtype)


def backward_kernel(
    sizes: Sizes,
    inputs: Inputs,
    gradient_1xRxN: Any,
    gradients: Gradients,
    strips_GxRxW: Any,
    strip_sums_GxRxW: Any,
    key_sums_SxN: Any,
    value_sums_SxN: Any,
) -> None:
    """Writes the gradients of a block's queries, and of keys, values and strips with the last."""
    row, index = pl.program_id(1), pl.program_id(2)
    is_last = index == sizes.query_blocks - 1
    _make_strips(sizes, inputs.strip_HxW, strips_GxRxW)
    _clear((key_sums_SxN, value_sums_SxN), index == 0)
    _clear((strip_sums_GxRxW,), (index == 0) & (row == 0))
    seen_RxS = _seen(inputs)
    rows_left = sizes.query_length - index * ROWS
    query_RxN, gradient_RxN = (
        _real(x[0], rows_left, sizes.query_length) for x in (inputs.query_BxQxJ, gradient_1xRxN)
    )
    key_SxN, value_SxN = (
        _real(x[0], sizes.key_length) for x in (inputs.key_BxKxJ, inputs.value_BxKxJ)
    )
    for head in range(sizes.together):
        lanes = sizes.lanes(head)
        query, key, value, gradient = (
            x[:, lanes] for x in (query_RxN, key_SxN, value_SxN, gradient_RxN)
        )
        weights_RxS, total_Rx1 = _weights(sizes, head, query, key, strips_GxRxW, seen_RxS)
        weights_RxS = weights_RxS / total_Rx1
        of_weights_RxS = _dot(gradient, value.T)
        mean_Rx1 = jnp.sum(weights_RxS * of_weights_RxS, axis=1, keepdims=True)
        # A query that sees nothing has equal weights, whatever its logits.
        of_logits_RxS = jnp.where(seen_RxS, weights_RxS * (of_weights_RxS - mean_Rx1), 0.0)
        value_sums_SxN[:, lanes] += _dot(weights_RxS.T.astype(gradient.dtype), gradient)
        key_sums_SxN[:, lanes] += _dot(of_logits_RxS.T.astype(query.dtype), query)
        of_query_RxD = _dot(of_logits_RxS.astype(key.dtype), key)
        gradients.query_BxQxJ[0, :, lanes] = of_query_RxD.astype(gradients.query_BxQxJ.dtype)
        if strip_sums_GxRxW is not None:
            strip_sums_GxRxW[head, :, sizes.window(index)] += of_logits_RxS

    @pl.when(is_last)
    def _() -> None:
        for of_keys, sums in zip(gradients[1:3], (key_sums_SxN, value_sums_SxN), strict=True):
            of_keys[0] = sums[...].astype(of_keys.dtype)

    if strip_sums_GxRxW is not None:

        @pl.when(is_last & (row == pl.num_programs(1) - 1))
        def _() -> None:
            for head in range(sizes.together):
                gradients.strip_HxW[0, head : head + 1] = _diagonal_sums(strip_sums_GxRxW[head])


def _clear(memories: Sequence[Any], when: Array) -> None:
    @pl.when(when)
    def _() -> None:
        for memory in memories:
            if memory is not None:
                memory[...] = jnp.zeros_like(memory)


def _make_strips(sizes: Sizes, strip_1xGxW: Any, strips_GxRxW: Any) -> None:
    """Fills a head's strip when its first block begins."""
    if strip_1xGxW is None:
        return

    @pl.when((pl.program_id(1) == 0) & (pl.program_id(2) == 0))
    def _() -> None:
        for head in range(sizes.together):
            strip = strip_1xGxW[0, head : head + 1]
            while (rows := strip.shape[0]) < ROWS:
                strip = jnp.concatenate([strip, pltpu.roll(strip, rows, 1)])
            strips_GxRxW[head] = strip


def _diagonal_sums(strip_RxW: Array) -> Array:
    """Returns (1, W): the gradient of row 0, from which `_make_strips` makes the others."""
    strip, rows = strip_RxW, strip_RxW.shape[0] // 2
    while rows:
        strip = strip[:rows] + pltpu.roll(strip[rows:], strip.shape[1] - rows, 1)
        rows //= 2
    return strip


def _seen(inputs: Inputs) -> Array:
    """Returns which keys a block's queries see, bool (R, S)."""
    # Mosaic transposes whole registers only.
    segments = jnp.broadcast_to(inputs.query_segments_Bx1xQ[0], (LANES, ROWS))
    return segments.T[:, :1] == inputs.key_segments_Bx1xK[0]


def _weights(
    sizes: Sizes, head: int, query_RxD: Array, key_SxD: Array, strips_GxRxW: Any, seen_RxS: Array
) -> tuple[Array, Array]:
    """Returns exp(logits - largest) and its sums (R, 1), float32."""
    logits_RxS = _dot(query_RxD, key_SxD.T)
    if strips_GxRxW is not None:
        logits_RxS += strips_GxRxW[head, :, sizes.window(pl.program_id(2))]
    logits_RxS = jnp.where(seen_RxS, logits_RxS, MASKED_LOGIT)
    if sizes.keys > sizes.key_length:
        place_RxS = lax.broadcasted_iota(jnp.int32, logits_RxS.shape, 1)
        logits_RxS = jnp.where(place_RxS < sizes.key_length, logits_RxS, -jnp.inf)
    weights_RxS = jnp.exp(logits_RxS - jnp.max(logits_RxS, axis=1, keepdims=True))
    return weights_RxS, jnp.sum(weights_RxS, axis=1, keepdims=True)


def _real(x: Array, count: Any, of_all: int | None = None) -> Array:
    """Returns a block with zeros for rows from `count` on, which the array does not have.

    Args:
        of_all: the array's rows, where several blocks cover them; None is `count`.
    """
    if (of_all or count) % x.shape[0] == 0:
        return x
    place = lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(place < count, x, jnp.zeros_like(x))


def _dot(left: Array, right: Array) -> Array:
    return jnp.dot(left, right, preferred_element_type=jnp.float32)
