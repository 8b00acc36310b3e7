"""Likelihoods and losses against T5X's numbers and float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_data import GOLDEN_T5X, needs_shared

from ait_jax.models import likelihood


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(0)
    logits = (generator.normal(size=(3, 5, 11)) * 4).astype(np.float32)
    targets = np.array([[3, 7, 1, 0, 0], [9, 9, 2, 4, 1], [0, 0, 0, 0, 0]], np.int32)
    return logits, targets


def log_softmax64(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@needs_shared
def test_sum_equals_t5x_score_batch():
    io = np.load(GOLDEN_T5X / "io.npz")
    scores = likelihood.sum_log_likelihood(io["logits"], io["decoder_target_tokens"])
    np.testing.assert_allclose(scores, io["score_batch"], atol=1e-4, rtol=0)
    means = likelihood.mean_log_likelihood(io["logits"], io["decoder_target_tokens"])
    num_tokens = io["decoder_loss_weights"].sum(-1)
    np.testing.assert_allclose(means, io["score_batch"] / num_tokens, atol=1e-5, rtol=0)


def test_against_float64(case):
    logits, targets = case
    tokens = np.take_along_axis(log_softmax64(logits), targets[..., None], -1)[..., 0]
    ours = likelihood.token_log_likelihoods(logits, targets)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, tokens, atol=2e-6)
    means = likelihood.mean_log_likelihood(logits, targets)
    np.testing.assert_allclose(means[:2], [tokens[0, :3].mean(), tokens[1].mean()], atol=2e-6)
    assert means[2] == 0.0


def test_large_logits_and_bfloat16_stay_finite(case):
    logits, targets = case
    shifted = likelihood.token_log_likelihoods(logits + 3e4, targets)
    np.testing.assert_allclose(
        shifted, likelihood.token_log_likelihoods(logits, targets), atol=2e-2
    )
    half = likelihood.token_log_likelihoods(jnp.asarray(logits, jnp.bfloat16), targets)
    assert half.dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float32)
    expected = np.take_along_axis(log_softmax64(rounded), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(half, expected, atol=2e-6)


@pytest.mark.parametrize("z_loss, smoothing", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (1e-2, 0.2)])
def test_cross_entropy_against_float64(case, z_loss, smoothing):
    logits, targets = case
    weights = (targets > 0).astype(np.float32)
    vocab_size = logits.shape[-1]
    soft = np.full(logits.shape, smoothing / (vocab_size - 1))
    np.put_along_axis(soft, targets[..., None], 1 - smoothing, -1)
    safe = np.where(soft > 0, soft, 1)
    loss = -(soft * log_softmax64(logits)).sum(-1) + (soft * np.log(safe)).sum(-1)
    loss += z_loss * np.log(np.exp(logits.astype(np.float64)).sum(-1)) ** 2
    total, weight_sum = likelihood.cross_entropy_loss(
        logits, targets, weights, z_loss=z_loss, label_smoothing=smoothing
    )
    np.testing.assert_allclose(total, (loss * weights).sum(), rtol=1e-5)
    assert weight_sum == 8


def test_cross_entropy_gradient_is_softmax_minus_target(case):
    logits, targets = case
    weights = (targets > 0).astype(np.float32)
    z_loss = 1e-2
    gradient = jax.grad(
        lambda x: likelihood.cross_entropy_loss(x, targets, weights, z_loss=z_loss)[0]
    )(logits)
    log_p = log_softmax64(logits)
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    one_hot = np.eye(logits.shape[-1])[targets]
    expected = (np.exp(log_p) * (1 + 2 * z_loss * log_z) - one_hot) * weights[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_shift_right():
    targets = np.array([[5, 6, 1, 7, 1, 0]])
    np.testing.assert_array_equal(likelihood.shift_right(targets), [[0, 5, 6, 1, 7, 1]])
    segments = np.array([[1, 1, 1, 2, 2, 0]])
    np.testing.assert_array_equal(likelihood.shift_right(targets, segments), [[0, 5, 6, 0, 7, 0]])
