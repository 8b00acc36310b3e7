"""The parts of T5: projections, embedding, layer norm, relative positions, attention.

Parameter names, shapes, initial values and logical axis names follow T5X
(t5x/examples/t5/layers.py), so that its checkpoints and its partitioning rules
apply here unchanged. Sharding annotations name logical axes and do nothing
until axis rules are set (flax.linen.partitioning.axis_rules).

Shape suffixes: B batch, L length, Q query length, K key length, E emb_dim,
H heads, D head_dim, M mlp_dim, V vocab_size.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jax import lax

param_with_axes = nn_partitioning.param_with_axes
with_sharding_constraint = nn_partitioning.with_sharding_constraint

# What a masked attention logit becomes: finite, so that a row with nothing to
# attend to (a padding query) gives a uniform distribution instead of NaN.
MASKED_LOGIT = -1e10

attention_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
dense_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def activation_function(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation that T5X means by `name`: "linear" or a function of flax.linen."""
    return (lambda x: x) if name == "linear" else getattr(nn, name)


class Dense(nn.Module):
    """A linear map of the last axis without bias; the kernel is two-dimensional.

    Attributes:
        features: size of the output axis.
        kernel_axes: logical names of the kernel's two axes.
        dtype: the dtype of the multiplication and of the result; the kernel is float32.
    """

    features: int
    kernel_axes: tuple[str, str]
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = dense_kernel_init

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        kernel = param_with_axes(
            "kernel",
            self.kernel_init,
            (inputs.shape[-1], self.features),
            jnp.float32,
            axes=self.kernel_axes,
        )
        return jnp.dot(inputs.astype(self.dtype), kernel.astype(self.dtype))


class Embed(nn.Module):
    """The token table (V, E), shared by encoder, decoder and, in T5 1.0, the output layer."""

    num_embeddings: int
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.embedding = param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.num_embeddings, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        """Returns the rows of the table, (B, L, E) in `dtype`."""
        # Gathering before the cast spares a cast of the whole table at every step.
        embedded_BxLxE = jnp.take(self.embedding, tokens_BxL, axis=0, mode="clip")
        embedded_BxLxE = embedded_BxLxE.astype(self.dtype)
        return with_sharding_constraint(embedded_BxLxE, ("batch", "length", "embed"))

    def attend(self, x_BxLxE: jax.Array) -> jax.Array:
        """Returns x times the transposed table, float32 (B, L, V): the tied output layer."""
        return jnp.dot(x_BxLxE.astype(jnp.float32), self.embedding.T)


