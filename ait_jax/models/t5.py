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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning

from ait_jax.errors import UserError, nearest
from ait_jax.models import layers
from ait_jax.models.attention import KERNELS
from ait_jax.models.blocks import DecoderLayer, EncoderLayer, feature_dropout

Params = Mapping[str, Any]

REMAT_POLICIES = ("none", "minimal", "full")


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

    def __post_init__(self) -> None:
        # Gin passes strings and lists; the modules need a dtype and a hashable tuple.
        object.__setattr__(self, "dtype", _float_dtype(self.dtype))
        if self.intermediate_dtype is not None:
            between = _float_dtype(self.intermediate_dtype)
            object.__setattr__(self, "intermediate_dtype", between)
        activations = self.mlp_activations
        activations = (activations,) if isinstance(activations, str) else tuple(activations)
        object.__setattr__(self, "mlp_activations", activations)
        known = ("linear", "relu", "gelu", "silu", "swish", "tanh", "sigmoid")
        for name in activations or ("",):
            if name not in known:
                raise UserError(
                    f"T5Config.mlp_activations has {name!r}; needed: one or two of "
                    f"{', '.join(known)}.{nearest(str(name), known)}"
                )
        if self.remat_policy not in REMAT_POLICIES:
            raise UserError(
                f"T5Config.remat_policy is {self.remat_policy!r}; needed: one of "
                f"{', '.join(REMAT_POLICIES)}.{nearest(str(self.remat_policy), REMAT_POLICIES)}"
            )
        if self.attention_kernel not in KERNELS:
            raise UserError(
                f"T5Config.attention_kernel is {self.attention_kernel!r}; needed: one of "
                f"{', '.join(KERNELS)}.{nearest(str(self.attention_kernel), KERNELS)}"
            )
        for field in ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"T5Config.{field} is {getattr(self, field)}; needed: at least 1.")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise UserError(
                f"T5Config.dropout_rate is {self.dropout_rate}; needed: from 0 to below 1."
            )

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of what lies between matrix products."""
        return self.intermediate_dtype or self.dtype


def _float_dtype(dtype: Any) -> jnp.dtype:
    try:
        resolved = jnp.dtype(dtype)
    except TypeError:
        resolved = None
    if resolved is None or not jnp.issubdtype(resolved, jnp.floating):
        names = ("float32", "bfloat16")
        raise UserError(
            f"T5Config.dtype is {dtype!r}; needed: 'float32' or 'bfloat16'."
            f"{nearest(str(dtype), names)}"
        )
    return resolved


def _remat(layer: type[nn.Module], config: T5Config, static_argnums: tuple[int, ...]):
    if config.remat_policy == "none":
        return layer
    policy = None
    if config.remat_policy == "minimal":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return nn.remat(layer, policy=policy, static_argnums=static_argnums)


def _layer_stack(layer_class: type[nn.Module], config: T5Config, num_layers: int) -> Callable:
    """Returns the function (x, *others) -> x of all layers, one after the other.

    With `scan_layers` it is one layer compiled once and run over parameters, and caches, that
    are stacked along axis 0: `layers` instead of `layers_0`, `layers_1`, ...
    """
    if not config.scan_layers:

        def unrolled(x, *others):
            for index in range(num_layers):
                x = layer_class(config, name=f"layers_{index}")(x, *others)[0]
            return x

        return unrolled

    def scanned(x, *others):
        stack = nn_partitioning.scan_with_axes(
            layer_class,
            variable_axes={"params": 0, "cache": 0, "cross_cache": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast,) * len(others),
            length=num_layers,
            axis_name="layers",
        )
        return stack(config, name="layers")(x, *others)[0]

    return scanned


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
        layer_class = _remat(EncoderLayer, config, static_argnums=(4,))
        x = _layer_stack(layer_class, config, config.num_encoder_layers)(
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
            layer_class = _remat(DecoderLayer, config, static_argnums=(6, 7))
        y = _layer_stack(layer_class, config, config.num_decoder_layers)(
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
        )


def with_config(model: Transformer, **changes: Any) -> Transformer:
    """Returns a model of the same class with another configuration, a user's own class included."""
    return model.clone(config=dataclasses.replace(model.config, **changes))


def flops_per_example(config: T5Config, encoder_tokens: int, decoder_tokens: int) -> float:
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
