"""T5's attention: relative position biases and the module with T5X's cache for decoding.

Names and initial values as in `layers`.

Shape suffixes: B batch, L length, Q query length, K key length, E emb_dim, H heads, D head_dim.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Float, Int

from ait_jax.models import attention, fused_attention, layers, recomputed_attention
from ait_jax.models.attention import Mask, Seen, by_pairs
from ait_jax.models.interface import ModelConfig

NUM_BUCKETS, MAX_DISTANCE = 32, 128


def relative_position_buckets(length: int, *, bidirectional: bool) -> Int[np.ndarray, " D"]:
    """Returns the bucket of every distance of a key from its query, int32.

    The distances are 1 - L, ..., L - 1, so D = 2L - 1; keys before the query come first. Half of
    the buckets are for exact distances, the others grow logarithmically up to MAX_DISTANCE and hold
    all beyond it; with `bidirectional` the upper half of the numbers is for keys after the query
    (T5 paper, section 2.1; Mesh TensorFlow's rule).
    """
    num_buckets = NUM_BUCKETS
    distance_D = np.arange(length - 1, -length, -1)
    first_bucket_D = np.zeros_like(distance_D)
    if bidirectional:
        num_buckets //= 2
        first_bucket_D = np.where(distance_D < 0, num_buckets, 0)
        distance_D = np.abs(distance_D)
    else:
        distance_D = np.maximum(distance_D, 0)
    num_exact = num_buckets // 2
    # float32 with epsilon, as T5X: at the bucket borders float64 would round otherwise.
    log_ratio_D = np.log(distance_D.astype(np.float32) / num_exact + np.finfo(np.float32).eps)
    log_ratio_D /= np.log(MAX_DISTANCE / num_exact)
    log_bucket_D = num_exact + (log_ratio_D * (num_buckets - num_exact)).astype(np.int32)
    log_bucket_D = np.minimum(log_bucket_D, num_buckets - 1)
    bucket_D = np.where(distance_D < num_exact, distance_D, log_bucket_D)
    return (first_bucket_D + bucket_D).astype(np.int32)


class RelativePositionBiases(nn.Module):
    """A learned bias per head and distance bucket, added to the attention logits."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, length: int, bidirectional: bool, by_distance: bool = False
    ) -> Float[jax.Array, "1 H L L"] | Float[jax.Array, "H D"]:
        """Returns the biases of all pairs in `config.activation_dtype`, or by distance, float32."""
        table_HxR = layers.param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.config.num_heads, NUM_BUCKETS),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )
        buckets_D = relative_position_buckets(length, bidirectional=bidirectional)
        if by_distance:
            return jnp.take(table_HxR, buckets_D, axis=1)
        table_HxR = table_HxR.astype(self.config.activation_dtype)
        return by_pairs(jnp.take(table_HxR, buckets_D, axis=1))[None]


