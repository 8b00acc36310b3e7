"""Attention in one kernel: no logits in main memory, and T5's position biases from their distances.

The kernel (Pallas, compiled by Mosaic for TPUs) holds all keys of a row beside a block of queries,
so that a row of logits has its softmax at once. What comes in and goes out is laid out as the
projections leave it, heads side by side, which spares transposing, and padding heads of 64 to 128
lanes. The backward pass computes the softmax again from queries and keys, and so keeps nothing but
its inputs.

A position bias goes in by distance, as (H, Q + K - 1) numbers, and its gradient comes out so: one
(1, H, Q, K) exists nowhere.

Shape suffixes: B batch, Q query length, K key length, H heads, D head_dim, C = Q + K - 1 distances,
J = H * D, W as in `attention_kernels`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.spmd import logical_to_mesh_axes
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ait_jax.models.attention import MASKED_LOGIT, Seen
from ait_jax.models.attention_kernels import (
    Gradients,
    Inputs,
    Sizes,
    backward_kernel,
    forward_kernel,
)
from ait_jax.runtime.hardware import target_platform

# Fewer queries would fill less than half of a block.
_FEWEST_QUERIES = 64
# Keys, and lanes of a block, that the vector memory of every generation holds (v4: 16 MiB).
_MOST_KEYS, _MOST_LANES = 1280, 128


def suits(query_BxQxHxD: Float[Array, "B Q H D"], key_BxKxHxD: Float[Array, "B K H D"]) -> bool:
    """Says whether the kernel takes these sizes on the mesh in use, and is worth it."""
    sizes = _sizes_of(query_BxQxHxD, key_BxKxHxD)
    longest = max(sizes.query_length, sizes.key_length)
    lanes = sizes.together * sizes.head_dim
    return sizes.query_length >= _FEWEST_QUERIES and longest <= _MOST_KEYS and lanes <= _MOST_LANES


def fused_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    by_distance_HxC: Float[Array, "H C"] | None,
    seen: Seen,
) -> Float[Array, "B Q H D"]:
    """Returns what `dot_product_attention` does, up to rounding.

    Products are summed and the softmax is taken in float32; logits are not scaled. Every device of
    the mesh in use takes its rows and heads. Without a TPU the kernel is interpreted, slowly.

    Args:
        by_distance_HxC: what is added to the logits at distances 1 - Q, ..., K - 1 of a key from
            its query (see `attention.by_pairs`).
    """
    sizes = _sizes_of(query_BxQxHxD, key_BxKxHxD)
    strip_HxW = None
    if seen.causal or by_distance_HxC is not None:
        distances_C = jnp.arange(1 - sizes.query_length, sizes.key_length)
        if by_distance_HxC is None:
            by_distance_HxC = jnp.zeros((query_BxQxHxD.shape[2], distances_C.size))
        by_distance_HxC = by_distance_HxC.astype(jnp.float32)
        if seen.causal:
            by_distance_HxC = jnp.where(distances_C > 0, MASKED_LOGIT, by_distance_HxC)
        strip_HxW = sizes.padded(by_distance_HxC)
    # No query is of segment -1.
    key_segments_BxK = jnp.where(seen.key_segments_BxK == 0, -1, seen.key_segments_BxK)
    batch = query_BxQxHxD.shape[0]
    inputs = Inputs(
        query_BxQxJ=query_BxQxHxD.reshape(batch, sizes.query_length, -1),
        key_BxKxJ=key_BxKxHxD.reshape(batch, sizes.key_length, -1),
        value_BxKxJ=value_BxKxHxD.reshape(batch, sizes.key_length, -1),
        strip_HxW=strip_HxW,
        query_segments_Bx1xQ=seen.query_segments_BxQ[:, None].astype(jnp.int32),
        key_segments_Bx1xK=key_segments_BxK[:, None].astype(jnp.int32),
    )
    attended_BxQxJ: Any = _attention(sizes, inputs)
    return attended_BxQxJ.reshape(query_BxQxHxD.shape)


def _mesh_axes(batch: int, num_heads: int) -> tuple[str | None, str | None]:
    """Returns the mesh axes over which rows and heads lie, None where they are whole."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = logical_to_mesh_axes(("batch", "heads")) or (None, None)
    rows, heads = (
        axis if sizes.get(axis, 1) > 1 and count % sizes[axis] == 0 else None
        for axis, count in zip(axes, (batch, num_heads), strict=True)
    )
    return rows, heads


