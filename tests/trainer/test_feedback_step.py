"""The feedback step against float64 NumPy and against the expected reward itself."""

import dataclasses
from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import TINY, assert_trees_equal, model_and_params

from ait_jax.models import t5
from ait_jax.models.likelihood import shift_right
from ait_jax.trainer.feedback_step import answers_log_likelihood, leave_one_out, make_feedback_step
from ait_jax.trainer.step import StepScalars, init_state

# Plain gradient descent with rate 1 leaves the gradient in the parameters.
GRADIENT = optax.sgd(1.0)
BATCH = {
    "inputs": np.array([[5, 6, 1, 0], [7, 8, 9, 1], [9, 1, 0, 0], [4, 4, 4, 1]], np.int32),
    "targets": np.array([[11, 1, 0], [12, 13, 1], [11, 1, 0], [14, 1, 0]], np.int32),
    "answers": np.random.default_rng(0).integers(2, 64, (4, 3, 3)).astype(np.int32),
    "rewards": np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0.25], [0, 1, 1]], np.float32),
}
BATCH["answers"][0, 0] = [11, 1, 0]
BATCH["answers"][2, 1] = [1, 0, 0]


@cache
def compiled(config, weight, **options):
    model = t5.Transformer(config)
    return jax.jit(
        make_feedback_step(model, lambda _: GRADIENT, supervised_weight=weight, **options)
    )


def step(batch=BATCH, config=TINY, weight=0.5, seed=7, **options):
    _, params = model_and_params(config)
    function = compiled(config, weight, **options)
    state, metrics = function(
        init_state(params, GRADIENT), batch, StepScalars(np.uint32(seed), np.float32(1))
    )
    gradient = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, state.params)
    return gradient, jax.tree.map(float, metrics)


def log_probabilities(params, prompts, targets):
    """float64 [rows, length]: log-probabilities of the targets, 0 behind their ends."""
    forward = jax.jit(lambda *args: t5.Transformer(TINY).apply(*args, enable_dropout=False))
    logits = forward({"params": params}, prompts, shift_right(targets), targets)
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, targets[..., None], -1)[..., 0] * (targets > 0)


def test_leave_one_out_by_hand():
    advantages = leave_one_out(BATCH["rewards"])
    expected = [[1, -0.5, -0.5], [0, 0, 0], [-0.125, -0.125, 0.25], [-1, 0.5, 0.5]]
    np.testing.assert_allclose(advantages, expected)


def test_losses_and_metrics_against_float64():
    _, params = model_and_params()
    _, metrics = step()
    policy = 0.0
    for s in range(3):
        log_p = log_probabilities(params, BATCH["inputs"], BATCH["answers"][:, s]).sum(-1)
        for b in range(4):
            others = [BATCH["rewards"][b, o] for o in range(3) if o != s]
            policy -= (BATCH["rewards"][b, s] - np.mean(others)) * log_p[b] / 12
    log_p = log_probabilities(params, BATCH["inputs"], BATCH["targets"])
    supervised = -log_p.sum() / 9
    assert metrics["policy_loss"] == pytest.approx(policy, abs=1e-5)
    assert metrics["supervised_loss"] == pytest.approx(supervised, rel=1e-5)
    assert metrics["loss"] == pytest.approx(policy + 0.5 * supervised, rel=1e-5)
    assert metrics["tokens"] == 9 and metrics["reward"] == pytest.approx(BATCH["rewards"].mean())
    assert metrics["right"] == pytest.approx(6 / 12)
    assert metrics["advantage"] == pytest.approx((2 + 0 + 0.5 + 2) / 12)
    assert metrics["answer_tokens"] == pytest.approx((36 - 1 - 2) / 12)


def test_the_gradient_is_that_of_a_loss_written_out():
    gradient, _ = step()
    model, params = model_and_params()
    advantages = np.array([[1, -0.5, -0.5], [0, 0, 0], [-0.125, -0.125, 0.25], [-1, 0.5, 0.5]])

    def loss(params):
        def log_p(prompts, targets):
            logits = model.apply(
                {"params": params}, prompts, shift_right(targets), targets, enable_dropout=False
            )
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
            return jnp.where(targets > 0, chosen[..., 0], 0.0)

        total = 0.0
        for s in range(3):
            answers = log_p(BATCH["inputs"], BATCH["answers"][:, s]).sum(-1)
            total -= (advantages[:, s] * answers).sum() / 12
        return total - 0.5 * log_p(BATCH["inputs"], BATCH["targets"]).sum() / 9

    assert_trees_equal(gradient, jax.jit(jax.grad(loss))(params), atol=1e-6)


def test_the_expected_gradient_is_that_of_the_expected_reward():
    """Over all pairs of answers of one token, weighted by their probabilities."""
    model, params = model_and_params(dataclasses.replace(TINY, vocab_size=5))
    prompt = np.array([[3, 4, 1]], np.int32)
    rewards = np.array([0.2, 1.0, 0.0, 0.6])
    tokens = np.arange(1, 5, dtype=np.int32)  # token 0 is padding, never an answer

    def log_p(params):
        return answers_log_likelihood(model, params, prompt, tokens.reshape(1, 4, 1))[0]

    def expected_reward(params):
        return jnp.sum(jax.nn.softmax(log_p(params)) * rewards)

    p = np.asarray(jax.nn.softmax(jax.jit(log_p)(params)), np.float64)

    def expected_loss(params):
        total, values = 0.0, log_p(params)
        for i, j in product(range(4), repeat=2):
            advantages = leave_one_out(jnp.array([[rewards[i], rewards[j]]]))[0]
            pair = values[jnp.array([i, j])]
            total -= p[i] * p[j] * jnp.sum(advantages * pair) / 2
        return total

    ours, wanted = (
        jax.jit(jax.grad(expected_loss))(params),
        jax.jit(jax.grad(expected_reward))(params),
    )
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted)) > 1e-3
    assert_trees_equal(ours, jax.tree.map(jnp.negative, wanted), atol=1e-6)


def test_equal_rewards_teach_by_supervision_alone():
    same = {**BATCH, "rewards": np.ones((4, 3), np.float32)}
    gradient, metrics = step(same)
    assert metrics["policy_loss"] == 0.0 == metrics["advantage"]
    other, _ = step({**same, "answers": BATCH["answers"][:, ::-1]})
    assert_trees_equal(other, gradient, atol=1e-7)
    assert metrics["loss"] == pytest.approx(0.5 * metrics["supervised_loss"])


def test_accumulation_equals_one_large_batch():
    gradient, metrics = step()
    parts, others = step(num_microbatches=2)
    assert_trees_equal(parts, gradient, atol=1e-6)
    for name, value in metrics.items():
        assert others[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_dropout_is_in_the_supervised_term_alone():
    dropping = dataclasses.replace(TINY, dropout_rate=0.3)
    (_, one), (_, two) = step(config=dropping, seed=1), step(config=dropping, seed=2)
    assert (
        one["policy_loss"]
        == two["policy_loss"]
        == pytest.approx(step()[1]["policy_loss"], rel=1e-6)
    )
    assert one["supervised_loss"] != two["supervised_loss"]