class Attention(nn.Module):
    """Multi-head attention with T5X's cache for decoding.

    With `decode=True` (self-attention) the first call, in which the collection `cache`
    has no `cached_key` yet, makes `cached_key` and `cached_value` (B, H, D, L) of zeros
    and `cache_index` (int32 scalar); every later call takes one position, writes it
    there and attends to all positions so far. The cache is a ring: position L overwrites
    position 0, for rows that began later (`prompt_slots`).

    With `keep_key_value=True` (cross-attention while decoding) the keys and values of
    `inputs_kv` are kept in the collection `cross_cache` when that is mutable, and
    taken from there when it is present. T5X's own decoding has no such collection and
    projects the encoder output at every step.

    `config.kernel` chooses the form, and `absorb` that of cross-attention in a pass without dropout
    (`attention.absorbed_cross_attention`).
    """

    config: Any  # a `t5.T5Config`
    absorb: bool = False

    @nn.compact
    def __call__(
        self,
        inputs_q: Float[jax.Array, "B Q E"],
        inputs_kv: Float[jax.Array, "B K E"],
        mask: Mask | None = None,
        bias: Float[jax.Array, "1 H L L2"] | Float[jax.Array, "H C"] | None = None,
        *,
        decode: bool = False,
        keep_key_value: bool = False,
        deterministic: bool = False,
    ) -> Float[jax.Array, "B Q E"]:
        """Returns the projected attended values.

        Args:
            mask: broadcastable to (B, 1, Q, K), True where a query may look; with `decode` places
                of the cache, the one that is written included. A `Seen` for `KERNELS_OF_SEEN`.
            bias: (1, H, Q, K); with `decode` over the whole cache, (1, H, L, L); with a `Seen` by
                distance.

        Raises:
            ValueError: `decode` with more than one position a step, or with a bias of
                another length than the cache's.
        """
        config = self.config

        # Adafactor is indifferent to the scale of the initial values; Adam is not.
        def query_init(*args: Any) -> jax.Array:
            return layers.attention_kernel_init(*args) / math.sqrt(config.head_dim)

        project = partial(layers.project_heads, config, num_heads=config.num_heads)
        query = project("query", x_BxLxE=inputs_q, kernel_init=query_init)
        drops = not deterministic and config.dropout_rate > 0.0
        if not (drops or keep_key_value) and self._absorbs(inputs_q, inputs_kv):
            key, value = (self._kernel(name, inputs_kv) for name in ("key", "value"))
            blocked = config.kernel == "blocked"
            attended_BxQxHxD = attention.absorbed_cross_attention(
                query, inputs_kv, key, value, _pairs(mask), blocked=blocked
            )
        elif keep_key_value and self._has_kept():
            key, value = (self.get_variable("cross_cache", name) for name in ("key", "value"))
            attended_BxQxHxD = attention.step_attention(query, key, value, bias, _pairs(mask))
        else:
            key, value = (project(name, x_BxLxE=inputs_kv) for name in ("key", "value"))
            if decode and self.has_variable("cache", "cached_key"):
                past = self._decode_step(key, value, _pairs(mask), bias)
                attended_BxQxHxD = attention.step_attention(query, *past)
            else:
                if decode:
                    self._cache_variables(key)
                if keep_key_value and self.is_mutable_collection("cross_cache"):
                    self.put_variable("cross_cache", "key", _length_last(key))
                    self.put_variable("cross_cache", "value", _length_last(value))
                if drops:
                    rate = config.dropout_rate
                    value = attention.dropped_keys(value, self.make_rng("dropout"), rate)
                attended_BxQxHxD = self._attend(query, key, value, bias, mask)
        return layers.attention_output(config, attended_BxQxHxD)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None,
        mask: Mask | None,
    ) -> jax.Array:
        config = self.config
        if isinstance(mask, Seen):
            if config.kernel == "fused" and fused_attention.suits(query, key):
                return fused_attention.fused_attention(query, key, value, bias, mask)
            if config.kernel == "recomputed" and recomputed_attention.suits(query, key):
                return recomputed_attention.recomputed_attention(query, key, value, bias, mask)
            bias = None if bias is None else by_pairs(bias)[None]
        mask = _pairs(mask)
        if config.kernel == "blocked" and query.shape[1] > 1:
            return attention.blocked_attention(query, key, value, bias, mask)
        return attention.dot_product_attention(
            query, key, value, bias, mask, float32_logits=config.float32_attention_logits
        )

    def _absorbs(self, inputs_q: jax.Array, inputs_kv: jax.Array) -> bool:
        sizes = (self.config.num_heads, self.config.head_dim)
        lengths = (inputs_q.shape[1], inputs_kv.shape[1])
        return self.absorb and attention.absorbing_is_cheaper(*lengths, inputs_kv.shape[2], *sizes)

    def _kernel(self, name: str, inputs: jax.Array) -> jax.Array:
        num_heads = self.config.num_heads
        projection = layers.heads_projection(self.config, name, num_heads)
        return projection(inputs, return_kernel=True).reshape(inputs.shape[-1], num_heads, -1)

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
        layers.check_one_position(key_Bx1xHxD.shape[1])
        cached_key, cached_value, cache_index = self._cache_variables(key_Bx1xHxD)
        length = cached_key.value.shape[-1]
        index = cache_index.value
        place = index % length
        for cached, new_Bx1xHxD in ((cached_key, key_Bx1xHxD), (cached_value, value_Bx1xHxD)):
            new_BxHxDx1 = _length_last(new_Bx1xHxD).astype(cached.value.dtype)
            cached.value = lax.dynamic_update_slice_in_dim(cached.value, new_BxHxDx1, place, -1)
        cache_index.value = index + 1
        seen_1x1x1xL = (jnp.arange(length) <= index)[None, None, None]
        mask = seen_1x1x1xL if mask is None else jnp.logical_and(mask, seen_1x1x1xL)
        if bias_1xHxLxL is not None:
            if bias_1xHxLxL.shape[-1] != length:
                raise ValueError(
                    f"The cache holds {length} positions, the position bias "
                    f"{bias_1xHxLxL.shape[-1]}: pass max_decode_length={length}."
                )
            # The last position's biases, of all distances, so that distance 0 is at `place`.
            bias_1xHxLxL = jnp.roll(bias_1xHxLxL[:, :, -1:], place + 1, axis=-1)
        return cached_key.value, cached_value.value, bias_1xHxLxL, mask


def _pairs(mask: Mask | None) -> jax.Array | None:
    return mask.mask() if isinstance(mask, Seen) else mask


def _length_last(x_BxLxHxD: jax.Array) -> jax.Array:
    return jnp.moveaxis(x_BxLxHxD, 1, -1)