def _sizes_of(query_BxQxHxD: Any, key_BxKxHxD: Any) -> Sizes:
    """Returns those of a device of the mesh in use."""
    batch, query_length, num_heads, head_dim = query_BxQxHxD.shape
    axes = _mesh_axes(batch, num_heads)
    num_heads //= jax.sharding.get_abstract_mesh().shape.get(axes[1], 1)
    return Sizes(query_length, key_BxKxHxD.shape[1], num_heads, head_dim, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(sizes: Sizes, inputs: Inputs) -> Array:
    def attend(inputs: Inputs) -> Array:
        attended = jax.ShapeDtypeStruct(inputs.query_BxQxJ.shape, inputs.value_BxKxJ.dtype)
        return _call(
            forward_kernel,
            sizes,
            (inputs,),
            out_shape=attended,
            out_specs=sizes.specs()["queries"],
            scratch_shapes=[None if inputs.strip_HxW is None else sizes.strips()],
            cost_estimate=sizes.cost(2, (inputs, attended)),
        )

    rows, heads = sizes.axes
    return _on_mesh(sizes, attend, PartitionSpec(rows, None, heads))(inputs)


def _forward(sizes: Sizes, inputs: Inputs) -> tuple[Array, Inputs]:
    return _attention(sizes, inputs), inputs


def _backward(sizes: Sizes, inputs: Inputs, gradient_BxQxJ: Array) -> tuple[Inputs]:
    rows, heads = sizes.axes
    has_strips = inputs.strip_HxW is not None

    def attend(inputs: Inputs, gradient_BxQxJ: Array) -> Gradients:
        specs = sizes.specs()
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs[:4])
        strips = sizes.strips() if has_strips else None
        sums = pltpu.VMEM((sizes.keys, sizes.together * sizes.head_dim), jnp.float32)
        of_keys, of_strip = specs["keys"], specs["strip"] if has_strips else None
        (gradients,) = _call(
            backward_kernel,
            sizes,
            (inputs, gradient_BxQxJ),
            out_shape=(Gradients(*shapes),),
            out_specs=(Gradients(specs["queries"], of_keys, of_keys, of_strip),),
            scratch_shapes=[strips, strips, sums, sums],
            cost_estimate=sizes.cost(5, (inputs, gradient_BxQxJ, shapes)),
        )
        if has_strips and rows is not None:
            gradients = gradients._replace(strip_HxW=lax.psum(gradients.strip_HxW, rows))
        return gradients

    of_heads = PartitionSpec(rows, None, heads)
    specs = Gradients(of_heads, of_heads, of_heads, PartitionSpec(heads) if has_strips else None)
    gradients = _on_mesh(sizes, attend, specs)(inputs, gradient_BxQxJ)
    return (Inputs(*gradients, query_segments_Bx1xQ=None, key_segments_Bx1xK=None),)


_attention.defvjp(_forward, _backward)


def _on_mesh(sizes: Sizes, attend: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
    """Returns `attend`, a function of `Inputs` and arrays of queries, for the mesh in use."""
    if jax.sharding.get_abstract_mesh().size <= 1:
        return attend
    rows, heads = sizes.axes
    of_heads, of_rows = PartitionSpec(rows, None, heads), PartitionSpec(rows)

    def mapped(inputs: Inputs, *others: Array) -> Any:
        of_strip = None if inputs.strip_HxW is None else PartitionSpec(heads)
        of_inputs = Inputs(of_heads, of_heads, of_heads, of_strip, of_rows, of_rows)
        in_specs = (of_inputs, *[of_heads] * len(others))
        # Unchecked: a kernel would have to tell over which axes its results differ.
        mapping = jax.shard_map(attend, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return mapping(inputs, *others)

    return mapped


def _call(kernel: Any, sizes: Sizes, arrays: tuple[Any, ...], **options: Any) -> Any:
    specs, of_strip = sizes.specs(), arrays[0].strip_HxW
    of_inputs = Inputs(
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
        interpret=target_platform() != "tpu",
        **options,
    )(*arrays)
