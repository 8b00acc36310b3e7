"""Attention in one kernel: no logits in main memory, and T5's position biases from their distances.

The kernel (Pallas, compiled by Mosaic for TPUs) holds all keys of a row beside a block of queries,
so that a row of logits has its softmax at once. What comes in and goes out is laid out as the
projections leave it, heads side by side, which spares transposing, and padding heads of 64 to 128
lanes. The backward pass computes the softmax again from queries and keys, and so keeps nothing but
its inputs.

A position bias depends on the distance of a key from its query alone: row r of a block of queries
has what row 0 has, r places further to the right. So a head has one strip of R rows, made on the
chip from the (H, Q + K - 1) distances, and the bias of a block is a window of it. Its gradient is
summed over all rows of the batch in such a strip, whose diagonals are added up at the end. A bias
(1, H, Q, K) exists nowhere.

Shape suffixes: B batch, Q query length, K key length, H heads, D head_dim, C = Q + K - 1 distances,
R queries of a block, G heads of a block, N = G * D, J = H * D, S keys of a block (K, rounded up),
W distances of a strip.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen.spmd import logical_to_mesh_axes
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ait_jax.models.attention import MASKED_LOGIT, Seen
from ait_jax.runtime.hardware import target_platform

# The width of a TPU's vector registers: blocks are multiples of it.
_LANES = 128
# Queries of a block.
_ROWS = 128
# Fewer queries would fill less than half of a block.
_FEWEST_QUERIES = 64
# Keys, and lanes of a block, that the vector memory of every generation holds (v4: 16 MiB).
_MOST_KEYS, _MOST_LANES = 1280, 128


def suits(query_BxQxHxD: Float[Array, "B Q H D"], key_BxKxHxD: Float[Array, "B K H D"]) -> bool:
    """Says whether the kernel takes these sizes and is worth it; `on_mesh` is for no others."""
    _, query_length, num_heads, head_dim = query_BxQxHxD.shape
    _, heads_axis = _mesh_axes(*query_BxQxHxD.shape[::2])
    own_heads = num_heads // jax.sharding.get_abstract_mesh().shape.get(heads_axis, 1)
    lanes = _heads_together(own_heads, head_dim) * head_dim
    longest = max(query_length, key_BxKxHxD.shape[1])
    return query_length >= _FEWEST_QUERIES and longest <= _MOST_KEYS and lanes <= _MOST_LANES


def on_mesh(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    by_distance_HxC: Float[Array, "H C"] | None,
    seen: Seen,
) -> Float[Array, "B Q H D"]:
    """Returns `fused_attention` of the rows and heads of every device of the mesh in use."""
    attend = functools.partial(
        fused_attention, causal=seen.causal, interpret=target_platform() != "tpu"
    )
    if jax.sharding.get_abstract_mesh().size > 1:
        rows, heads = _mesh_axes(*query_BxQxHxD.shape[::2])
        of_heads, of_segments = PartitionSpec(rows, None, heads), PartitionSpec(rows)
        attend = jax.shard_map(
            attend,
            in_specs=(*[of_heads] * 3, PartitionSpec(heads), of_segments, of_segments),
            out_specs=of_heads,
            check_vma=False,
        )
    segments = (seen.query_segments_BxQ, seen.key_segments_BxK)
    return attend(query_BxQxHxD, key_BxKxHxD, value_BxKxHxD, by_distance_HxC, *segments)


def _mesh_axes(batch: int, num_heads: int) -> tuple[str | None, str | None]:
    """Returns the mesh axes over which rows and heads lie, None where they are whole."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = logical_to_mesh_axes(("batch", "heads")) or (None, None)
    rows, heads = (
        axis if isinstance(axis, str) and count % sizes.get(axis, 1) == 0 else None
        for axis, count in zip(axes, (batch, num_heads), strict=True)
    )
    return rows, heads


