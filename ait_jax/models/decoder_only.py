"""Grouped causal self-attention of a decoder-only model, and how its texts are put together.

Names as in T5X's decoder-only network (t5x/examples/decoder_only/network.py); what is computed is
transformers' models/llama/modeling_llama.py.

Shape suffixes as in `grouped_attention`; E emb_dim, T slots of a cache or target length.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Bool, Float, Int

from ait_jax.models import layers, rotary
from ait_jax.models.group_windows import Windows, attend_windows
from ait_jax.models.grouped_attention import KeyValue, Part, attend
from ait_jax.models.interface import Packing, Tokens
from ait_jax.models.likelihood import PAD_ID

# The keys and values of texts in all layers: {"length": int32 (P,), how many positions are real,
# the first ones or those in "real": bool (P, L), which may be given too, and then "positions" says
# which ones they are, int32 (P, L), for models with local layers;
# "layers": KeyValue, stacked} or, unrolled, "layers_0", "layers_1", ... of a KeyValue each.
KeyValues: TypeAlias = Mapping[str, Any]


class GroupedAttention(nn.Module):
    """Self-attention in which several query heads share a key head, with rotary positions.

    With `decode=True` the first call, in which the collection `cache` has no `cached_key` yet,
    makes `cached_key` (B, K, D, T) and `cached_value` (B, K, T, D) of zeros and `cache_index`
    (int32 scalar) for T positions; every later call takes one position, writes it there and attends
    to all so far.
    """

    config: Any  # a `llama.LlamaConfig`

    @nn.compact
    def __call__(
        self,
        x_BxQxE: Float[jax.Array, "B Q E"],
        rotation: tuple[jax.Array, jax.Array],
        past: tuple[KeyValue, ...],
        masks: tuple[Any, ...],
        decode: bool,
        window: jax.Array | np.ndarray | None = None,
    ) -> tuple[Float[jax.Array, "B Q E"], KeyValue]:
        """Returns the projected attended values, and the new keys and values.

        Args:
            rotation: cosines and sines of the positions (`rotary.rotation`).
            past: what comes before, rotated already.
            masks: for each of `past`, which positions are seen, bool (P, 1, L); and what the new
                positions see of each other, bool (1 or B, Q, Q), None for all that came before;
                or, with no past, what blocks of them see, `Windows`.
            window: how many positions are seen while decoding, its own included; None is all.
        """
        config = self.config
        project = partial(
            layers.project_heads, config, x_BxLxE=x_BxQxE, use_bias=config.attention_bias
        )
        query = self._normed("query", project("query", config.num_heads))
        query = rotary.rotate(query, *rotation, scale=config.query_scale or config.head_dim**-0.5)
        key = self._normed("key", project("key", config.num_kv_heads))
        key = rotary.rotate(key, *rotation)
        value = project("value", config.num_kv_heads)
        new = KeyValue(jnp.transpose(key, (0, 2, 3, 1)), jnp.transpose(value, (0, 2, 1, 3)))

        blocks_dtype = config.dtype if config.kernel == "blocked" else None
        *past_masks, own_mask = masks
        if isinstance(own_mask, Windows):
            own = self._for_mesh(new)
            attended_BxQxHxD = attend_windows(
                query, own, own_mask, dtype=blocks_dtype, softcap=config.attention_softcap
            )
        else:
            parts = [*map(Part, past, past_masks), self._own(new, own_mask, decode, window)]
            parts = [Part(self._for_mesh(key_value), mask) for key_value, mask in parts]
            attended_BxQxHxD = attend(
                query, parts, blocks_dtype=blocks_dtype, softcap=config.attention_softcap
            )
        return layers.attention_output(config, attended_BxQxHxD, config.attention_output_bias), new

    def _normed(self, name: str, x_BxQxHxD: jax.Array) -> jax.Array:
        """Returns queries or keys normed head by head, or all heads together (QK norm)."""
        config = self.config
        if config.qk_norm is None:
            return x_BxQxHxD
        norm = layers.LayerNorm(
            config.activation_dtype, config.norm_epsilon, "kv", name=f"{name}_norm"
        )
        if config.qk_norm == "head":
            return norm(x_BxQxHxD)
        joined = x_BxQxHxD.reshape(*x_BxQxHxD.shape[:2], -1)
        return norm(joined).reshape(x_BxQxHxD.shape)

    def _own(self, new: KeyValue, mask: jax.Array | None, decode: bool, window: Any) -> Part:
        """Returns what the new positions see of themselves, or of all that were decoded so far."""
        if decode and self.has_variable("cache", "cached_key"):
            return self._step(new, window)
        if decode:
            self._cache_variables(new)
        if mask is None:
            mask = causal(jnp.arange(new.key_PxKxDxL.shape[-1])[None])
        return Part(new, mask)

    def _cache_variables(self, new: KeyValue) -> tuple[nn.Variable, nn.Variable, nn.Variable]:
        return (
            self.variable("cache", "cached_key", jnp.zeros_like, new.key_PxKxDxL),
            self.variable("cache", "cached_value", jnp.zeros_like, new.value_PxKxLxD),
            self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32)),
        )

    def _step(self, new: KeyValue, window: Any) -> Part:
        layers.check_one_position(new.key_PxKxDxL.shape[-1])
        cached_key, cached_value, cache_index = self._cache_variables(new)
        index = cache_index.value
        for cached, part, axis in zip((cached_key, cached_value), new, (3, 2), strict=True):
            cached.value = lax.dynamic_update_slice_in_dim(cached.value, part, index, axis)
        cache_index.value = index + 1
        places_T = jnp.arange(cached_key.value.shape[-1])
        seen_T = places_T <= index
        if window is not None:
            seen_T &= index - places_T < window
        return Part(KeyValue(cached_key.value, cached_value.value), seen_T[None, None])

    def _for_mesh(self, key_value: KeyValue) -> KeyValue:
        """Gives every query head a key head of its own where only the former divide the mesh.

        Grouped queries of such a mesh would have to be gathered on every device.
        """
        shards, config = layers.model_shards(), self.config
        if config.num_kv_heads % shards == 0 or config.num_heads % shards:
            return key_value
        group = config.num_heads // config.num_kv_heads
        return KeyValue(*(jnp.repeat(x, group, axis=1) for x in key_value))


# --- keys and values of texts ---


def real_positions(key_values: KeyValues) -> Bool[jax.Array, "P 1 L"]:
    """Returns which positions of texts are real."""
    if "real" in key_values:
        return key_values["real"][:, None]
    layer_keys = {k: v for k, v in key_values.items() if k != "length"}
    length = jax.tree.leaves(layer_keys)[0].shape[-1]
    return (jnp.arange(length) < key_values["length"][:, None])[:, None]


def key_positions(key_values: KeyValues) -> Int[jax.Array, "P L"]:
    """Returns which positions of their part keys have; see `KeyValues`."""
    if "positions" in key_values:
        return key_values["positions"]
    real_Px1xL = real_positions(key_values)
    return jnp.broadcast_to(jnp.arange(real_Px1xL.shape[-1]), real_Px1xL[:, 0].shape)


def causal(positions_BxQ: Int[jax.Array, "B Q"]) -> Bool[jax.Array, "B Q Q"]:
    """Returns the mask with which every position sees itself and those before it."""
    return positions_BxQ[:, :, None] >= positions_BxQ[:, None]


def texts_apart(
    segments_BxQ: Int[jax.Array, "B Q"],
) -> tuple[Int[jax.Array, "B Q"], Bool[jax.Array, "B Q Q"]]:
    """Returns the positions inside of texts that stand side by side, and what they see."""
    places_Q = jnp.arange(segments_BxQ.shape[1])
    begins_BxQ = segments_BxQ != jnp.pad(segments_BxQ, ((0, 0), (1, 0)))[:, :-1]
    start_BxQ = lax.cummax(jnp.where(begins_BxQ, places_Q, 0), axis=1)
    same_BxQxQ = segments_BxQ[:, :, None] == segments_BxQ[:, None]
    return places_Q - start_BxQ, same_BxQxQ & (places_Q[:, None] >= places_Q)


# --- prompts and targets ---


def last_places(tokens_BxL: Tokens) -> Int[jax.Array, "B 1"]:
    """Returns where each row's last token stands; 0 in a row of padding."""
    lengths_Bx1 = jnp.sum(tokens_BxL != PAD_ID, axis=1, keepdims=True, dtype=jnp.int32)
    return jnp.maximum(lengths_Bx1 - 1, 0)


