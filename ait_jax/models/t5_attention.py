"""T5's attention: relative position biases and the module with T5X's cache for decoding.

Names and initial values as in `layers`.

Shape suffixes: B batch, L length, Q query length, K key length, E emb_dim, H heads, D head_dim.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Bool, Float, Int

from ait_jax.models import attention
from ait_jax.models.layers import (
    Dense,
    attention_kernel_init,
    param_with_axes,
    with_sharding_constraint,
)

Initializer = Callable[..., jax.Array]


NUM_BUCKETS, MAX_DISTANCE = 32, 128


def relative_position_buckets(
    query_length: int, key_length: int, *, bidirectional: bool
) -> Int[np.ndarray, "Q K"]:
    """Returns the bucket of every (query, key) pair, int32.

    Half of the buckets are for exact distances, the others grow logarithmically up to
    MAX_DISTANCE and hold all beyond it; with `bidirectional` the upper half of the
    numbers is for keys after the query (T5 paper, section 2.1; Mesh TensorFlow's rule).
    """
    num_buckets = NUM_BUCKETS
    distance_QxK = np.arange(query_length)[:, None] - np.arange(key_length)[None, :]
    first_bucket_QxK = np.zeros_like(distance_QxK)
    if bidirectional:
        num_buckets //= 2
        first_bucket_QxK = np.where(distance_QxK < 0, num_buckets, 0)
        distance_QxK = np.abs(distance_QxK)
    else:
        distance_QxK = np.maximum(distance_QxK, 0)
    num_exact = num_buckets // 2
    # float32 with epsilon, as T5X: at the bucket borders float64 would round otherwise.
    log_ratio_QxK = np.log(
        distance_QxK.astype(np.float32) / num_exact + np.finfo(np.float32).eps
    ) / np.log(MAX_DISTANCE / num_exact)
    log_bucket_QxK = num_exact + (log_ratio_QxK * (num_buckets - num_exact)).astype(np.int32)
    log_bucket_QxK = np.minimum(log_bucket_QxK, num_buckets - 1)
    bucket_QxK = np.where(distance_QxK < num_exact, distance_QxK, log_bucket_QxK)
    return (first_bucket_QxK + bucket_QxK).astype(np.int32)


class RelativePositionBiases(nn.Module):
    """A learned bias per head and distance bucket, added to the attention logits."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, query_length: int, key_length: int, bidirectional: bool
    ) -> Float[jax.Array, "1 H Q K"]:
        """Returns the biases in `dtype`."""
        table_HxR = param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.num_heads, NUM_BUCKETS),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )
        buckets_QxK = relative_position_buckets(
            query_length, key_length, bidirectional=bidirectional
        )
        return jnp.take(table_HxR.astype(self.dtype), buckets_QxK, axis=1)[None]


