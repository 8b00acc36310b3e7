"""Log-likelihoods of target tokens, and the training loss, from logits.

Pure functions, all in float32 whatever the logits' dtype. Token 0 is padding.

Shape suffixes: B batch, L target length, V vocab_size.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

PAD_ID = 0


def shift_right(targets_BxL: jax.Array, segment_ids_BxL: jax.Array | None = None) -> jax.Array:
    """Returns the decoder's inputs (B, L): the targets one step later, behind the start id 0.

    With segment ids, every packed example starts with 0 instead of its predecessor's
    end-of-sequence, as in seqio's feature converter.
    """
    shifted_BxL = jnp.pad(targets_BxL, ((0, 0), (1, 0)))[:, :-1]
    if segment_ids_BxL is None:
        return shifted_BxL
    previous_BxL = jnp.pad(segment_ids_BxL, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(segment_ids_BxL == previous_BxL, shifted_BxL, PAD_ID)


def _log_likelihood_and_log_z(
    logits_BxLxV: jax.Array, targets_BxL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the targets' log-probabilities and the log of the softmax's denominator.

    The target's logit is picked by comparing, not by gathering: along a vocabulary that is
    sharded over devices a comparison stays local, and no (B, L, V) log-softmax is stored.
    """
    logits_BxLxV = logits_BxLxV.astype(jnp.float32)
    largest_BxLx1 = lax.stop_gradient(jnp.max(logits_BxLxV, axis=-1, keepdims=True))
    shifted_BxLxV = logits_BxLxV - largest_BxLx1
    log_sum_BxL = jnp.log(jnp.sum(jnp.exp(shifted_BxLxV), axis=-1))
    is_target_BxLxV = jnp.arange(logits_BxLxV.shape[-1]) == targets_BxL[..., None]
    target_BxL = jnp.sum(jnp.where(is_target_BxLxV, shifted_BxLxV, 0.0), axis=-1)
    return target_BxL - log_sum_BxL, log_sum_BxL + largest_BxLx1[..., 0]


def token_log_likelihoods(logits_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    """Returns log p(target) at every position, float32 (B, L), padding included."""
    return _log_likelihood_and_log_z(logits_BxLxV, targets_BxL)[0]


def sum_log_likelihood(logits_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    """Returns the sum over the non-padding targets, float32 (B,): T5X's `score_batch`."""
    real_BxL = targets_BxL != PAD_ID
    return jnp.sum(
        jnp.where(real_BxL, token_log_likelihoods(logits_BxLxV, targets_BxL), 0.0), axis=-1
    )


def mean_log_likelihood(logits_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    """Returns the mean over the non-padding targets, end-of-sequence included, float32 (B,).

    Its exponential is the likelihood p_ij of the paper's prompt uncertainty (section 3.2).
    A row of padding alone gives 0.
    """
    num_tokens_B = jnp.sum(targets_BxL != PAD_ID, axis=-1)
    return sum_log_likelihood(logits_BxLxV, targets_BxL) / jnp.maximum(num_tokens_B, 1)


def cross_entropy_loss(
    logits_BxLxV: jax.Array,
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Returns (sum of weighted losses, sum of weights), float32 scalars.

    As T5X's compute_weighted_cross_entropy (t5x/losses.py): `z_loss` times the squared
    log of the softmax's denominator is added; with `label_smoothing` the rest of the
    probability is spread over the other tokens and the smoothed targets' own entropy is
    subtracted, so that a perfect model has loss 0.
    """
    vocab_size = logits_BxLxV.shape[-1]
    log_p_BxL, log_z_BxL = _log_likelihood_and_log_z(logits_BxLxV, targets_BxL)
    loss_BxL = -log_p_BxL
    if label_smoothing:
        confidence, rest = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
        sum_log_p_BxL = jnp.sum(logits_BxLxV.astype(jnp.float32), -1) - vocab_size * log_z_BxL
        loss_BxL = -(confidence * log_p_BxL + rest * (sum_log_p_BxL - log_p_BxL))
        entropy = -(confidence * math.log(confidence) + label_smoothing * math.log(rest))
        loss_BxL = loss_BxL - entropy
    if z_loss:
        loss_BxL = loss_BxL + z_loss * lax.square(log_z_BxL)
    weights_BxL = weights_BxL.astype(jnp.float32)
    return jnp.sum(loss_BxL * weights_BxL), jnp.sum(weights_BxL)