def joined(
    prompts_BxL: Tokens, shifted_BxT: Any, packing: Packing
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Puts targets, shifted right by one, behind their prompts.

    The start id falls on the prompt's last token, which stays.

    Args:
        packing: segment ids, where a row holds several examples; each stands by itself.

    Returns:
        Tokens (B, L + T - 1), their segment ids if there are any, and where the logits of every
        target are made, (B, T).
    """
    of_prompts_BxL = packing.get("encoder_segment_ids")
    of_targets_BxT = packing.get("decoder_segment_ids")
    if of_prompts_BxL is None or of_targets_BxT is None:
        tokens_BxQ, last_Bx1 = _joined_rows(prompts_BxL, shifted_BxT)
        return tokens_BxQ, None, last_Bx1 + jnp.arange(shifted_BxT.shape[1])
    length = prompts_BxL.shape[1] + shifted_BxT.shape[1] - 1
    # A prompt follows the targets of the segments before it, but for the last token of each.
    before_BxL = _count_below(of_targets_BxT, of_prompts_BxL) - (of_prompts_BxL - 1)
    places_BxL = jnp.arange(prompts_BxL.shape[1]) + before_BxL
    # A target follows all prompts up to its own, less the places that start ids and ends save.
    before_BxT = _count_below(of_prompts_BxL, of_targets_BxT + 1) - of_targets_BxT
    places_BxT = jnp.arange(shifted_BxT.shape[1]) + before_BxT
    starts_BxT = of_targets_BxT != jnp.pad(of_targets_BxT, ((0, 0), (1, 0)))[:, :-1]
    written = [
        jnp.where(of_prompts_BxL > 0, places_BxL, length),
        jnp.where((of_targets_BxT > 0) & ~starts_BxT, places_BxT, length),
    ]
    rows_Bx1 = jnp.arange(prompts_BxL.shape[0])[:, None]

    def put(of_prompts: Any, of_targets: Any) -> jax.Array:
        row = jnp.zeros((prompts_BxL.shape[0], length), jnp.int32)
        for places, values in zip(written, (of_prompts, of_targets), strict=True):
            row = row.at[rows_Bx1, places].set(values, mode="drop")
        return row

    tokens_BxQ = put(prompts_BxL, shifted_BxT)
    segments_BxQ = put(of_prompts_BxL, of_targets_BxT)
    return tokens_BxQ, segments_BxQ, jnp.where(of_targets_BxT > 0, places_BxT, 0)


def _count_below(segments_BxM: jax.Array, than_BxN: jax.Array) -> jax.Array:
    """Returns how many real positions have a smaller segment id, (B, N)."""
    below_BxNxM = (segments_BxM[:, None] < than_BxN[:, :, None]) & (segments_BxM > 0)[:, None]
    return jnp.sum(below_BxNxM, axis=-1, dtype=jnp.int32)


def _joined_rows(prompts_BxL: Tokens, shifted_BxT: Any) -> tuple[jax.Array, jax.Array]:
    """Returns `joined` of rows of one example: tokens, and where the prompts end, (B, 1)."""
    last_Bx1 = last_places(prompts_BxL)
    targets = shifted_BxT.shape[1]
    places_1xQ = jnp.arange(prompts_BxL.shape[1] + targets - 1)[None]
    prompts_BxQ = jnp.pad(prompts_BxL, ((0, 0), (0, targets - 1)))
    of_target_BxQ = jnp.clip(places_1xQ - last_Bx1, 0, targets - 1)
    behind_BxQ = (places_1xQ > last_Bx1) & (places_1xQ - last_Bx1 < targets)
    targets_BxQ = jnp.take_along_axis(shifted_BxT, of_target_BxQ, axis=1)
    return jnp.where(behind_BxQ, targets_BxQ, prompts_BxQ), last_Bx1
