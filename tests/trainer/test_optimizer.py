"""Optimizers against their papers' formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ait_jax.errors import UserError
from ait_jax.trainer.optimizer import (
    CosineOfTraining,
    adafactor,
    adamw,
    constant_with_warmup,
    cosine_with_warmup,
    logarithmic_warmup,
    rates_over,
    scaled,
    schedule_over,
)


def gradients(step):
    generator = np.random.default_rng(step)
    # The second step exceeds the clipping norm, the others stay below it.
    scale = 3.0 if step == 1 else 0.1
    return {"w": generator.normal(size=(3, 2)) * scale, "b": generator.normal(size=2) * scale}


def updated(optimizer, params, steps=3):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = optimizer.init(params)
    for step in range(steps):
        grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradients(step))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


PARAMS = {"w": np.arange(6.0).reshape(3, 2) / 7, "b": np.array([-1.0, 2.0])}


@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
def test_adamw_against_float64(clip_norm):
    rate, b1, b2, eps, decay = 0.1, 0.9, 0.98, 1e-8, 0.03
    optimizer = adamw(constant_with_warmup(rate, 2), b2=b2, weight_decay=decay, clip_norm=clip_norm)
    params = {name: value.copy() for name, value in PARAMS.items()}
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}
    for step in range(3):
        grads = gradients(step)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        if clip_norm and norm > clip_norm:
            grads = {name: g * clip_norm / norm for name, g in grads.items()}
        for name, g in grads.items():
            first[name] = b1 * first[name] + (1 - b1) * g
            second[name] = b2 * second[name] + (1 - b2) * g**2
            m = first[name] / (1 - b1 ** (step + 1))
            v = second[name] / (1 - b2 ** (step + 1))
            learning_rate = rate * min(step / 2, 1)
            params[name] -= learning_rate * (m / (np.sqrt(v) + eps) + decay * params[name])
    result = updated(optimizer, PARAMS)
    for name, expected in params.items():
        np.testing.assert_allclose(result[name], expected, atol=1e-6)
        assert np.abs(expected - PARAMS[name]).max() > 0.05


def test_adafactor_against_float64():
    """Shazeer and Stern 2018, algorithm 4 with factored moments, relative steps, no momentum."""
    rate = 0.1
    optimizer = adafactor(lambda step: rate, min_dim_size_to_factor=2)
    w = PARAMS["w"].copy()
    row, column = np.zeros(3), np.zeros(2)
    for step in range(3):
        g = gradients(step)["w"]
        decay = 1 - (step + 1) ** -0.8
        square = g**2 + 1e-30
        row = decay * row + (1 - decay) * square.mean(1)
        column = decay * column + (1 - decay) * square.mean(0)
        update = g / np.sqrt(np.outer(row, column) / row.mean())
        update /= max(1.0, np.sqrt((update**2).mean()))
        w -= rate * max(1e-3, np.sqrt((w**2).mean())) * update
    np.testing.assert_allclose(updated(optimizer, PARAMS)["w"], w, atol=1e-5)
    assert np.abs(w - PARAMS["w"]).max() > 0.02


def test_logarithmic_warmup_against_float64():
    """DeepSpeed's WarmupLR: log(s + 1) / log(W) of the peak below step W, then the peak."""
    rate, steps = 5e-5, 50
    schedule = jax.jit(logarithmic_warmup(rate, steps))
    for step in range(120):
        expected = rate * (math.log(step + 1) / math.log(steps) if step < steps else 1.0)
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert float(schedule(10)) == pytest.approx(3.065e-5, rel=1e-3)  # a linear rise has 1.0e-5
    assert float(logarithmic_warmup(rate, 0)(1)) == pytest.approx(rate)  # as if W were 2


def test_constant_with_warmup():
    schedule = constant_with_warmup(5e-5, 50)
    assert [float(schedule(s)) for s in (0, 25, 50, 4000)] == pytest.approx([0, 2.5e-5, 5e-5, 5e-5])
    assert float(constant_with_warmup(5e-5, 0)(0)) == pytest.approx(5e-5)


def test_cosine_with_warmup():
    schedule = cosine_with_warmup(1.0, 110, warmup_steps=10, final_fraction=0.2)
    assert [float(schedule(s)) for s in (0, 5, 10, 60, 110, 500)] == pytest.approx(
        [0, 0.5, 1.0, 0.6, 0.2, 0.2], abs=1e-6
    )


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(UserError, match=r"= 300 must be below total_steps \(TRAIN_STEPS\) = 4"):
        cosine_with_warmup(0.1, total_steps=4, warmup_steps=300)


@pytest.mark.parametrize("steps", [12, 375])
def test_a_cosine_over_a_trainings_own_steps(steps):
    # transformers' get_cosine_schedule_with_warmup, with ceil(steps * warmup_ratio) steps.
    warmup = math.ceil(steps * 0.03)
    expected = [
        step / warmup
        if step < warmup
        else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        for step in range(steps)
    ]
    cosine = CosineOfTraining(2e-5, 0.03)
    schedule = schedule_over(cosine, steps)
    np.testing.assert_allclose(
        [schedule(s) for s in range(steps)], 2e-5 * np.array(expected), atol=1e-11
    )
    half = schedule_over(scaled(cosine, 0.5), steps)
    np.testing.assert_allclose(half(steps // 2), schedule(steps // 2) / 2, rtol=1e-6)
    constant = constant_with_warmup(1e-3, 2)
    assert schedule_over(constant, steps) is constant
    rates = rates_over(cosine, steps)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, 2e-5 * np.array(expected), atol=1e-11)
    assert rates_over(constant_with_warmup(1e-3, 0), 3).tolist() == [np.float32(1e-3)] * 3
    with pytest.raises(UserError, match="WARMUP_FRACTION.* = 1 must be"):
        CosineOfTraining(warmup_fraction=1)