def fused_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    by_distance_HxC: Float[Array, "H C"] | None,
    query_segments_BxQ: Int[Array, "B Q"],
    key_segments_BxK: Int[Array, "B K"],
    *,
    causal: bool = False,
    interpret: bool = False,
) -> Float[Array, "B Q H D"]:
    """Returns what `dot_product_attention` does, up to rounding, of rows on one device.

    Products are summed and the softmax is taken in float32; logits are not scaled.

    Args:
        by_distance_HxC: what is added to the logits at distances 1 - Q, ..., K - 1 of a key from
            its query (see `t5_attention.by_pairs`).
        query_segments_BxQ: a query sees the keys of its own segment.
        key_segments_BxK: no query sees a key of segment 0.
        causal: and no query a key behind it; both sides are then the same tokens.
        interpret: run without a TPU, slowly, as in tests.
    """
    batch, query_length, num_heads, head_dim = query_BxQxHxD.shape
    key_length = key_BxKxHxD.shape[1]
    sizes = _Sizes(query_length, key_length, num_heads, head_dim, interpret)
    strip_HxW = None
    if causal or by_distance_HxC is not None:
        if by_distance_HxC is None:
            by_distance_HxC = jnp.zeros((num_heads, query_length + key_length - 1))
        by_distance_HxC = by_distance_HxC.astype(jnp.float32)
        if causal:
            is_behind_C = jnp.arange(1 - query_length, key_length) > 0
            by_distance_HxC = jnp.where(is_behind_C, MASKED_LOGIT, by_distance_HxC)
        strip_HxW = sizes.padded(by_distance_HxC)
    key_segments_BxK = jnp.where(key_segments_BxK == 0, -1, key_segments_BxK)
    inputs = _Inputs(
        query_BxQxJ=query_BxQxHxD.reshape(batch, query_length, -1),
        key_BxKxJ=key_BxKxHxD.reshape(batch, key_length, -1),
        value_BxKxJ=value_BxKxHxD.reshape(batch, key_length, -1),
        strip_HxW=strip_HxW,
        query_segments_Bx1xQ=query_segments_BxQ[:, None].astype(jnp.int32),
        key_segments_Bx1xK=key_segments_BxK[:, None].astype(jnp.int32),
    )
    attended_BxQxJ: Any = _attention(sizes, inputs)
    return attended_BxQxJ.reshape(query_BxQxHxD.shape)


def _heads_together(num_heads: int, head_dim: int) -> int:
    """Returns G: as few heads as fill whole registers, all where no number of them does."""
    fitting = (g for g in range(1, num_heads) if num_heads % g == 0 and g * head_dim % _LANES == 0)
    return next(fitting, num_heads)


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Lengths, blocks and the grid (H / G, B, Q / R), whose last step is taken first.

    So a row's keys are read once for all of its queries, and the distances once for all rows.
    """

    query_length: int
    key_length: int
    num_heads: int
    head_dim: int
    interpret: bool

    @property
    def together(self) -> int:
        """G."""
        return _heads_together(self.num_heads, self.head_dim)

    @property
    def query_blocks(self) -> int:
        return pl.cdiv(self.query_length, _ROWS)

    @property
    def keys(self) -> int:
        """S."""
        return pl.cdiv(self.key_length, _LANES) * _LANES

    @property
    def strip(self) -> int:
        """W."""
        return self.query_blocks * _ROWS + self.keys

    def padded(self, by_distance_HxC: Array) -> Array:
        """Returns (H / G, G, W): row 0 of the strips."""
        before = self.query_blocks * _ROWS - self.query_length + 1
        behind = self.keys - self.key_length
        strip_HxW = jnp.pad(by_distance_HxC, ((0, 0), (before, behind)))
        return strip_HxW.reshape(-1, self.together, self.strip)

    def window(self, index: Array) -> Any:
        """Returns where in a strip the bias of a block of queries lies."""
        return pl.ds(pl.multiple_of((self.query_blocks - index) * _ROWS, _ROWS), self.keys)

    def specs(self) -> dict[str, pl.BlockSpec]:
        """Returns the blocks of every kind of array."""
        lanes = self.together * self.head_dim
        return {
            "queries": pl.BlockSpec((1, _ROWS, lanes), lambda h, b, i: (b, i, h)),
            "keys": pl.BlockSpec((1, self.keys, lanes), lambda h, b, i: (b, 0, h)),
            "strip": pl.BlockSpec((1, self.together, self.strip), lambda h, b, i: (h, 0, 0)),
            "query_segments": pl.BlockSpec((1, 1, _ROWS), lambda h, b, i: (b, 0, i)),
            "key_segments": pl.BlockSpec((1, 1, self.keys), lambda h, b, i: (b, 0, 0)),
        }

    def lanes(self, head: int) -> slice:
        """Returns where a head of a block lies."""
        return slice(head * self.head_dim, (head + 1) * self.head_dim)

    def strips(self) -> Any:
        """Returns the memory for a block's strips (G, R, W)."""
        return pltpu.VMEM((self.together, _ROWS, self.strip), jnp.float32)

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


class _Inputs(NamedTuple):
    """What both kernels read: arrays, or the blocks of them that are on the chip."""

    query_BxQxJ: Any
    key_BxKxJ: Any
    value_BxKxJ: Any
    strip_HxW: Any
    query_segments_Bx1xQ: Any
    key_segments_Bx1xK: Any


