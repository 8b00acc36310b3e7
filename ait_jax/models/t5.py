"""T5 1.1 and 1.0 in Flax with T5X's parameter names, shapes and call signature.

`t5x.models.EncoderDecoderModel(module=Transformer(config))` can hold this network, and
T5X's T5 checkpoints load into it (t5x/examples/t5/network.py is the reference). Module names
and the order of the dropout layers are T5X's: the same key drops the same features there and
here. Beyond T5X: the position biases are computed once per stack, tokens are gathered instead of
multiplied with one-hot rows, and cross-attention keys and values can be kept while decoding (see
`t5_attention.Attention`).

Shape suffixes: B batch, L prompt length, T target length, E emb_dim, H heads, V vocab_size.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn

from ait_jax.models import layers
from ait_jax.models.attention import KERNELS_OF_SEEN, Mask, Seen
from ait_jax.models.interface import Masks, ModelConfig, Packing, Params, Targets, Tokens
from ait_jax.models.layers import feature_dropout, layer_stack, remat
from ait_jax.models.likelihood import OutputLayer
from ait_jax.models.t5_attention import Attention, RelativePositionBiases


@dataclasses.dataclass(frozen=True)
class T5Config(ModelConfig):
    """The sizes and switches of a T5 model; prompts and targets may have any length.

    Attributes:
        vocab_size: T5's checkpoints have 32,128.
        mlp_activations: ("gelu", "linear") for T5 1.1, ("relu",) for T5 1.0.
        logits_via_embedding: tied output layer, scaled by 1/sqrt(emb_dim), as T5 1.0.
        float32_attention_logits: keep query-key products in float32 under bfloat16.
        absorb_cross_attention: apply the cross-attention's key and value kernels to the
            queries where that is cheaper; the same result, up to rounding, in passes without
            dropout.
        Others: see `interface.ModelConfig`.

    Raises:
        UserError: an unknown activation; as `interface.ModelConfig`.
    """

    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    mlp_activations: Sequence[str] = ("relu",)
    dropout_rate: float = 0.1
    float32_attention_logits: bool = False
    absorb_cross_attention: bool = False

    float32_logits = True
    computing = (*ModelConfig.computing, "float32_attention_logits", "absorb_cross_attention")

    def __post_init__(self) -> None:
        names = self.mlp_activations
        names = (names,) if isinstance(names, str) else tuple(names)
        object.__setattr__(self, "mlp_activations", names)
        for name in names or ("",):
            if name not in layers.ACTIVATIONS:
                raise self.unknown("mlp_activations", name, layers.ACTIVATIONS)
        super().__post_init__()

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """See `interface.ModelConfig`."""
        multiply_adds = self._kernels(inputs, targets, len(self.mlp_activations) + 1)
        multiply_adds += self._attention(inputs, targets, 1)
        return 2.0 * (multiply_adds + targets * self.emb_dim * self.vocab_size)

    def reading_flops(self, inputs: int) -> float:
        """Returns the FLOPs of the encoder alone."""
        return dataclasses.replace(self, num_decoder_layers=0).flops_per_example(inputs, 0)

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """See `interface.ModelConfig`."""
        if self.remat_policy == "none":
            return 0.0
        multiply_adds = self._attention(inputs, targets, 2)
        if self.remat_policy == "full":
            multiply_adds += self._kernels(inputs, targets, len(self.mlp_activations))
        return 2.0 * multiply_adds

    def _kernels(self, inputs: float | int, targets: float | int, mlp_kernels: int) -> float | int:
        """Returns the multiply-adds of the layers' kernels."""
        projection = self.emb_dim * self.num_heads * self.head_dim
        mlp = mlp_kernels * self.emb_dim * self.mlp_dim
        decoder_layer = targets * (6 * projection + mlp) + inputs * 2 * projection
        encoder_layer = inputs * (4 * projection + mlp)
        return self.num_encoder_layers * encoder_layer + self.num_decoder_layers * decoder_layer

    def _attention(self, inputs: float | int, targets: float | int, causal: int) -> float | int:
        """Returns those of queries, keys and values, `causal` * T^2 * H * D in the decoder."""
        joined_kv = self.num_heads * self.head_dim
        decoder_layer = (causal * targets + 2 * inputs) * targets * joined_kv
        encoder_layer = 2 * inputs**2 * joined_kv
        return self.num_encoder_layers * encoder_layer + self.num_decoder_layers * decoder_layer

    @property
    def kept_values(self) -> int:
        """See `interface.ModelConfig`."""
        return 2 * self.num_decoder_layers * self.num_heads * self.head_dim

    def for_scoring(self, platform: str) -> "T5Config":
        """Returns the same model in the form that reads fastest; see `interface.ModelConfig`."""
        return dataclasses.replace(super().for_scoring(platform), absorb_cross_attention=True)

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns the output kernel, or the scaled token table."""
        if self.logits_via_embedding:
            table_VxE = params["token_embedder"]["embedding"]
            return OutputLayer(table_VxE, vocab_axis=0, scale=1 / math.sqrt(self.emb_dim))
        return OutputLayer(params["decoder"]["logits_dense"]["kernel"], vocab_axis=1, scale=1.0)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each with a norm before and a residual around."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        inputs_BxLxE: jax.Array,
        bias_1xHxLxL: jax.Array,
        mask_Bx1xLxL: Mask,
        deterministic: bool,
    ) -> tuple[jax.Array, None]:
        """Returns (B, L, E) and None: a scan's carry and its outputs."""
        config = self.config
        x = layers.LayerNorm(config.dtype, name="pre_attention_layer_norm")(inputs_BxLxE)
        x = Attention(config, name="attention")(
            x, x, mask_Bx1xLxL, bias_1xHxLxL, deterministic=deterministic
        )
        x = inputs_BxLxE + feature_dropout(config)(x, deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))

        return layers.feed_forward(config, config.mlp_activations, x, deterministic), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder output, feed-forward block."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        inputs_BxTxE: jax.Array,
        encoded_BxLxE: jax.Array,
        bias_1xHxTxT: jax.Array,
        mask_Bx1xTxT: Mask | None,
        cross_mask_Bx1xTxL: Mask,
        deterministic: bool,
        decode: bool,
    ) -> tuple[jax.Array, None]:
        """Returns (B, T, E) and None: a scan's carry and its outputs."""
        config = self.config
        x = layers.LayerNorm(config.dtype, name="pre_self_attention_layer_norm")(inputs_BxTxE)
        x = Attention(config, name="self_attention")(
            x, x, mask_Bx1xTxT, bias_1xHxTxT, deterministic=deterministic, decode=decode
        )
        x = inputs_BxTxE + feature_dropout(config)(x, deterministic=deterministic)

        y = layers.LayerNorm(config.dtype, name="pre_cross_attention_layer_norm")(x)
        absorb = config.absorb_cross_attention
        y = Attention(config, absorb, name="encoder_decoder_attention")(
            y,
            encoded_BxLxE,
            cross_mask_Bx1xTxL,
            deterministic=deterministic,
            keep_key_value=decode,
        )
        y = x + feature_dropout(config)(y, deterministic=deterministic)
        y = layers.with_sharding_constraint(y, ("batch", "length", "embed"))

        return layers.feed_forward(config, config.mlp_activations, y, deterministic), None


