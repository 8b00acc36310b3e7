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


def test_against_float64(case):
    logits, targets = case
    tokens = np.take_along_axis(log_softmax64(logits), targets[..., None], -1)[..., 0]
    ours = likelihood.token_log_likelihoods(logits, targets)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, tokens, atol=2e-6)
    sums = likelihood.sum_log_likelihood(logits, targets)
    np.testing.assert_allclose(sums[:2], [tokens[0, :3].sum(), tokens[1].sum()], atol=1e-5)
    assert sums[2] == 0.0


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


@pytest.mark.parametrize("vocab_axis", [0, 1])
@pytest.mark.parametrize("block_elements", [1, 256 * 12, 300 * 12, 2**20])
def test_fused_projection_equals_the_plain_one(vocab_axis, block_elements, monkeypatch):
    monkeypatch.setitem(likelihood._BLOCK_ELEMENTS, "cpu", block_elements)
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(3, 4, 16)).astype(np.float32)
    kernel = rng.normal(size=(16, 1000)).astype(np.float32)
    targets = rng.integers(1, 1000, (3, 4))
    targets[1, 2:] = targets[2] = 0
    output = likelihood.OutputLayer(kernel if vocab_axis else kernel.T, vocab_axis, scale=0.5)
    tokens = log_softmax64(0.5 * hidden @ kernel)
    tokens = np.take_along_axis(tokens, targets[..., None], -1)[..., 0]
    expected = [tokens[0].mean(), tokens[1, :2].mean(), 0.0]
    hidden = jnp.asarray(hidden)
    fused = likelihood.fused_mean_log_likelihood(hidden, output, targets)
    np.testing.assert_allclose(fused, expected, atol=2e-6)
    np.testing.assert_allclose(
        likelihood.logits_of(hidden, output), 0.5 * hidden @ kernel, atol=1e-5
    )


def test_fused_projection_never_holds_all_logits(monkeypatch):
    monkeypatch.setitem(likelihood._BLOCK_ELEMENTS, "cpu", 2**18)
    hidden, kernel = np.zeros((64, 16, 8), np.float32), np.zeros((8, 4096), np.float32)
    output = likelihood.OutputLayer(kernel, 1, 1.0)
    compiled = (
        jax.jit(lambda h, t: likelihood.fused_mean_log_likelihood(h, output, t))
        .lower(hidden, np.ones((64, 16), np.int32))
        .compile()
    )
    all_logits = 64 * 16 * 4096 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < all_logits / 4


@pytest.mark.parametrize("vocab_axis", [0, 1])
@pytest.mark.parametrize("elements", [1, 3 * 3 * 40, 2**20])
def test_fused_loss_has_the_plain_ones_value_and_gradients(vocab_axis, elements, monkeypatch):
    monkeypatch.setitem(likelihood._LOSS_ELEMENTS, "cpu", elements)
    rng = np.random.default_rng(2)
    hidden = jnp.asarray(rng.normal(size=(3, 7, 8)).astype(np.float32))
    kernel = jnp.asarray(rng.normal(size=(8, 40) if vocab_axis else (40, 8)).astype(np.float32))
    targets = rng.integers(1, 40, (3, 7))
    targets[1, 2:] = targets[2] = 0
    weights = (targets > 0).astype(np.float32)

    def fused(hidden, kernel):
        output = likelihood.OutputLayer(kernel, vocab_axis, 0.5)
        loss = likelihood.fused_cross_entropy_loss(hidden, output, targets, weights, 1e-2, 0.1)
        return 3 * loss[0], loss[1]

    def plain(hidden, kernel):
        logits = likelihood.logits_of(hidden, likelihood.OutputLayer(kernel, vocab_axis, 0.5))
        loss, _ = likelihood.cross_entropy_loss(logits, targets, weights, 1e-2, 0.1)
        return 3 * loss, jnp.sum((jnp.argmax(logits, -1) == targets) * weights)

    for asked in ((0, 1), 0, 1):
        ours, theirs = (
            jax.jit(jax.value_and_grad(f, asked, has_aux=True))(hidden, kernel)
            for f in (fused, plain)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)
    np.testing.assert_allclose(fused(hidden, kernel), plain(hidden, kernel), rtol=1e-6)


def test_fused_loss_never_holds_all_logits(monkeypatch):
    monkeypatch.setitem(likelihood._LOSS_ELEMENTS, "cpu", 2**18)
    hidden, kernel = np.zeros((16, 64, 8), np.float32), np.zeros((8, 4096), np.float32)
    ids = np.ones((16, 64), np.int32)

    def loss(hidden, kernel):
        output = likelihood.OutputLayer(kernel, 1, 1.0)
        return likelihood.fused_cross_entropy_loss(hidden, output, ids, ids)[0]

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, kernel).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 64 * 4096 * 4 / 4
