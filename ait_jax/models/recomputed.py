"""What rematerialization adds to a training step, as `t5.flops_per_example` counts it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ait_jax.models.t5 import T5Config


def recomputed_flops(config: "T5Config", encoder_tokens: int, decoder_tokens: int) -> float:
    """Returns the FLOPs of an example's forward pass that the backward pass does again.

    By `config.remat_policy`. "full": all products of the layers but the last one of each, whose
    result no gradient needs. "minimal": the two of every attention, which have batch axes.
    """
    if config.remat_policy == "none":
        return 0.0
    joined_kv = config.num_heads * config.head_dim
    encoder_layer = 2.0 * encoder_tokens**2 * joined_kv
    # All of T^2: half of it is ideal, but no form here leaves the other half out.
    decoder_layer = 2.0 * decoder_tokens**2 * joined_kv
    decoder_layer += 2.0 * decoder_tokens * encoder_tokens * joined_kv
    if config.remat_policy == "full":
        projection = config.emb_dim * joined_kv
        mlp = len(config.mlp_activations) * config.emb_dim * config.mlp_dim
        encoder_layer += encoder_tokens * (4 * projection + mlp)
        decoder_layer += decoder_tokens * (6 * projection + mlp) + encoder_tokens * 2 * projection
    multiply_adds = config.num_encoder_layers * encoder_layer
    multiply_adds += config.num_decoder_layers * decoder_layer
    return 2.0 * multiply_adds