class Attention(nn.Module):
    """Multi-head attention with T5X's cache for decoding.

    With `decode=True` (self-attention) the first call, in which the collection `cache`
    has no `cached_key` yet, makes `cached_key` and `cached_value` (B, H, D, L) of zeros
    and `cache_index` (int32 scalar); every later call takes one position, writes it
    there and attends to all positions so far.

    With `keep_key_value=True` (cross-attention while decoding) the keys and values of
    `inputs_kv` are kept in the collection `cross_cache` when that is mutable, and
    taken from there when it is present. T5X's own decoding has no such collection and
    projects the encoder output at every step.

    `kernel` (one of `attention.KERNELS`) and `absorb` (of cross-attention, see
    `attention.absorbed_cross_attention`) choose the form of a pass without dropout.
    """

    num_heads: int
    head_dim: int
    dtype: Any = jnp.float32
    output_dtype: Any = None
    dropout_rate: float = 0.0
    float32_logits: bool = False
    kernel: str = "plain"
    absorb: bool = False

    @nn.compact
    def __call__(
        self,
        inputs_q: Float[jax.Array, "B Q E"],
        inputs_kv: Float[jax.Array, "B K E"],
        mask: Bool[jax.Array, "..."] | None = None,
        bias: Float[jax.Array, "1 H L L2"] | None = None,
        *,
        decode: bool = False,
        keep_key_value: bool = False,
        deterministic: bool = False,
    ) -> Float[jax.Array, "B Q E"]:
        """Returns the projected attended values.

        Args:
            mask: broadcastable to (B, 1, Q, K), True where a query may look.
            bias: (1, H, Q, K); with `decode` over the whole cache, (1, H, L, L).

        Raises:
            ValueError: `decode` with more than one position a step, or with a bias of
                another length than the cache's.
        """

        # Adafactor is indifferent to the scale of the initial values; Adam is not.
        def query_init(*args: Any) -> jax.Array:
            return attention_kernel_init(*args) / math.sqrt(self.head_dim)

        query = self._project("query", inputs_q, query_init)
        drops = not deterministic and self.dropout_rate > 0.0
        if not (drops or keep_key_value) and self._absorbs(inputs_q, inputs_kv):
            attended_BxQxHxD = attention.absorbed_cross_attention(
                query,
                inputs_kv,
                self._kernel("key", inputs_kv),
                self._kernel("value", inputs_kv),
                mask,
                blocked=self.kernel == "blocked",
            )
        elif decode and self.has_variable("cache", "cached_key"):
            key, value = self._project("key", inputs_kv), self._project("value", inputs_kv)
            attended_BxQxHxD = attention.step_attention(
                query, *self._decode_step(key, value, mask, bias)
            )
        elif keep_key_value and self._has_kept():
            attended_BxQxHxD = attention.step_attention(
                query,
                self.get_variable("cross_cache", "key"),
                self.get_variable("cross_cache", "value"),
                bias,
                mask,
            )
        else:
            key, value = self._project("key", inputs_kv), self._project("value", inputs_kv)
            if decode:
                self._cache_variables(key)
            if keep_key_value and self.is_mutable_collection("cross_cache"):
                self.put_variable("cross_cache", "key", _length_last(key))
                self.put_variable("cross_cache", "value", _length_last(value))
            if self.kernel == "blocked" and not drops and inputs_q.shape[1] > 1:
                attended_BxQxHxD = attention.blocked_attention(query, key, value, bias, mask)
            else:
                attended_BxQxHxD = attention.dot_product_attention(
                    query,
                    key,
                    value,
                    bias,
                    mask,
                    dropout_rng=self.make_rng("dropout") if drops else None,
                    dropout_rate=self.dropout_rate,
                    float32_logits=self.float32_logits,
                )
        return Dense(
            inputs_q.shape[-1],
            ("joined_kv", "embed"),
            self.dtype,
            self.output_dtype,
            attention_kernel_init,
            name="out",
        )(attended_BxQxHxD.reshape(*inputs_q.shape[:2], -1))

    def _absorbs(self, inputs_q: jax.Array, inputs_kv: jax.Array) -> bool:
        return self.absorb and attention.absorbing_is_cheaper(
            inputs_q.shape[1], inputs_kv.shape[1], inputs_kv.shape[2], self.num_heads, self.head_dim
        )

    def _dense(self, name: str, kernel_init: Initializer = attention_kernel_init) -> Dense:
        return Dense(
            self.num_heads * self.head_dim,
            ("embed", "joined_kv"),
            self.dtype,
            self.output_dtype,
            kernel_init,
            name=name,
        )

    def _kernel(self, name: str, inputs: jax.Array) -> jax.Array:
        kernel = self._dense(name)(inputs, return_kernel=True)
        return kernel.reshape(inputs.shape[-1], self.num_heads, self.head_dim)

    def _project(
        self, name: str, inputs: jax.Array, kernel_init: Initializer = attention_kernel_init
    ) -> jax.Array:
        joined = self._dense(name, kernel_init)(inputs)
        heads = joined.reshape(*inputs.shape[:2], self.num_heads, self.head_dim)
        return with_sharding_constraint(heads, ("batch", "length", "heads", "kv"))

    def _has_kept(self) -> bool:
        writes = self.is_mutable_collection("cross_cache")
        return not writes and self.has_variable("cross_cache", "key")

    def _cache_variables(self, key_BxLxHxD: jax.Array) -> tuple[nn.Variable, ...]:
        batch, length, num_heads, head_dim = key_BxLxHxD.shape
        # Length last, as T5X: its beam search and its checkpoints of caches expect this.
        shape = (batch, num_heads, head_dim, length)
        cached_key = self.variable("cache", "cached_key", jnp.zeros, shape, key_BxLxHxD.dtype)
        cached_value = self.variable("cache", "cached_value", jnp.zeros, shape, key_BxLxHxD.dtype)
        index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        return cached_key, cached_value, index

    def _decode_step(
        self,
        key_Bx1xHxD: jax.Array,
        value_Bx1xHxD: jax.Array,
        mask: jax.Array | None,
        bias_1xHxLxL: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]:
        if key_Bx1xHxD.shape[1] != 1:
            raise ValueError(
                f"Decoding takes one position a step; got {key_Bx1xHxD.shape[1]} positions "
                "together with a filled cache."
            )
        cached_key, cached_value, cache_index = self._cache_variables(key_Bx1xHxD)
        length = cached_key.value.shape[-1]
        index = cache_index.value
        for cached, new_Bx1xHxD in ((cached_key, key_Bx1xHxD), (cached_value, value_Bx1xHxD)):
            new_BxHxDx1 = _length_last(new_Bx1xHxD).astype(cached.value.dtype)
            cached.value = lax.dynamic_update_slice_in_dim(cached.value, new_BxHxDx1, index, -1)
        cache_index.value = index + 1
        seen_1x1x1xL = (jnp.arange(length) <= index)[None, None, None]
        mask = seen_1x1x1xL if mask is None else jnp.logical_and(mask, seen_1x1x1xL)
        if bias_1xHxLxL is not None:
            if bias_1xHxLxL.shape[-1] != length:
                raise ValueError(
                    f"The cache holds {length} positions, the position bias "
                    f"{bias_1xHxLxL.shape[-1]}: pass max_decode_length={length}."
                )
            bias_1xHxLxL = lax.dynamic_slice_in_dim(bias_1xHxLxL, index, 1, axis=2)
        return cached_key.value, cached_value.value, bias_1xHxLxL, mask


def _length_last(x_BxLxHxD: jax.Array) -> jax.Array:
    return jnp.moveaxis(x_BxLxHxD, 1, -1)
