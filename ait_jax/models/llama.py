"""LLaMA and its kin (SmolLM2, Llama 2 and 3, Qwen2) in Flax, under the calls of `t5.Transformer`.

The "encoder input" is the prompt, padded with 0 at the right, and the target follows it directly:
attention is causal over both, positions go on from every row's own prompt, and the start id that
`likelihood.shift_right` puts before a target stands for the prompt's last token, whose logits are
those of the target's first token.

A text may be run in parts (`LlamaTransformer.extend`): what follows attends to the keys and values
of what was run before, which rows may share. `encode` runs a prompt so, `decode` a target behind
it; `__call__` runs both in one. The reference is transformers' models/llama/modeling_llama.py.

Shape suffixes: B batch, L prompt length, T target length, Q positions run together, P rows of a
part that was run before, E emb_dim, V vocab_size.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from ait_jax.errors import UserError
from ait_jax.models import layers, rotary
from ait_jax.models.decoder_only import (
    GroupedAttention,
    KeyValues,
    joined,
    last_places,
    real_positions,
    texts_apart,
)
from ait_jax.models.group_windows import Groups, windows_of
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.models.interface import ModelConfig, Packing, Params, Targets, Tokens
from ait_jax.models.layers import feature_dropout, remat, scanned
from ait_jax.models.likelihood import PAD_ID, OutputLayer, logits_of

_INIT_STDDEV = 0.02


@dataclasses.dataclass(frozen=True)
class LlamaConfig(ModelConfig):
    """The sizes and switches of a decoder-only model.

    Attributes:
        num_kv_heads: heads of keys and values; divides `num_heads`.
        norm_epsilon, rope_theta: of the norms and of the rotary positions.
        rope_scaling: None, or one of `rotary`'s: Llama3Scaling for Llama 3.1 and later, others for
            models made for longer texts.
        logits_via_embedding: the output layer is the token table (tied), not scaled.
        attention_bias: biases of query, key and value (Qwen2).
        attention_output_bias: and one of what follows them (Hugging Face's `attention_bias`).
        max_position: the longest prompt and target together; refused where they are configured.
        Others: see `interface.ModelConfig`.

    Raises:
        UserError: heads that do not divide each other, an odd `head_dim`, a `max_position` beyond
            what `rope_scaling` allows; as `interface.ModelConfig`.
    """

    emb_dim: int = 576
    num_heads: int = 9
    num_kv_heads: int = 3
    num_layers: int = 30
    mlp_dim: int = 1536
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: rotary.Scaling | None = None
    attention_bias: bool = False
    attention_output_bias: bool = False
    max_position: int | None = 2048

    computing = (*ModelConfig.computing, "max_position")
    sizes = (*ModelConfig.sizes, "num_kv_heads", "num_layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"LlamaConfig.num_kv_heads = {self.num_kv_heads} does not divide num_heads = "
                f"{self.num_heads}."
            )
        if self.head_dim % 2:
            raise UserError(
                f"LlamaConfig.head_dim = {self.head_dim} is odd; rotary positions need pairs."
            )
        if not self.rope_theta > 1:
            raise UserError(f"LlamaConfig.rope_theta = {self.rope_theta}; it must be above 1.")
        rotary.check_length(self.rope_scaling, self.max_position)

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """See `interface.ModelConfig`. A target's last token is never run."""
        tokens = inputs + max(0, targets - 1)
        layer = tokens * self._layer_weights + tokens**2 * self.num_heads * self.head_dim
        return 2.0 * (self.num_layers * layer + targets * self.emb_dim * self.vocab_size)

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """See `interface.ModelConfig`."""
        if self.remat_policy == "none":
            return 0.0
        tokens = inputs + max(0, targets - 1)
        layer = 2.0 * tokens**2 * self.num_heads * self.head_dim
        if self.remat_policy == "full":
            layer += tokens * (self._layer_weights - self.emb_dim * self.mlp_dim)
        return 2.0 * self.num_layers * layer

    @property
    def kept_values(self) -> int:
        """See `interface.ModelConfig`."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def _layer_weights(self) -> int:
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        return self.emb_dim * (heads * self.head_dim + 3 * self.mlp_dim)

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns the output kernel, or the token table."""
        decoder = params["decoder"]
        if self.logits_via_embedding:
            return OutputLayer(decoder["token_embedder"]["embedding"], vocab_axis=0, scale=1.0)
        return OutputLayer(decoder["logits_dense"]["kernel"], vocab_axis=1, scale=1.0)


class DecoderOnlyLayer(nn.Module):
    """Self-attention and feed-forward block, each with a norm before and a residual around."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self,
        inputs_BxQxE: jax.Array,
        past: tuple[KeyValue, ...],
        masks: tuple[Any, ...],
        rotation: tuple[jax.Array, jax.Array],
        deterministic: bool,
        decode: bool,
        keep: bool,
    ) -> tuple[jax.Array, KeyValue | None]:
        """Returns (B, Q, E), and the layer's new KeyValue if `keep`: a scan's carry and output."""
        config = self.config
        epsilon = config.norm_epsilon
        norm = layers.LayerNorm(config.dtype, epsilon, name="pre_self_attention_layer_norm")
        attention = GroupedAttention(config, name="self_attention")
        x, new = attention(norm(inputs_BxQxE), rotation, past, masks, decode)
        x = inputs_BxQxE + feature_dropout(config)(x, deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))
        x = layers.feed_forward(config, ("silu", "linear"), x, deterministic, epsilon)
        return x, new if keep else None


class Decoder(nn.Module):
    """The token table, the layers, the final norm and the output layer."""

    config: LlamaConfig

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
        rows, length = tokens_BxQ.shape
        positions_BxQ, own_mask = jnp.arange(length)[None], None
        if segments_BxQ is not None:
            positions_BxQ, own_mask = texts_apart(segments_BxQ)
        if groups is not None:
            in_steps = config.kernel == "blocked"
            positions_BxQ = groups[0].positions_BxN
            own_mask = windows_of(*groups, in_steps=in_steps)
        for part in past:
            start_B = jnp.repeat(part["length"], rows // part["length"].shape[0])
            positions_BxQ = positions_BxQ + start_B[:, None]
        if decode_behind_Bx1 is not None:
            step = self._count_step()
            positions_BxQ = positions_BxQ + step
            tokens_BxQ = jnp.where(step == 0, decode_behind_Bx1, tokens_BxQ)
        rotation = rotary.rotation(
            positions_BxQ, config.head_dim, config.rope_theta, config.rope_scaling
        )
        masks = (*map(real_positions, past), own_mask)
        x = self.token_embedder(tokens_BxQ)
        x = feature_dropout(config)(x, deterministic=deterministic)
        decode = decode_behind_Bx1 is not None
        return self._stack(x, past, (masks, rotation, deterministic, decode, keep))

    def _stack(
        self, x_BxQxE: jax.Array, past: tuple[KeyValues, ...], others: tuple[Any, ...]
    ) -> tuple[jax.Array, dict[str, KeyValue] | None]:
        """Runs the layers, which take `others` all alike; see `hidden`."""
        config, x, (*_, decode, keep) = self.config, x_BxQxE, others
        layer_class = DecoderOnlyLayer
        if not decode:
            layer_class = remat(DecoderOnlyLayer, config, static_argnums=(5, 6, 7))
        if config.scan_layers:
            stacked = tuple(part["layers"] for part in past)
            in_axes = (0, *[nn.broadcast] * len(others))
            stack = scanned(layer_class, config, config.num_layers, in_axes)
            x, kept = stack(x, stacked, *others)
            return x, {"layers": kept} if keep else None
        kept = {}
        for index in range(config.num_layers):
            name = f"layers_{index}"
            before = tuple(part[name] for part in past)
            x, kept[name] = layer_class(config, name=name)(x, before, *others)
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
            logits = logits_of(hidden, OutputLayer(self.token_embedder.embedding, 0, 1.0))
        else:
            logits = self.logits_dense(hidden)
        return layers.with_sharding_constraint(logits, ("batch", "length", "vocab"))


class LlamaTransformer(nn.Module):
    """A decoder-only model with the methods of `interface.Model`.

    Token 0 is padding and stands at the right; a row of it alone is read as one token 0.
    """

    config: LlamaConfig

    def setup(self) -> None:
        """Makes the decoder."""
        self.decoder = Decoder(self.config)

    def extend(
        self,
        tokens_BxQ: Tokens,
        past: Sequence[KeyValues] = (),
        enable_dropout: bool = False,
        segments_BxQ: Int[jax.Array, "batch length"] | None = None,
        keep: bool = True,
    ) -> tuple[Float[jax.Array, "batch length E"], KeyValues | None]:
        """Runs tokens behind what was run before.

        Args:
            tokens_BxQ: padded with 0 at the right.
            past: what comes before them, in order. KeyValues of P rows are shared: row b of the
                tokens follows their row b // (B / P).
            segments_BxQ: numbers of texts that stand side by side in a row; each follows `past` by
                itself and sees nothing of the others. None for one text a row.
            keep: return the KeyValues of these tokens, too, else None.

        Returns:
            The final hidden states in `config.dtype`, and the KeyValues of these tokens.
        """
        x, kept = self.decoder.hidden(
            tokens_BxQ, tuple(past), not enable_dropout, keep=keep, segments_BxQ=segments_BxQ
        )
        if kept is None:
            return self.decoder.decoder_norm(x), None
        length_B = jnp.sum(tokens_BxQ != PAD_ID, axis=1, dtype=jnp.int32)
        return self.decoder.decoder_norm(x), {"length": length_B, **kept}

    def extend_within(self, tokens_BxN: Tokens, groups: Groups, longest: int) -> jax.Array:
        """Runs rows that hold whole groups of texts, prefixes and what follows them.

        Args:
            longest: keys of the longest window: at least `BLOCK`, a prefix and the longest text
                behind it together, less one, or all of a row.

        Returns:
            The final hidden states (B, N, E) in `config.dtype`.
        """
        x, _ = self.decoder.hidden(tokens_BxN, (), True, groups=(groups, longest))
        return self.decoder.decoder_norm(x)

    def encode(
        self,
        encoder_input_tokens: Tokens,
        encoder_segment_ids: Any = None,
        enable_dropout: bool = True,
    ) -> KeyValues:
        """Returns the KeyValues of prompts but for their last tokens, where `decode` begins."""
        _refuse_packed({"encoder_segment_ids": encoder_segment_ids})
        _, key_values = self.extend(encoder_input_tokens, (), enable_dropout)
        assert key_values is not None
        return {**key_values, "length": jnp.maximum(key_values["length"] - 1, 0)}

    def represent(self, tokens: Tokens, enable_dropout: bool = True) -> jax.Array:
        """Returns the final hidden states of a text, (B, L, E)."""
        return self.extend(tokens, (), enable_dropout, keep=False)[0]

    def decode(
        self,
        encoded: KeyValues | tuple[KeyValues, ...],
        encoder_input_tokens: Tokens,
        decoder_input_tokens: Targets,
        decoder_target_tokens: Targets,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
        return_hidden: bool = False,
        **packing: Unpack[Packing],
    ) -> jax.Array:
        """Returns the logits, float32 (B, T, V); arguments as of `t5.Transformer.decode`.

        Args:
            encoded: from `encode`, or several KeyValues in order, the last of which leaves the
                last prompt token out, as `encode` does.
            encoder_input_tokens: (B, L), the tokens of that last one.
            decode: take one position a step with the mutable collection `cache`; the first call,
                with (B, max length) tokens, makes the cache.
        """
        del decoder_target_tokens, max_decode_length
        _refuse_packed(packing)
        past = (encoded,) if isinstance(encoded, Mapping) else tuple(encoded)
        where_Bx1 = last_places(encoder_input_tokens)
        last_Bx1 = jnp.take_along_axis(encoder_input_tokens, where_Bx1, axis=1)
        tokens_BxT = jnp.concatenate([last_Bx1, decoder_input_tokens[:, 1:]], axis=1)
        x, _ = self.decoder.hidden(
            decoder_input_tokens if decode else tokens_BxT,
            past,
            not enable_dropout,
            decode_behind_Bx1=last_Bx1 if decode else None,
        )
        hidden_BxTxE = self.decoder.decoder_norm(x)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)

    def __call__(
        self,
        encoder_input_tokens: Tokens,
        decoder_input_tokens: Targets,
        decoder_target_tokens: Targets,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        return_hidden: bool = False,
        **packing: Unpack[Packing],
    ) -> jax.Array:
        """Returns the logits of the targets, float32 (B, T, V), or the hidden states (B, T, E).

        Prompts (B, L) and targets are put one behind the other, without the padding between them,
        and run together; with segment ids, those of every example of a row.
        """
        if decode:
            segment_ids = packing.get("encoder_segment_ids")
            encoded = self.encode(encoder_input_tokens, segment_ids, enable_dropout)
            return self.decode(
                encoded, encoder_input_tokens, decoder_input_tokens, decoder_target_tokens,
                enable_dropout=enable_dropout, decode=True, return_hidden=return_hidden,
            )  # fmt: skip
        tokens_BxQ, segments_BxQ, where_BxT = joined(
            encoder_input_tokens, decoder_input_tokens, packing
        )
        x, _ = self.decoder.hidden(tokens_BxQ, (), not enable_dropout, segments_BxQ=segments_BxQ)
        x_BxTxE = jnp.take_along_axis(x, where_BxT[:, :, None], axis=1)
        hidden_BxTxE = self.decoder.decoder_norm(x_BxTxE)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)


def _refuse_packed(packing: Packing) -> None:
    if any(packing.get(f"{side}_segment_ids") is not None for side in ("encoder", "decoder")):
        raise UserError(
            "Packed examples (segment ids) are for training; encode and decode of a "
            "LlamaTransformer take one example a row."
        )