class Encoder(nn.Module):
    """The encoder layers and the final norm over embedded tokens."""

    config: T5Config
    shared_embedding: layers.Embed

    @nn.compact
    def __call__(self, tokens_BxL: Tokens, mask_Bx1xLxL: Mask, deterministic: bool) -> jax.Array:
        """Returns the encoder output, (B, L, E) in `config.activation_dtype`."""
        config = self.config
        biases = RelativePositionBiases(config, name="relpos_bias")
        by_distance = isinstance(mask_Bx1xLxL, Seen)
        bias_1xHxLxL = biases(tokens_BxL.shape[-1], True, by_distance)
        x = self.shared_embedding(tokens_BxL)
        x = feature_dropout(config)(x, deterministic=deterministic)
        layer_class = remat(EncoderLayer, config, static_argnums=(4,))
        x = layer_stack(layer_class, config, config.num_encoder_layers)(
            x, bias_1xHxLxL, mask_Bx1xLxL, deterministic
        )
        x = layers.LayerNorm(config.activation_dtype, name="encoder_norm")(x)
        # T5X drops single elements here, not whole features.
        return nn.Dropout(config.dropout_rate)(x, deterministic=deterministic)


class Decoder(nn.Module):
    """The decoder layers, the final norm and the output layer."""

    config: T5Config
    shared_embedding: layers.Embed

    @nn.compact
    def __call__(
        self,
        encoded_BxLxE: jax.Array,
        tokens_BxT: Tokens,
        mask_Bx1xTxT: Mask | None,
        cross_mask_Bx1xTxL: Mask,
        deterministic: bool,
        decode: bool = False,
        max_decode_length: int | None = None,
        return_hidden: bool = False,
    ) -> jax.Array:
        """Returns the logits, float32 (B, T, V), or the hidden states before them, (B, T, E)."""
        config = self.config
        bias_length = (decode and max_decode_length) or tokens_BxT.shape[-1]
        biases = RelativePositionBiases(config, name="relpos_bias")
        bias_1xHxTxT = biases(bias_length, False, isinstance(mask_Bx1xTxT, Seen))
        y = self.shared_embedding(tokens_BxT)
        y = feature_dropout(config)(y, deterministic=deterministic)
        layer_class = DecoderLayer
        if not decode:
            layer_class = remat(DecoderLayer, config, static_argnums=(6, 7))
        y = layer_stack(layer_class, config, config.num_decoder_layers)(
            y,
            encoded_BxLxE,
            bias_1xHxTxT,
            mask_Bx1xTxT,
            cross_mask_Bx1xTxL,
            deterministic,
            decode,
        )
        y = layers.LayerNorm(config.dtype, name="decoder_norm")(y)
        y = feature_dropout(config)(y, deterministic=deterministic)
        if return_hidden:
            return y
        if config.logits_via_embedding:
            logits_BxTxV = self.shared_embedding.attend(y) / math.sqrt(config.emb_dim)
        else:
            logits_BxTxV = layers.Dense(
                config.vocab_size, ("embed", "vocab"), jnp.float32, name="logits_dense"
            )(y)
        return layers.with_sharding_constraint(logits_BxTxV, ("batch", "length", "vocab"))