class _Gradients(NamedTuple):
    """What the backward kernel writes, alike."""

    query_BxQxJ: Any
    key_BxKxJ: Any
    value_BxKxJ: Any
    strip_HxW: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(sizes: _Sizes, inputs: _Inputs) -> Array:
    specs = sizes.specs()
    attended = jax.ShapeDtypeStruct(inputs.query_BxQxJ.shape, inputs.value_BxKxJ.dtype)
    return _call(
        _forward_kernel,
        sizes,
        (inputs,),
        out_shape=attended,
        out_specs=specs["queries"],
        scratch_shapes=[None if inputs.strip_HxW is None else sizes.strips()],
        cost_estimate=sizes.cost(2, (inputs, attended)),
    )


def _forward(sizes: _Sizes, inputs: _Inputs) -> tuple[Array, _Inputs]:
    return _attention(sizes, inputs), inputs


def _backward(sizes: _Sizes, inputs: _Inputs, gradient_BxQxJ: Array) -> tuple[_Inputs]:
    specs, has_strips = sizes.specs(), inputs.strip_HxW is not None
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs[:4])
    strips = sizes.strips() if has_strips else None
    sums = pltpu.VMEM((sizes.keys, sizes.together * sizes.head_dim), jnp.float32)
    of_keys, of_strip = specs["keys"], specs["strip"] if has_strips else None
    (gradients,) = _call(
        _backward_kernel,
        sizes,
        (inputs, gradient_BxQxJ),
        out_shape=(_Gradients(*shapes),),
        out_specs=(_Gradients(specs["queries"], of_keys, of_keys, of_strip),),
        scratch_shapes=[strips, strips, sums, sums],
        cost_estimate=sizes.cost(5, (inputs, gradient_BxQxJ, shapes)),
    )
    return (_Inputs(*gradients, query_segments_Bx1xQ=None, key_segments_Bx1xK=None),)


_attention.defvjp(_forward, _backward)


def _call(kernel: Any, sizes: _Sizes, arrays: tuple[Any, ...], **options: Any) -> Any:
    specs, of_strip = sizes.specs(), arrays[0].strip_HxW
    of_inputs = _Inputs(
        specs["queries"],
        specs["keys"],
        specs["keys"],
        None if of_strip is None else specs["strip"],
        specs["query_segments"],
        specs["key_segments"],
    )
    heads, batch = sizes.num_heads // sizes.together, arrays[0].query_BxQxJ.shape[0]
    return pl.pallas_call(
        functools.partial(kernel, sizes),
        grid=(heads, batch, sizes.query_blocks),
        in_specs=(of_inputs, specs["queries"])[: len(arrays)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        interpret=sizes.interpret,
        **options,
    )(*arrays)


# --- on the chip ---


def _forward_kernel(sizes: _Sizes, inputs: _Inputs, attended_1xRxN: Any, strips_GxRxW: Any) -> None:
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


def _backward_kernel(
    sizes: _Sizes,
    inputs: _Inputs,
    gradient_1xRxN: Any,
    gradients: _Gradients,
    strips_GxRxW: Any,
    strip_sums_GxRxW: Any,
    key_sums_SxN: Any,
    value_sums_SxN: Any,
) -> None:
    row, index = pl.program_id(1), pl.program_id(2)
    is_last = index == sizes.query_blocks - 1
    _make_strips(sizes, inputs.strip_HxW, strips_GxRxW)
    _clear((key_sums_SxN, value_sums_SxN), index == 0)
    _clear((strip_sums_GxRxW,), (index == 0) & (row == 0))
    seen_RxS = _seen(inputs)
    rows_left = sizes.query_length - index * _ROWS
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


def _make_strips(sizes: _Sizes, strip_1xGxW: Any, strips_GxRxW: Any) -> None:
    """Fills a head's strip when its first block begins."""
    if strip_1xGxW is None:
        return

    @pl.when((pl.program_id(1) == 0) & (pl.program_id(2) == 0))
    def _() -> None:
        for head in range(sizes.together):
            strip = strip_1xGxW[0, head : head + 1]
            while (rows := strip.shape[0]) < _ROWS:
                strip = jnp.concatenate([strip, pltpu.roll(strip, rows, 1)])
            strips_GxRxW[head] = strip


def _diagonal_sums(strip_RxW: Array) -> Array:
    """Returns (1, W): the gradient of row 0, from which `_make_strips` makes the others."""
    strip, rows = strip_RxW, strip_RxW.shape[0] // 2
    while rows:
        strip = strip[:rows] + pltpu.roll(strip[rows:], strip.shape[1] - rows, 1)
        rows //= 2
    return strip


def _seen(inputs: _Inputs) -> Array:
    """Returns which keys a block's queries see, bool (R, S)."""
    # Mosaic transposes whole registers only.
    segments = jnp.broadcast_to(inputs.query_segments_Bx1xQ[0], (_LANES, _ROWS))
    return segments.T[:, :1] == inputs.key_segments_Bx1xK[0]


def _weights(
    sizes: _Sizes, head: int, query_RxD: Array, key_SxD: Array, strips_GxRxW: Any, seen_RxS: Array
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
