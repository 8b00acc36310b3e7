"""One layer of T5's encoder and one of its decoder.

Module names, and the order of the dropout layers, follow T5X
(t5x/examples/t5/network.py): the same key then drops the same features there and here.

Shape suffixes as in `layers`; T is the decoder's length.
"""

from typing import TYPE_CHECKING

from flax import linen as nn

from ait_jax.models import layers

if TYPE_CHECKING:
    from ait_jax.models.t5 import T5Config


def feature_dropout(config: "T5Config") -> nn.Dropout:
    """Dropout of whole features, the same at every position (T5X's broadcast dropout)."""
    return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


def _attention(config: "T5Config", name: str, absorb: bool = False) -> layers.Attention:
    return layers.Attention(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        dtype=config.dtype,
        output_dtype=config.activation_dtype,
        dropout_rate=config.dropout_rate,
        float32_logits=config.float32_attention_logits,
        kernel=config.attention_kernel,
        absorb=absorb,
        name=name,
    )


def _mlp(config: "T5Config") -> layers.MlpBlock:
    return layers.MlpBlock(
        intermediate_dim=config.mlp_dim,
        activations=config.mlp_activations,
        dropout_rate=config.dropout_rate,
        dtype=config.dtype,
        output_dtype=config.activation_dtype,
        name="mlp",
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each with a norm before and a residual around."""

    config: "T5Config"

    @nn.compact
    def __call__(self, inputs_BxLxE, bias_1xHxLxL, mask_Bx1xLxL, deterministic: bool):
        """Returns (B, L, E) and None: a scan's carry and its outputs."""
        config = self.config
        x = layers.LayerNorm(config.dtype, name="pre_attention_layer_norm")(inputs_BxLxE)
        x = _attention(config, "attention")(
            x, x, mask_Bx1xLxL, bias_1xHxLxL, deterministic=deterministic
        )
        x = inputs_BxLxE + feature_dropout(config)(x, deterministic=deterministic)
        x = layers.with_sharding_constraint(x, ("batch", "length", "embed"))

        y = layers.LayerNorm(config.dtype, name="pre_mlp_layer_norm")(x)
        y = _mlp(config)(y, deterministic=deterministic)
        y = x + feature_dropout(config)(y, deterministic=deterministic)
        return layers.with_sharding_constraint(y, ("batch", "length", "embed")), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder output, feed-forward block."""

    config: "T5Config"

    @nn.compact
    def __call__(
        self,
        inputs_BxTxE,
        encoded_BxLxE,
        bias_1xHxTxT,
        mask_Bx1xTxT,
        cross_mask_Bx1xTxL,
        deterministic: bool,
        decode: bool,
    ):
        """Returns (B, T, E) and None: a scan's carry and its outputs."""
        config = self.config
        x = layers.LayerNorm(config.dtype, name="pre_self_attention_layer_norm")(inputs_BxTxE)
        x = _attention(config, "self_attention")(
            x, x, mask_Bx1xTxT, bias_1xHxTxT, deterministic=deterministic, decode=decode
        )
        x = inputs_BxTxE + feature_dropout(config)(x, deterministic=deterministic)

        y = layers.LayerNorm(config.dtype, name="pre_cross_attention_layer_norm")(x)
        y = _attention(config, "encoder_decoder_attention", absorb=config.absorb_cross_attention)(
            y,
            encoded_BxLxE,
            cross_mask_Bx1xTxL,
            deterministic=deterministic,
            keep_key_value=decode,
        )
        y = x + feature_dropout(config)(y, deterministic=deterministic)
        y = layers.with_sharding_constraint(y, ("batch", "length", "embed"))

        z = layers.LayerNorm(config.dtype, name="pre_mlp_layer_norm")(y)
        z = _mlp(config)(z, deterministic=deterministic)
        z = y + feature_dropout(config)(z, deterministic=deterministic)
        return layers.with_sharding_constraint(z, ("batch", "length", "embed")), None