def _segments(tokens_BxL: Any, segment_ids: Any) -> jax.Array:
    """Returns the segments of a `Seen`, int32 (B, L): 1 for all tokens of a row if not packed."""
    real_BxL = jnp.asarray(tokens_BxL) > 0
    return jnp.where(real_BxL, 1 if segment_ids is None else segment_ids, 0).astype(jnp.int32)


class Transformer(nn.Module):
    """T5 with T5X's methods `encode`, `decode` and `__call__`. Token 0 is padding everywhere."""

    config: T5Config
    ring_cache: ClassVar[bool] = True

    def setup(self) -> None:
        """Makes the token table and both stacks."""
        config = self.config
        self.shared_embedding = layers.Embed(
            config.vocab_size, config.emb_dim, config.activation_dtype, name="token_embedder"
        )
        self.encoder = Encoder(config, self.shared_embedding)
        self.decoder = Decoder(config, self.shared_embedding)

    def encode(
        self,
        encoder_input_tokens: Tokens,
        encoder_segment_ids: Any = None,
        enable_dropout: bool = True,
    ) -> jax.Array:
        """Returns the encoder output, (B, L, E)."""
        segments_BxL = _segments(encoder_input_tokens, encoder_segment_ids)
        mask = Seen(segments_BxL, segments_BxL)
        if self.config.kernel == "blocked" and encoder_segment_ids is None:
            # What padding attends to affects padding only. T5X, whose numbers the plain form is
            # compared with, lets it attend to all padding.
            mask = (segments_BxL > 0)[:, None, None, :]
        elif self.config.kernel not in KERNELS_OF_SEEN:
            mask = mask.mask()
        return self.encoder(encoder_input_tokens, mask, not enable_dropout)

    def represent(self, tokens: Tokens, enable_dropout: bool = True) -> jax.Array:
        """Returns the encoder output of a text, (B, L, E)."""
        return self.encode(tokens, enable_dropout=enable_dropout)

    def decode(
        self,
        encoded: jax.Array,
        encoder_input_tokens: Tokens,
        decoder_input_tokens: Targets,
        decoder_target_tokens: Targets,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
        return_hidden: bool = False,
        **masks: Unpack[Masks],
    ) -> jax.Array:
        """Returns the logits, float32 (B, T, V).

        Args:
            encoded: (B, L, E) from `encode`.
            encoder_input_tokens: (B, L), for the mask.
            decoder_input_tokens: (B, T), the targets shifted right by one.
            decoder_target_tokens: (B, T), for the mask.
            decode: take one position a step with the mutable collection `cache`; the first
                call, with (B, max length) tokens, makes the cache.
            max_decode_length: length of that cache, needed in every step.
            return_hidden: return the final hidden states instead, (B, T, E) in
                `config.dtype`, for `output_layer` (T5X never asks for this).
            masks: segment ids of both sides; or, with `decode`, `seen_BxT`.

        Raises:
            ValueError: segment ids together with `decode`.
        """
        encoder_segment_ids = masks.get("encoder_segment_ids")
        decoder_segment_ids = masks.get("decoder_segment_ids")
        if decode and encoder_segment_ids is not None:
            raise ValueError("Packed examples (encoder_segment_ids) cannot be decoded.")
        source_BxL = _segments(encoder_input_tokens, encoder_segment_ids)
        own_BxT = _segments(decoder_target_tokens, decoder_segment_ids)
        target_BxT = own_BxT
        if encoder_segment_ids is None:
            everything_BxT = jnp.ones_like(own_BxT)
            target_BxT = everything_BxT if decode else jnp.minimum(own_BxT, 1)
        cross_mask_Bx1xTxL = Seen(target_BxT, source_BxL)
        mask_Bx1xTxT = Seen(own_BxT, own_BxT, causal=True)
        if decode or self.config.kernel not in KERNELS_OF_SEEN:
            cross_mask_Bx1xTxL = cross_mask_Bx1xTxL.mask()
            mask_Bx1xTxT = mask_Bx1xTxT.mask()
        if decode:
            seen_BxT = masks.get("seen_BxT")
            mask_Bx1xTxT = None if seen_BxT is None else seen_BxT[:, None, None]
        return self.decoder(
            encoded,
            decoder_input_tokens,
            mask_Bx1xTxT,
            cross_mask_Bx1xTxL,
            not enable_dropout,
            decode,
            max_decode_length,
            return_hidden,
        )

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
        """Returns the logits, float32 (B, T, V); arguments as in `encode` and `decode`."""
        encoded = self.encode(
            encoder_input_tokens, packing.get("encoder_segment_ids"), enable_dropout
        )
        return self.decode(
            encoded,
            encoder_input_tokens,
            decoder_input_tokens,
            decoder_target_tokens,
            enable_dropout=enable_dropout,
            decode=decode,
            return_hidden=return_hidden,
            **packing,
        )
