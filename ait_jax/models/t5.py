"""T5 1.1 and 1.0 in Flax with T5X's parameter names, shapes and call signature.

`t5x.models.EncoderDecoderModel(module=Transformer(config))` can hold this network, and
T5X's T5 checkpoints load into it (t5x/examples/t5/network.py is the reference). Beyond
T5X: the position biases are computed once per stack, tokens are gathered instead of
multiplied with one-hot rows, and cross-attention keys and values can be kept while
decoding (see `layers.Attention`).

Shape suffixes as in `layers`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ait_jax.models import layers, recomputed
from ait_jax.models.blocks import DecoderLayer, EncoderLayer, feature_dropout
from ait_jax.models.config_checks import check_activations, check_common
from ait_jax.models.layer_stack import layer_stack, remat
from ait_jax.models.likelihood import OutputLayer

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and switches of a T5 model, under T5X's names.

    Attributes:
        vocab_size: rows of the token table; T5's checkpoints have 32,128.
        dtype: of activations ("float32" or "bfloat16"); parameters are always float32.
        mlp_activations: ("gelu", "linear") for T5 1.1, ("relu",) for T5 1.0.
        dropout_rate: applied only where `enable_dropout` is true.
        logits_via_embedding: tied output layer, scaled by 1/sqrt(emb_dim), as T5 1.0.
        float32_attention_logits: keep query-key products in float32 under bfloat16.
        remat_policy: what the backward pass recomputes: "none", "minimal" (all but the
            matrix products without batch axes) or "full" (everything inside a layer).
        scan_layers: compile one layer and loop over stacked parameters: compilation time and
            program size no longer grow with depth (`layouts.match_layout` converts).
            Optimizers see one array of all layers: Adafactor then scales and clips them together.
        attention_kernel: "plain", or "blocked": a few rows at a time, for CPU caches.
        absorb_cross_attention: apply the cross-attention's key and value kernels to the
            queries where that is cheaper. Both keep the result, up to rounding, and hold for
            passes without dropout.
        intermediate_dtype: of what lies between matrix products; None is `dtype`. float32
            beside a bfloat16 `dtype` is more exact and, on CPUs, faster.

    Raises:
        UserError: an unknown dtype, activation or remat policy, or a size below 1.
    """

    vocab_size: int
    dtype: Any = jnp.float32
    emb_dim: int = 512
    num_heads: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    head_dim: int = 64
    mlp_dim: int = 2048
    mlp_activations: Sequence[str] = ("relu",)
    dropout_rate: float = 0.1
    logits_via_embedding: bool = False
    float32_attention_logits: bool = False
    remat_policy: str = "none"
    scan_layers: bool = False
    attention_kernel: str = "plain"
    absorb_cross_attention: bool = False
    intermediate_dtype: Any = None

    max_position = None  # positions are relative: prompts and targets may have any length

    def __post_init__(self) -> None:
        check_activations(self)
        check_common(self, ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim"))

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of what lies between matrix products."""
        return self.intermediate_dtype or self.dtype

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """See `interface.ModelConfig`; the function of that name says what is counted."""
        return flops_per_example(self, inputs, targets)

    def reading_flops(self, inputs: int) -> float:
        """Returns the FLOPs of the encoder alone."""
        return flops_per_example(dataclasses.replace(self, num_decoder_layers=0), inputs, 0)

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """Returns what rematerialization adds to an example's training step."""
        return recomputed.recomputed_flops(self, inputs, targets)

    def for_scoring(self, platform: str) -> "T5Config":
        """Returns the same model in the form that reads fastest; results differ by rounding only.

        On CPUs attention goes row by row, and beside bfloat16 products everything else is float32.
        """
        on_cpu = platform == "cpu"
        return dataclasses.replace(
            self,
            scan_layers=True,
            absorb_cross_attention=True,
            attention_kernel="blocked" if on_cpu else self.attention_kernel,
            intermediate_dtype=jnp.float32 if on_cpu else self.intermediate_dtype,
        )

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns what turns hidden states into logits: a kernel, or the scaled token table."""
        if self.logits_via_embedding:
            table_VxE = params["token_embedder"]["embedding"]
            return OutputLayer(table_VxE, vocab_axis=0, scale=1 / math.sqrt(self.emb_dim))
        return OutputLayer(params["decoder"]["logits_dense"]["kernel"], vocab_axis=1, scale=1.0)


class Encoder(nn.Module):
    """The token table, the encoder layers and the final norm."""

    config: T5Config
    shared_embedding: nn.Module

    @nn.compact
    def __call__(self, tokens_BxL, mask_Bx1xLxL, deterministic: bool):
        """Returns the encoder output, (B, L, E) in `config.activation_dtype`."""
        config = self.config
        length = tokens_BxL.shape[-1]
        bias_1xHxLxL = layers.RelativePositionBiases(
            config.num_heads, config.activation_dtype, name="relpos_bias"
        )(length, length, bidirectional=True)
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
    shared_embedding: nn.Module

    @nn.compact
    def __call__(
        self,
        encoded_BxLxE,
        tokens_BxT,
        mask_Bx1xTxT,
        cross_mask_Bx1xTxL,
        deterministic: bool,
        decode: bool = False,
        max_decode_length: int | None = None,
        return_hidden: bool = False,
    ):
        """Returns the logits, float32 (B, T, V), or what the output layer would turn into them."""
        config = self.config
        bias_length = tokens_BxT.shape[-1]
        if decode and max_decode_length:
            bias_length = max_decode_length
        bias_1xHxTxT = layers.RelativePositionBiases(
            config.num_heads, config.activation_dtype, name="relpos_bias"
        )(bias_length, bias_length, bidirectional=False)
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


def _pairs(query_BxQ: jax.Array, key_BxK: jax.Array, compare) -> jax.Array:
    """Compares every query position with every key position: bool (B, 1, Q, K)."""
    return compare(query_BxQ[:, None, :, None], key_BxK[:, None, None, :])


class Transformer(nn.Module):
    """T5 with T5X's methods `encode`, `decode` and `__call__`.

    Token 0 is padding everywhere. Segment ids (1, 2, ... per packed example, 0 for padding)
    keep packed examples apart; positions are accepted for T5X's sake and unused, since
    T5's positions are relative.
    """

    config: T5Config

    def setup(self) -> None:
        config = self.config
        self.shared_embedding = layers.Embed(
            config.vocab_size, config.emb_dim, config.activation_dtype, name="token_embedder"
        )
        self.encoder = Encoder(config, self.shared_embedding)
        self.decoder = Decoder(config, self.shared_embedding)

    def encode(self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout=True):
        """Returns the encoder output, (B, L, E), of int tokens (B, L)."""
        real_BxL = encoder_input_tokens > 0
        mask = real_BxL[:, None, None, :]
        if self.config.attention_kernel == "plain":
            # What padding positions attend to shows in other padding positions only; T5X lets
            # them attend to everything alike, and so does the plain form, to be comparable there.
            mask = _pairs(real_BxL, real_BxL, jnp.logical_and)
        if encoder_segment_ids is not None:
            mask &= _pairs(encoder_segment_ids, encoder_segment_ids, jnp.equal)
        return self.encoder(encoder_input_tokens, mask, not enable_dropout)

    def represent(self, tokens, enable_dropout=True):
        """Returns what the model makes of a text, (B, L, E): the encoder output."""
        return self.encode(tokens, enable_dropout=enable_dropout)

    def decode(
        self,
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        decoder_positions=None,
        enable_dropout=True,
        decode=False,
        max_decode_length=None,
        return_hidden=False,
    ):
        """Returns the logits, float32 (B, T, V).

        Args:
            encoded: (B, L, E) from `encode`; encoder_input_tokens: (B, L), for the mask.
            decoder_input_tokens: (B, T), the targets shifted right by one.
            decoder_target_tokens: (B, T), for the mask.
            decode: one position a step with the mutable collection `cache`; the first
                call, with (B, max length) tokens, makes the cache.
            max_decode_length: length of that cache, needed in every step.
            return_hidden: return the final hidden states instead, (B, T, E) in
                `config.dtype`, for `output_layer` (T5X never asks for this).

        Raises:
            ValueError: segment ids together with `decode`.
        """
        if decode:
            if encoder_segment_ids is not None:
                raise ValueError("Packed examples (encoder_segment_ids) cannot be decoded.")
            mask_Bx1xTxT = None
            target_BxT = jnp.ones_like(decoder_target_tokens, bool)
        else:
            target_BxT = decoder_target_tokens > 0
            position_1xT = jnp.arange(decoder_target_tokens.shape[-1])[None]
            mask_Bx1xTxT = _pairs(target_BxT, target_BxT, jnp.logical_and)
            mask_Bx1xTxT &= _pairs(position_1xT, position_1xT, jnp.greater_equal)
            if decoder_segment_ids is not None:
                mask_Bx1xTxT &= _pairs(decoder_segment_ids, decoder_segment_ids, jnp.equal)
        cross_mask_Bx1xTxL = _pairs(target_BxT, encoder_input_tokens > 0, jnp.logical_and)
        if encoder_segment_ids is not None:
            cross_mask_Bx1xTxL &= _pairs(decoder_segment_ids, encoder_segment_ids, jnp.equal)
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
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        encoder_positions=None,
        decoder_positions=None,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        return_hidden: bool = False,
    ):
        """Returns the logits, float32 (B, T, V); arguments as in `encode` and `decode`."""
        encoded = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout)
        return self.decode(
            encoded,
            encoder_input_tokens,
            decoder_input_tokens,
            decoder_target_tokens,
            encoder_segment_ids=encoder_segment_ids,
            decoder_segment_ids=decoder_segment_ids,
            decoder_positions=decoder_positions,
            enable_dropout=enable_dropout,
            decode=decode,
            return_hidden=return_hidden,
        )


def flops_per_example(
    config: T5Config, encoder_tokens: float | int, decoder_tokens: float | int
) -> float:
    """Returns the floating-point operations of one forward pass of one example.

    Counts two per multiply-add of every matrix product: projections, attention (the
    causal one halved), feed-forward and output layer; not the token table, norms or
    softmax. A training step is three times as much.
    """
    emb_dim, joined_kv = config.emb_dim, config.num_heads * config.head_dim
    projection = emb_dim * joined_kv
    mlp = (len(config.mlp_activations) + 1) * emb_dim * config.mlp_dim
    encoder_layer = encoder_tokens * (4 * projection + mlp)
    encoder_layer += 2 * encoder_tokens**2 * joined_kv
    decoder_layer = decoder_tokens * (6 * projection + mlp) + encoder_tokens * 2 * projection
    decoder_layer += decoder_tokens**2 * joined_kv
    decoder_layer += 2 * decoder_tokens * encoder_tokens * joined_kv
    multiply_adds = config.num_encoder_layers * encoder_layer
    multiply_adds += config.num_decoder_layers * decoder_layer
    multiply_adds += decoder_tokens * emb_dim * config.vocab_size
    return 2.0 * multiply_adds
