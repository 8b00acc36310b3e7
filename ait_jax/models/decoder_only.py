"""One layer of a decoder-only model: grouped causal self-attention and a gated feed-forward block.

Names as in T5X's decoder-only network (t5x/examples/decoder_only/network.py); what is computed is
transformers' models/llama/modeling_llama.py.

Shape suffixes as in `grouped_attention`; E emb_dim, T slots of a cache.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ait_jax.models import layers, rotary
from ait_jax.models.blocks import feature_dropout
from ait_jax.models.group_windows import Windows, attend_windows
from ait_jax.models.grouped_attention import KeyValue, Part, attend

if TYPE_CHECKING:
    from ait_jax.models.llama import LlamaConfig


class GroupedAttention(nn.Module):
    """Self-attention in which several query heads share a key head, with rotary positions.

    With `decode=True` the first call, in which the collection `cache` has no `cached_key` yet, makes
    `cached_key` (B, K, D, T), `cached_value` (B, K, T, D) of zeros and `cache_index` (int32 scalar)
    for T positions; every later call takes one position, writes it there and attends to all so far.
    """

    config: "LlamaConfig"

    @nn.compact
    def __call__(self, x_BxQxE, rotation, past, masks, decode: bool):
        """Returns (B, Q, E), and the new keys and values as a KeyValue.

        Args:
            rotation: cosines and sines of the positions (`rotary.rotation`).
            past: tuple of KeyValues that come before, rotated already.
            masks: for each of them, which positions are seen, bool (P, 1, L); and what the new
                positions see of each other, bool (1 or B, Q, Q), None for all that came before;
                or, with no past, what blocks of them see, `Windows`.
        """
        config = self.config
        query = self._project("query", x_BxQxE, config.num_heads)
        query = rotary.rotate(query, *rotation, scale=config.head_dim**-0.5)
        key = rotary.rotate(self._project("key", x_BxQxE, config.num_kv_heads), *rotation)
        value = self._project("value", x_BxQxE, config.num_kv_heads)
        new = KeyValue(jnp.transpose(key, (0, 2, 3, 1)), jnp.transpose(value, (0, 2, 1, 3)))

        blocks_dtype = config.dtype if config.attention_kernel == "blocked" else None
        if isinstance(masks[-1], Windows):
            attended_BxQxHxD = attend_windows(
                query, _for_mesh(new, config), masks[-1], dtype=blocks_dtype
            )
        else:
            parts = [*map(Part, past, masks[:-1]), self._own(new, masks[-1], decode)]
            attended_BxQxHxD = attend(
                query,
                [Part(_for_mesh(part.key_value, config), part.mask) for part in parts],
                blocks_dtype=blocks_dtype,
            )
        out = layers.Dense(
            config.emb_dim,
            ("joined_kv", "embed"),
            config.dtype,
            config.activation_dtype,
            layers.attention_kernel_init,
            config.attention_output_bias,
            name="out",
        )(attended_BxQxHxD.reshape(*x_BxQxE.shape[:2], -1))
        return out, new

    def _own(self, new: KeyValue, mask: jax.Array | None, decode: bool) -> Part:
        """Returns what the new positions see of themselves, or of all that were decoded so far."""
        if decode and self.has_variable("cache", "cached_key"):
            return self._step(new)
        if decode:
            self._cache_variables(new)
        return Part(new, _causal(new.key_PxKxDxL.shape[-1]) if mask is None else mask)

    def _project(self, name: str, x_BxQxE: jax.Array, num_heads: int) -> jax.Array:
        config = self.config
        joined = layers.Dense(
            num_heads * config.head_dim,
            ("embed", "joined_kv"),
            config.dtype,
            config.activation_dtype,
            layers.attention_kernel_init,
            config.attention_bias,
            name=name,
        )(x_BxQxE)
        heads = joined.reshape(*x_BxQxE.shape[:2], num_heads, config.head_dim)
        # Heads that the mesh does not divide are whole on every device.
        axis = None if num_heads % _model_shards() else "heads"
        return layers.with_sharding_constraint(heads, ("batch", "length", axis, "kv"))

    def _cache_variables(self, new: KeyValue) -> tuple[nn.Variable, ...]:
        return (
            self.variable("cache", "cached_key", jnp.zeros_like, new.key_PxKxDxL),
            self.variable("cache", "cached_value", jnp.zeros_like, new.value_PxKxLxD),
            self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32)),
        )

    def _step(self, new: KeyValue) -> Part:
        if new.key_PxKxDxL.shape[-1] != 1:
            raise ValueError(
                f"Decoding takes one position a step; got {new.key_PxKxDxL.shape[-1]} positions "
                "together with a filled cache."
            )
        cached_key, cached_value, cache_index = self._cache_variables(new)
        index = cache_index.value
        cached_key.value = lax.dynamic_update_slice_in_dim(
            cached_key.value, new.key_PxKxDxL, index, axis=3
        )
        cached_value.value = lax.dynamic_update_slice_in_dim(
            cached_value.value, new.value_PxKxLxD, index, axis=2
        )
        cache_index.value = index + 1
        seen_1x1xT = (jnp.arange(cached_key.value.shape[-1]) <= index)[None, None]
        return Part(KeyValue(cached_key.value, cached_value.value), seen_1x1xT)


def _causal(length: int) -> jax.Array:
    positions = jnp.arange(length)
    return (positions[:, None] >= positions)[None]


def _model_shards() -> int:
    return jax.sharding.get_abstract_mesh().shape.get("model", 1)


def _for_mesh(key_value: KeyValue, config: "LlamaConfig") -> KeyValue:
    """Gives every query head a key head of its own where only the former divide the mesh.

    Grouped queries of such a mesh would have to be gathered on every device.
    """
    shards = _model_shards()
    if config.num_kv_heads % shards == 0 or config.num_heads % shards:
        return key_value
    group = config.num_heads // config.num_kv_heads
    return KeyValue(*(jnp.repeat(x, group, axis=1) for x in key_value))


class DecoderOnlyLayer(nn.Module):
    """Self-attention and feed-forward block, each with a norm before and a residual around."""

    config: "LlamaConfig"

    @nn.compact
    def __call__(
        self,
        inputs_BxQxE: jax.Array,
        past: tuple[KeyValue, ...],
        masks: tuple[jax.Array | None, ...],
        rotation: tuple[jax.Array, jax.Array],
        deterministic: bool,
        decode: bool,
        keep: bool,
    ) -> tuple[jax.Array, Any]:
        """Returns (B, Q, E), and the layer's new KeyValue if `keep`: a scan's carry and output."""
        config = self.config
        norm_dtype, epsilon = config.dtype, config.norm_epsilon
        x = layers.LayerNorm(norm_dtype, epsilon, name="pre_self_attention_layer_norm")(
            inputs_BxQxE
        )
        x, new = GroupedAttention(config, name="self_attention")(x, rotation, past, masks, decode)
        x = inputs_BxQxE + feature_dropout(config)(x, deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))

        y = layers.LayerNorm(norm_dtype, epsilon, name="pre_mlp_layer_norm")(x)
        y = layers.MlpBlock(
            intermediate_dim=config.mlp_dim,
            activations=("silu", "linear"),
            dropout_rate=config.dropout_rate,
            dtype=config.dtype,
            output_dtype=config.activation_dtype,
            name="mlp",
        )(y, deterministic=deterministic)
        y = x + feature_dropout(config)(y, deterministic=deterministic)
        y = layers.with_sharding_constraint(y, ("batch", "length", "embed"))
        return y, new if keep else None
