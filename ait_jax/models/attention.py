"""Attention over projected heads: the plain form, and cheaper forms with the same result.

`kernel_of` and `kernel_in_training` say which form a platform takes; those that take a `Seen` are
in `fused_attention` and `recomputed_attention`. T5 does not divide by sqrt(D): its query kernel's
initial values do. All softmaxes are in float32. `dot_product_attention` is the reference that the
others are tested against.

Shape suffixes: B batch, Q query length, K key length, H heads, D head_dim, E emb_dim, L of both
lengths, C = 2L - 1 distances.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ait_jax.runtime.hardware import target_platform

# What a masked attention logit becomes: finite, so that a row with nothing to
# attend to (a padding query) gives a uniform distribution instead of NaN.
MASKED_LOGIT = -1e10

KERNELS = ("auto", "plain", "blocked", "recomputed", "fused")
# Those that take a `Seen` instead of a mask, and biases by distance.
KERNELS_OF_SEEN = ("recomputed", "fused")

# Logits of one block of rows, float32: 4 MiB stay in a core's share of the last-level cache.
_BLOCK_ELEMENTS = 2**20


def kernel_of(platform: str) -> str:
    """Returns the form that reads fastest on "cpu", "gpu" or "tpu".

    The fused kernel was never run on a GPU; XLA's own fusions serve there.
    """
    return {"cpu": "blocked", "tpu": "fused"}.get(platform, "plain")


def kernel_in_training() -> str:
    """Returns the form that trains fastest where a program is compiled for now.

    T5X and others that trace without a mesh in use (`jax.set_mesh`) leave it to XLA how programs
    are divided, which cannot divide a kernel.
    """
    if jax.sharding.get_abstract_mesh().empty and jax.device_count() > 1:
        return "plain"
    return {"cpu": "recomputed", "tpu": "fused"}.get(target_platform(), "plain")


@struct.dataclass
class Seen:
    """Which keys a query sees, as `KERNELS_OF_SEEN` take it: a mask's rows and columns.

    Attributes:
        query_segments_BxQ: a query sees the keys of its own segment.
        key_segments_BxK: segment 0 is padding, which no query sees.
        causal: and no query a key behind it; both sides are then the same tokens.
    """

    query_segments_BxQ: Int[Array, "B Q"]
    key_segments_BxK: Int[Array, "B K"]
    causal: bool = struct.field(pytree_node=False, default=False)

    def mask(self) -> Bool[Array, "B 1 Q K"]:
        """Returns the same for the other forms."""
        keys_Bx1x1xK = self.key_segments_BxK[:, None, None]
        mask = (self.query_segments_BxQ[:, None, :, None] == keys_Bx1x1xK) & (keys_Bx1x1xK != 0)
        return jnp.tril(mask) if self.causal else mask


# Broadcastable to (B, 1, Q, K), True where a query may look.
Mask: TypeAlias = Bool[Array, "..."] | Seen


def dot_product_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    bias_1xHxQxK: Float[Array, "1 H Q K"] | None,
    mask_Bx1xQxK: Bool[Array, "#B 1 #Q K"] | None,
    *,
    float32_logits: bool = False,
) -> Float[Array, "B Q H D"]:
    """Returns the attended values in the dtype of `value`.

    The softmax is in float32; `float32_logits` also keeps the products of bfloat16
    queries and keys in float32.
    """
    logits_BxHxQxK = jnp.einsum(
        "bqhd,bkhd->bhqk",
        query_BxQxHxD,
        key_BxKxHxD,
        preferred_element_type=jnp.float32 if float32_logits else None,
    ).astype(jnp.float32)
    logits_BxHxQxK = _biased_and_masked(logits_BxHxQxK, bias_1xHxQxK, mask_Bx1xQxK)
    weights_BxHxQxK = jax.nn.softmax(logits_BxHxQxK).astype(value_BxKxHxD.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights_BxHxQxK, value_BxKxHxD)


def by_pairs(by_distance_HxC: Float[Array, "H C"]) -> Float[Array, "H L L"]:
    """Returns what distances 1 - L, ..., L - 1 have for every (query, key) pair.

    Written with reshapes instead of a lookup for every pair, whose gradient, a sum of L x L terms
    into 32, took a twentieth of a training step (T5 1.1 small on a CPU).
    """
    num_heads, count = by_distance_HxC.shape
    length = (count + 1) // 2
    # Rows of 2L numbers, read in rows of 2L - 1: each begins one further to the right.
    rows = jnp.pad(by_distance_HxC, ((0, 0), (0, 1)))[:, None]
    rows = jnp.broadcast_to(rows, (num_heads, length, count + 1)).reshape(num_heads, -1)
    rows_HxLxC = rows[:, : length * count].reshape(num_heads, length, count)
    return rows_HxLxC[:, :, length - 1 :]


def dropped_keys(
    value_BxKxHxD: Float[Array, "B K H D"], rng: Array, rate: float
) -> Float[Array, "B K H D"]:
    """Returns the values with which any form here attends under dropout of its weights.

    As in T5X, dropout falls on whole key positions, the same for every query of a head. So it may
    be applied to the values instead of the weights, of which there are far more.
    """
    batch, keys, heads, _ = value_BxKxHxD.shape
    keep_BxHx1xK = jax.random.bernoulli(rng, 1.0 - rate, (batch, heads, 1, keys))
    scale_BxHx1xK = keep_BxHx1xK.astype(value_BxKxHxD.dtype) / (1.0 - rate)
    return value_BxKxHxD * jnp.transpose(scale_BxHx1xK, (0, 3, 1, 2))


def blocked_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    key_BxKxHxD: Float[Array, "B K H D"],
    value_BxKxHxD: Float[Array, "B K H D"],
    bias_1xHxQxK: Float[Array, "1 H Q K"] | None,
    mask_Bx1xQxK: Bool[Array, "#B 1 #Q K"] | None,
) -> Float[Array, "B Q H D"]:
    """Returns what `dot_product_attention` does, a few rows at a time.

    On a CPU the (B, H, Q, K) logits would be written to memory and read again five times;
    those of a few rows stay in the cache (measured: 3 times as fast at Q = K = 368). XLA's CPU
    backend multiplies batched float32 matrices best, so give float32 there.
    """

    def attend(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
        query, key, value = (jnp.moveaxis(x, 2, 1) for x in (query, key, value))
        logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights, total = _unnormalized_softmax(_biased_and_masked(logits, bias_1xHxQxK, mask))
        attended = jnp.einsum(
            "bhqk,bhkd->bhqd",
            weights.astype(value.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        return jnp.moveaxis(attended / total, 1, 2).astype(value.dtype)

    _, query_length, num_heads, _ = query_BxQxHxD.shape
    row_elements = num_heads * query_length * key_BxKxHxD.shape[1]
    return _over_blocks(
        attend, row_elements, query_BxQxHxD, key_BxKxHxD, value_BxKxHxD, mask_Bx1xQxK
    )


def step_attention(
    query_Bx1xHxD: Float[Array, "B 1 H D"],
    key_BxHxDxK: Float[Array, "B H D K"],
    value_BxHxDxK: Float[Array, "B H D K"],
    bias_1xHx1xK: Float[Array, "1 H 1 K"] | None,
    mask_Bx1x1xK: Bool[Array, "#B 1 1 K"] | None,
) -> Float[Array, "B 1 H D"]:
    """Returns `dot_product_attention` of one query a row, over keys kept with their length last.

    A decoding step reads every key and value once, so memory sets its pace: in this layout
    nothing is transposed first (measured on a CPU: 7 times as fast at K = 512).
    """
    logits_BxHxK = jnp.einsum(
        "bhd,bhdk->bhk", query_Bx1xHxD[:, 0], key_BxHxDxK, preferred_element_type=jnp.float32
    )
    logits_BxHx1xK = _biased_and_masked(logits_BxHxK[:, :, None], bias_1xHx1xK, mask_Bx1x1xK)
    weights_BxHxK = jax.nn.softmax(logits_BxHx1xK[:, :, 0]).astype(value_BxHxDxK.dtype)
    attended_BxHxD = jnp.einsum(
        "bhk,bhdk->bhd", weights_BxHxK, value_BxHxDxK, preferred_element_type=jnp.float32
    )
    return attended_BxHxD[:, None].astype(value_BxHxDxK.dtype)


def absorbed_cross_attention(
    query_BxQxHxD: Float[Array, "B Q H D"],
    encoded_BxKxE: Float[Array, "B K E"],
    key_kernel_ExHxD: Float[Array | np.ndarray, "E H D"],
    value_kernel_ExHxD: Float[Array | np.ndarray, "E H D"],
    mask_Bx1xQxK: Bool[Array, "#B 1 #Q K"] | None,
    *,
    blocked: bool = False,
) -> Float[Array, "B Q H D"]:
    """Returns cross-attention without projecting the encoder output to keys and values.

    q (x W_k)^T = (q W_k^T) x^T, and the weighted sum of x W_v is that of x, times W_v: so the
    kernels are applied to Q queries instead of K source positions. For answers of a few tokens
    under prompts of hundreds that is far less work (`absorbing_is_cheaper`).
    """
    dtype = encoded_BxKxE.dtype

    def attend(query_BxQxHxE: Array, encoded: Array, mask: Array | None) -> Array:
        logits = jnp.einsum(
            "bqhe,bke->bhqk", query_BxQxHxE, encoded, preferred_element_type=jnp.float32
        )
        weights, total = _unnormalized_softmax(_biased_and_masked(logits, None, mask))
        attended_BxQxHxE = jnp.einsum(
            "bhqk,bke->bqhe", weights.astype(dtype), encoded, preferred_element_type=jnp.float32
        )
        return (attended_BxQxHxE / jnp.moveaxis(total, 1, 2)).astype(dtype)

    query_BxQxHxE = jnp.einsum("bqhd,ehd->bqhe", query_BxQxHxD, key_kernel_ExHxD.astype(dtype))
    _, query_length, num_heads, _ = query_BxQxHxE.shape
    row_elements = num_heads * query_length * encoded_BxKxE.shape[1]
    attend_all = partial(_over_blocks, attend, row_elements) if blocked else attend
    attended_BxQxHxE = attend_all(query_BxQxHxE, encoded_BxKxE, mask_Bx1xQxK)
    return jnp.einsum("bqhe,ehd->bqhd", attended_BxQxHxE, value_kernel_ExHxD.astype(dtype))


def absorbing_is_cheaper(
    query_length: int, key_length: int, emb_dim: int, num_heads: int, head_dim: int
) -> bool:
    """Says whether `absorbed_cross_attention` takes clearly fewer multiply-adds than projecting.

    Clearly: its products are smaller and run less efficiently (measured on a CPU).
    """
    joined_kv = num_heads * head_dim
    projected = key_length * emb_dim * joined_kv + query_length * key_length * joined_kv
    absorbed = query_length * emb_dim * joined_kv + query_length * key_length * num_heads * emb_dim
    return 1.5 * absorbed < projected


def capped(logits: Array, softcap: float | None) -> Array:
    """Returns softcap * tanh(logits / softcap), as Gemma 2; the logits themselves for None."""
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def _biased_and_masked(
    logits_BxHxQxK: Array, bias_1xHxQxK: Array | None, mask_Bx1xQxK: Array | None
) -> Array:
    if bias_1xHxQxK is not None:
        logits_BxHxQxK = logits_BxHxQxK + bias_1xHxQxK.astype(jnp.float32)
    if mask_Bx1xQxK is not None:
        logits_BxHxQxK = jnp.where(mask_Bx1xQxK, logits_BxHxQxK, MASKED_LOGIT)
    return logits_BxHxQxK


def _unnormalized_softmax(logits_BxHxQxK: Array) -> tuple[Array, Array]:
    """Returns exp(logits - largest) and its sums (B, H, Q, 1).

    Dividing the attended values instead of the weights saves a pass over (B, H, Q, K).
    """
    weights = jnp.exp(logits_BxHxQxK - jnp.max(logits_BxHxQxK, axis=-1, keepdims=True))
    return weights, jnp.sum(weights, axis=-1, keepdims=True)


def _over_blocks(function: Callable[..., Array], row_elements: int, *arrays: Any) -> Array:
    """Maps `function` over blocks of rows of `arrays` (None stays None), in sequence.

    Rows are sharded over the mesh's 'data' axis; a block takes as many of each shard, so that no
    row moves.
    """
    shards = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    batch = arrays[0].shape[0]
    rows = batch // shards
    if rows * shards != batch:
        return function(*arrays)
    wanted = max(1, _BLOCK_ELEMENTS // (row_elements * shards))
    block = max(size for size in range(1, rows + 1) if rows % size == 0 and size <= wanted)
    if block == rows:
        return function(*arrays)

    def split(x: Array) -> Array:
        x = x.reshape(shards, rows // block, block, *x.shape[1:])
        return jnp.moveaxis(x, 1, 0).reshape(rows // block, shards * block, *x.shape[3:])

    result = lax.map(lambda block: function(*block), jax.tree.map(split, arrays))
    result = result.reshape(rows // block, shards, block, *result.shape[2:])
    return jnp.moveaxis(result, 0, 1).reshape(batch, *result.shape[3:])