class LayerNorm(nn.Module):
    """Root-mean-square norm with a scale: T5 subtracts no mean and adds no bias."""

    dtype: Any = jnp.float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = param_with_axes(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
        return (x * lax.rsqrt(mean_square + self.epsilon) * scale).astype(self.dtype)


def relative_position_buckets(
    query_length: int,
    key_length: int,
    *,
    bidirectional: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> np.ndarray:
    """Returns the bucket of every (query, key) pair, int32 (Q, K).

    Half of the buckets are for exact distances, the others grow logarithmically up to
    `max_distance` and hold all beyond it; with `bidirectional` the upper half of the
    numbers is for keys after the query (T5 paper, section 2.1; Mesh TensorFlow's rule).
    """
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
    ) / np.log(max_distance / num_exact)
    log_bucket_QxK = num_exact + (log_ratio_QxK * (num_buckets - num_exact)).astype(np.int32)
    log_bucket_QxK = np.minimum(log_bucket_QxK, num_buckets - 1)
    bucket_QxK = np.where(distance_QxK < num_exact, distance_QxK, log_bucket_QxK)
    return (first_bucket_QxK + bucket_QxK).astype(np.int32)


class RelativePositionBiases(nn.Module):
    """A learned bias per head and distance bucket, added to the attention logits."""

    num_heads: int
    dtype: Any = jnp.float32
    num_buckets: int = 32
    max_distance: int = 128

    @nn.compact
    def __call__(self, query_length: int, key_length: int, bidirectional: bool) -> jax.Array:
        """Returns the biases (1, H, Q, K) in `dtype`."""
        table_HxR = param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.num_heads, self.num_buckets),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )
        buckets_QxK = relative_position_buckets(
            query_length,
            key_length,
            bidirectional=bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        return jnp.take(table_HxR.astype(self.dtype), buckets_QxK, axis=1)[None]


def dot_product_attention(
    query_BxQxHxD: jax.Array,
    key_BxKxHxD: jax.Array,
    value_BxKxHxD: jax.Array,
    bias_1xHxQxK: jax.Array | None,
    mask_Bx1xQxK: jax.Array | None,
    *,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float = 0.0,
    float32_logits: bool = False,
) -> jax.Array:
    """Returns the attended values (B, Q, H, D) in the dtype of `value`.

    The softmax is in float32; `float32_logits` also keeps the products of bfloat16
    queries and keys in float32. There is no 1/sqrt(D): T5 has it in the query
    kernel's initial values. Dropout falls on whole key positions (the same for every
    query), as in T5X.
    """
    logits_BxHxQxK = jnp.einsum(
        "bqhd,bkhd->bhqk",
        query_BxQxHxD,
        key_BxKxHxD,
        preferred_element_type=jnp.float32 if float32_logits else None,
    ).astype(jnp.float32)
    if bias_1xHxQxK is not None:
        logits_BxHxQxK = logits_BxHxQxK + bias_1xHxQxK.astype(jnp.float32)
    if mask_Bx1xQxK is not None:
        logits_BxHxQxK = jnp.where(mask_Bx1xQxK, logits_BxHxQxK, MASKED_LOGIT)
    weights_BxHxQxK = jax.nn.softmax(logits_BxHxQxK).astype(value_BxKxHxD.dtype)
    if dropout_rng is not None:
        keep_prob = 1.0 - dropout_rate
        batch, num_heads, _, key_length = weights_BxHxQxK.shape
        keep_BxHx1xK = jax.random.bernoulli(
            dropout_rng, keep_prob, (batch, num_heads, 1, key_length)
        )
        scale_BxHx1xK = keep_BxHx1xK.astype(weights_BxHxQxK.dtype) / jnp.asarray(
            keep_prob, weights_BxHxQxK.dtype
        )
        weights_BxHxQxK = weights_BxHxQxK * scale_BxHx1xK
    return jnp.einsum("bhqk,bkhd->bqhd", weights_BxHxQxK, value_BxKxHxD)


class Attention(nn.Module):
    """Multi-head attention with T5X's cache for decoding.

    With `decode=True` (self-attention) the first call, in which the collection `cache`
    has no `cached_key` yet, makes `cached_key` and `cached_value` (B, H, D, L) of zeros
    and `cache_index` (int32 scalar); every later call takes one position, writes it
    there and attends to all positions so far.

    With `keep_key_value=True` (cross-attention while decoding) the keys and values of
    `inputs_kv` are kept in the collection `cross_cache` when that is mutable, and
    taken from there when it is present. T5X's own decoding knows neither and projects
    the encoder output at every step; it is served too, since the collection is then absent.
    """

    num_heads: int
    head_dim: int
    dtype: Any = jnp.float32
    dropout_rate: float = 0.0
    float32_logits: bool = False

    @nn.compact
    def __call__(
        self,
        inputs_q: jax.Array,
        inputs_kv: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        *,
        decode: bool = False,
        keep_key_value: bool = False,
        deterministic: bool = False,
    ) -> jax.Array:
        """Returns (B, Q, E).

        Args:
            inputs_q: (B, Q, E), inputs_kv: (B, K, E).
            mask: bool, broadcastable to (B, 1, Q, K), True where a query may look.
            bias: (1, H, Q, K); with `decode` over the whole cache, (1, H, L, L).

        Raises:
            ValueError: `decode` with more than one position a step, or with a bias of
                another length than the cache's.
        """
        # Adafactor does not notice; under Adam the scale of the initial values matters.
        query_init = _divided(attention_kernel_init, math.sqrt(self.head_dim))
        query = self._project("query", inputs_q, query_init)
        key, value = self._key_and_value(inputs_kv, keep_key_value)
        if decode and self.has_variable("cache", "cached_key"):
            key, value, mask, bias = self._decode_step(key, value, mask, bias)
        elif decode:
            self._cache_variables(key)
        dropout_rng = None
        if not deterministic and self.dropout_rate > 0.0:
            dropout_rng = self.make_rng("dropout")
        attended_BxQxHxD = dot_product_attention(
            query,
            key,
            value,
            bias,
            mask,
            dropout_rng=dropout_rng,
            dropout_rate=self.dropout_rate,
            float32_logits=self.float32_logits,
        )
        return Dense(
            inputs_q.shape[-1],
            ("joined_kv", "embed"),
            self.dtype,
            attention_kernel_init,
            name="out",
        )(attended_BxQxHxD.reshape(*inputs_q.shape[:2], -1))

    def _project(
        self, name: str, inputs: jax.Array, kernel_init: Callable[..., jax.Array]
    ) -> jax.Array:
        joined = Dense(
            self.num_heads * self.head_dim,
            ("embed", "joined_kv"),
            self.dtype,
            kernel_init,
            name=name,
        )(inputs)
        heads = joined.reshape(*inputs.shape[:2], self.num_heads, self.head_dim)
        return with_sharding_constraint(heads, ("batch", "length", "heads", "kv"))

    def _key_and_value(self, inputs: jax.Array, keep: bool) -> tuple[jax.Array, jax.Array]:
        to_write = keep and self.is_mutable_collection("cross_cache")
        if keep and not to_write and self.has_variable("cross_cache", "key"):
            return self.get_variable("cross_cache", "key"), self.get_variable(
                "cross_cache", "value"
            )
        key = self._project("key", inputs, attention_kernel_init)
        value = self._project("value", inputs, attention_kernel_init)
        if to_write:
            self.put_variable("cross_cache", "key", key)
            self.put_variable("cross_cache", "value", value)
        return key, value

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
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
        if key_Bx1xHxD.shape[1] != 1:
            raise ValueError(
                f"Decoding takes one position a step; got {key_Bx1xHxD.shape[1]} positions "
                "together with a filled cache."
            )
        cached_key, cached_value, cache_index = self._cache_variables(key_Bx1xHxD)
        length = cached_key.value.shape[-1]
        index = cache_index.value
        for cached, new_Bx1xHxD in ((cached_key, key_Bx1xHxD), (cached_value, value_Bx1xHxD)):
            new_BxHxDx1 = jnp.moveaxis(new_Bx1xHxD, 1, -1).astype(cached.value.dtype)
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
        key_BxLxHxD = jnp.moveaxis(cached_key.value, -1, 1)
        value_BxLxHxD = jnp.moveaxis(cached_value.value, -1, 1)
        return key_BxLxHxD, value_BxLxHxD, mask, bias_1xHxLxL


def _divided(init: Callable[..., jax.Array], divisor: float) -> Callable[..., jax.Array]:
    return lambda *args: init(*args) / divisor


class MlpBlock(nn.Module):
    """The feed-forward block: one projection per activation, multiplied, then projected back.

    ("relu",) is T5 1.0 with kernels `wi` and `wo`; ("gelu", "linear") is T5 1.1's gated
    GELU with kernels `wi_0`, `wi_1` and `wo`.
    """

    intermediate_dim: int
    activations: Sequence[str]
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs_BxLxE: jax.Array, deterministic: bool = False) -> jax.Array:
        """Returns (B, L, E)."""
        hidden_BxLxM = None
        for index, activation in enumerate(self.activations):
            name = "wi" if len(self.activations) == 1 else f"wi_{index}"
            projected_BxLxM = Dense(
                self.intermediate_dim, ("embed", "mlp"), self.dtype, name=name
            )(inputs_BxLxE)
            branch_BxLxM = activation_function(activation)(projected_BxLxM)
            hidden_BxLxM = branch_BxLxM if index == 0 else hidden_BxLxM * branch_BxLxM
        hidden_BxLxM = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
            hidden_BxLxM, deterministic=deterministic
        )
        hidden_BxLxM = with_sharding_constraint(hidden_BxLxM, ("batch", "length", "mlp"))
        return Dense(inputs_BxLxE.shape[-1], ("mlp", "embed"), self.dtype, name="wo")(hidden_BxLxM)
