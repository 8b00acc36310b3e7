"""The layers of a decoder-only model: token table, layers of one or several kinds, output layer.

One stack for all families: where norms stand, what attention sees and how it is scaled are fields
of the configuration, so that what differs between models is a value and not a file.

Shape suffixes: B batch, T target length, Q positions run together, P rows of a part that was run
before, E emb_dim, V vocab_size, N layers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ait_jax.models import layer_kinds, layers
from ait_jax.models.attention import capped
from ait_jax.models.decoder_only import (
    GroupedAttention,
    KeyValues,
    causal,
    key_positions,
    real_positions,
    texts_apart,
)
from ait_jax.models.group_windows import Groups, windows_of
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.models.interface import Tokens
from ait_jax.models.layer_kinds import Kind, Sight
from ait_jax.models.layers import MlpBlock, feature_dropout, remat, scanned
from ait_jax.models.likelihood import OutputLayer, logits_of

_INIT_STDDEV = 0.02


class DecoderOnlyLayer(nn.Module):
    """Self-attention and feed-forward block, with residuals around and norms before or after."""

    config: Any  # a `llama.LlamaConfig`

    @nn.compact
    def __call__(
        self,
        inputs_BxQxE: jax.Array,
        past: tuple[KeyValue, ...],
        kind: Kind | None,
        sight: Sight,
        rotations: tuple[jax.Array, jax.Array],
        deterministic: bool,
        decode: bool,
        keep: bool,
    ) -> tuple[jax.Array, KeyValue | None]:
        """Returns (B, Q, E), and the layer's new KeyValue if `keep`: a scan's carry and output."""
        config, dropout = self.config, feature_dropout(self.config)
        attention = GroupedAttention(config, name="self_attention")
        rotation = layer_kinds.chosen(rotations, kind)
        window = None if kind is None else kind.window
        x = self._before("self_attention", inputs_BxQxE)
        x, new = attention(x, rotation, past, sight.within(window), decode, window)
        x = self._after("self_attention", x)
        x = inputs_BxQxE + dropout(x, deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))
        y = MlpBlock(config, config.mlp_activations, name="mlp")(
            self._before("mlp", x), deterministic
        )
        x = x + dropout(self._after("mlp", y), deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))
        return x, new if keep else None

    def _before(self, block: str, x: jax.Array) -> jax.Array:
        name, config = f"pre_{block}_layer_norm", self.config
        return x if config.norms == "post" else self._norm(name, config.dtype, x)

    def _after(self, block: str, x: jax.Array) -> jax.Array:
        name, config = f"post_{block}_layer_norm", self.config
        return x if config.norms == "pre" else self._norm(name, config.activation_dtype, x)

    def _norm(self, name: str, dtype: Any, x: jax.Array) -> jax.Array:
        return layers.LayerNorm(dtype, self.config.norm_epsilon, name=name)(x)


class Decoder(nn.Module):
    """The token table, the layers, the final norm and the output layer."""

    config: Any  # a `llama.LlamaConfig`

    def setup(self) -> None:
        """Makes all but the layers."""
        config = self.config
        self.token_embedder = layers.Embed(
            config.vocab_size, config.emb_dim, config.activation_dtype, _INIT_STDDEV
        )
        self.decoder_norm = layers.LayerNorm(config.dtype, config.norm_epsilon)
        if not config.logits_via_embedding:
            self.logits_dense = layers.Dense(
                config.vocab_size, ("embed", "vocab"), config.dtype, jnp.float32
            )

    @nn.compact
    def hidden(
        self,
        tokens_BxQ: Tokens,
        past: tuple[KeyValues, ...],
        deterministic: bool,
        *,
        keep: bool = False,
        segments_BxQ: jax.Array | None = None,
        groups: tuple[Groups, int] | None = None,
        decode_behind_Bx1: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, KeyValue] | None]:
        """Runs the layers over tokens that come behind `past`.

        Args:
            keep: return the layers' KeyValues of these tokens, too, else None.
            segments_BxQ: numbers of several texts in a row; each of them by itself follows `past`.
            groups: that the rows hold, and the keys of the longest window; see `group_windows`.
            decode_behind_Bx1: decode, one position a step; the token of the first step, whatever
                `tokens` are.

        Returns:
            The last layer's output before the final norm, (B, Q, E), and the kept keys and values.
        """
        config = self.config
        positions_BxQ, own_mask = self._own(tokens_BxQ, segments_BxQ, groups)
        own_positions_BxQ, rows = positions_BxQ, tokens_BxQ.shape[0]
        starts: list[jax.Array] = []
        end_B = jnp.zeros((rows,), jnp.int32)
        for part in past:
            starts.append(end_B)
            end_B = end_B + jnp.repeat(part["length"], rows // part["length"].shape[0])
        if past:
            positions_BxQ = positions_BxQ + end_B[:, None]
        decode = decode_behind_Bx1 is not None
        if decode_behind_Bx1 is not None:
            step = self._count_step()
            positions_BxQ = positions_BxQ + step
            tokens_BxQ = jnp.where(step == 0, decode_behind_Bx1, tokens_BxQ)
        sight = Sight((*map(real_positions, past), own_mask))
        if layer_kinds.LOCAL in config.layer_pattern:
            own = None if decode or groups else own_positions_BxQ
            masks = sight.masks
            if own is not None and own_mask is None:
                masks = (*masks[:-1], causal(own))
            keys = map(key_positions, past)
            sight = Sight(masks, layer_kinds.distances(positions_BxQ, starts, list(keys), own))
        rotations = layer_kinds.rotations(config, positions_BxQ)
        x = self.token_embedder(tokens_BxQ)
        if config.scale_embeddings:
            x = x * jnp.asarray(math.sqrt(config.emb_dim), x.dtype)
        x = feature_dropout(config)(x, deterministic=deterministic)
        return self._stack(x, past, (sight, rotations, deterministic, decode, keep))

    def _own(
        self, tokens_BxQ: Tokens, segments_BxQ: jax.Array | None, groups: tuple[Groups, int] | None
    ) -> tuple[jax.Array, Any]:
        """Returns the tokens' positions behind `past`, and what they see of each other."""
        config = self.config
        if groups is not None:
            options = {"in_steps": config.kernel == "blocked"}
            options |= {"with_distances": layer_kinds.LOCAL in config.layer_pattern}
            return groups[0].positions_BxN, windows_of(*groups, **options)
        if segments_BxQ is not None:
            return texts_apart(segments_BxQ)
        return jnp.arange(tokens_BxQ.shape[1])[None], None

    def _stack(
        self, x_BxQxE: jax.Array, past: tuple[KeyValues, ...], others: tuple[Any, ...]
    ) -> tuple[jax.Array, dict[str, KeyValue] | None]:
        """Runs the layers, which take `others` all alike; see `hidden`."""
        config, x, (*_, decode, keep) = self.config, x_BxQxE, others
        kinds = layer_kinds.kinds(config.layer_pattern, config.num_layers, config.sliding_window)
        layer_class = DecoderOnlyLayer
        if not decode:
            layer_class = remat(DecoderOnlyLayer, config, static_argnums=(6, 7, 8))
        if config.scan_layers:
            stacked = tuple(part["layers"] for part in past)
            in_axes = (0, nn.broadcast if kinds is None else 0, *[nn.broadcast] * len(others))
            stack = scanned(layer_class, config, config.num_layers, in_axes)
            x, kept = stack(x, stacked, kinds, *others)
            return x, {"layers": kept} if keep else None
        kept = {}
        for index in range(config.num_layers):
            name = f"layers_{index}"
            before = tuple(part[name] for part in past)
            kind = None if kinds is None else kinds.of_layer(index)
            x, kept[name] = layer_class(config, name=name)(x, before, kind, *others)
        return x, kept if keep else None

    def _count_step(self) -> jax.Array:
        """Returns how many positions were decoded before; the first call makes the cache."""
        counts = self.has_variable("cache", "cache_index")
        index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        step = index.value
        index.value = step + int(counts)
        return step

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns the logits, float32 (B, T, V)."""
        if self.config.logits_via_embedding:
            output = OutputLayer(self.token_embedder.embedding, 0, 1.0, self.config.logits_softcap)
            logits = logits_of(hidden, output)
        else:
            logits = capped(self.logits_dense(hidden), self.config.logits_softcap)
        return layers.with_sharding_constraint(logits, ("batch", "length", "vocab"))
