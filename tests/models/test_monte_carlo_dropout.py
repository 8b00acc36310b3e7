"""Dropout from outside: shares, scales, and what a draw may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from tiny_llama import config_of, random_params

from ait_jax.models.layers import feature_dropout
from ait_jax.models.llama import LlamaTransformer
from ait_jax.models.monte_carlo_dropout import drawn_rows, dropping, layer_keys
from ait_jax.models.t5 import T5Config
from ait_jax.randomness import stable_hash
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine

CONFIG = T5Config(vocab_size=8)
KEYS = [stable_hash("key", i) for i in range(3)]


class _Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x, feature_dropout(CONFIG)(x, deterministic=True)


class _Layers(nn.Module):
    """A dropout, then one in each of two scanned layers."""

    @nn.compact
    def __call__(self, x):
        first = nn.Dropout(0.0)(x, deterministic=True)
        options = {"variable_axes": {"params": 0}, "split_rngs": {"dropout": True}, "length": 2}
        _, scanned = nn.scan(_Layer, **options)()(x, None)
        return jnp.stack([first, *scanned])


def dropped(rates, keys=KEYS, length=200, features=50):
    """Returns [layers, rows, length, features] of what became of ones."""
    ones = jnp.ones((len(keys), length, features))

    @jax.jit
    def apply(rows):
        with dropping(rows):
            return _Layers().apply({}, ones, rngs=layer_keys())

    return np.asarray(apply(drawn_rows(keys, rates)))


def test_shares_and_scales():
    found = dropped((0.1, 0.0, 0.5))
    for row, rate in enumerate((0.1, 0.0, 0.5)):
        values = found[:, row]
        np.testing.assert_allclose(np.unique(values[values != 0]), [1 / (1 - rate)], rtol=1e-6)
        shares = (values == 0).mean(axis=(1, 2))
        np.testing.assert_allclose(shares, rate, atol=0.02)
    # Every element by itself: over positions and features the shares are spread as by chance.
    by_feature = (found[0, 2] == 0).mean(axis=0)
    by_position = (found[0, 2] == 0).mean(axis=1)
    assert 0.3 < by_feature.min() < by_feature.max() < 0.7
    assert 0.2 < by_position.min() < by_position.max() < 0.8


def test_a_draw_is_of_the_key_the_layer_and_the_place():
    found = dropped((0.5, 0.5, 0.5)) == 0
    flat = found.reshape(9, -1).astype(float)
    assert np.abs(np.corrcoef(flat) - np.eye(9)).max() < 0.05, "rows and layers are independent"
    alone = dropped((0.5,), KEYS[2:]) == 0
    np.testing.assert_array_equal(alone[:, 0], found[:, 2])
    longer = dropped((0.5,), KEYS[2:], length=300) == 0
    np.testing.assert_array_equal(longer[:, 0, :200], found[:, 2])


def test_models_that_share_prefixes_score_under_dropout_too():
    config = config_of(num_layers=2)
    model, params = LlamaTransformer(config), random_params(config, 3)
    engine = Engine(model, Partitioner(), LengthBuckets(inputs=(16,), targets=(8,)), 256)
    placed = engine.place(params)
    prompts, targets = [[5, 6, 7 + i, 9] for i in range(4)], [[8, 3 + i, 1] for i in range(4)]
    plain = engine.log_likelihoods(placed, prompts, targets)
    keys = [stable_hash(i) for i in range(4)]
    nothing = engine.log_likelihoods(placed, prompts, targets, drawn_rows(keys, [0.0] * 4))
    np.testing.assert_allclose(nothing, plain, atol=1e-5)
    some = engine.log_likelihoods(placed, prompts, targets, drawn_rows(keys, [0.0, 0.2, 0.2, 0.2]))
    np.testing.assert_allclose(some[0], plain[0], atol=1e-5)
    assert np.abs(some - plain)[1:].min() > 1e-4
