"""The cheaper forms of attention against the plain one and against float64 NumPy."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ait_jax.models import attention, parameters, recomputed_attention, t5
from ait_jax.models.likelihood import shift_right
from ait_jax.runtime.partitioning import Partitioner

CONFIG = t5.T5Config(
    vocab_size=128,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    mlp_activations=("gelu", "linear"),
)
FAST = dataclasses.replace(CONFIG, attention_kernel="blocked", absorb_cross_attention=True)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(6, n, 4, 8)).astype(np.float32) for n in (5, 9, 9))
    bias = rng.normal(size=(1, 4, 5, 9)).astype(np.float32)
    mask = np.arange(9) < rng.integers(1, 10, 6)[:, None]
    return tuple(jnp.asarray(x) for x in (query, key, value, bias, mask[:, None, None, :]))


def float64(query, key, value, bias, mask):
    logits = np.einsum("bqhd,bkhd->bhqk", np.asarray(query, np.float64), key) + bias
    weights = np.where(mask, np.exp(logits), 0.0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    return np.einsum("bhqk,bkhd->bqhd", weights, value)


@pytest.mark.parametrize("elements", [1, 2 * 4 * 5 * 9, 2**20])
def test_blocked_attention(case, elements, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", elements)
    blocked = jax.jit(attention.blocked_attention)(*case)
    np.testing.assert_allclose(blocked, attention.dot_product_attention(*case), atol=1e-6)
    np.testing.assert_allclose(blocked, float64(*case), atol=1e-6)


def test_blocks_of_a_sharded_batch_stay_in_their_shard(case, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 1)
    query, key, value, bias, mask = case
    arrays = [np.concatenate([x] * 4) for x in (query, key, value, mask)]
    partitioner = Partitioner(num_partitions=1)
    with partitioner.activate():
        placed = partitioner.shard_batch(arrays)
        rows = partitioner.batch_sharding
        compiled = (
            jax.jit(
                lambda q, k, v, m: attention.blocked_attention(q, k, v, bias, m),
                out_shardings=rows,
            )
            .lower(*placed)
            .compile()
        )
    query, key, value, mask = map(jnp.asarray, arrays)
    plain = attention.dot_product_attention(query, key, value, bias, mask)
    np.testing.assert_allclose(compiled(*placed), plain, atol=1e-6)
    text = compiled.as_text()
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("logits", [1, 30, 2**20])
def test_recomputed_attention_and_its_gradients(logits, causal, has_bias, monkeypatch):
    monkeypatch.setattr(recomputed_attention, "_BLOCK_LOGITS", logits)
    rng = np.random.default_rng(4)
    keys = 9 if has_bias or causal else 13
    query, key, value, weights = (
        jnp.asarray(rng.normal(size=(3, n, 4, 8)), jnp.float32) for n in (9, keys, keys, 9)
    )
    by_distance = jnp.asarray(rng.normal(size=(4, 17)), jnp.float32) if has_bias else None
    segments = jnp.asarray(rng.integers(0, 3, (3, 13)))
    seen = attention.Seen(segments[:, :9], segments[:, :keys], causal)
    # What padding attends to is not defined.
    weights = weights * (segments[:, :9, None, None] > 0)

    def results(form):
        def attend(query, key, value, by_distance):
            attended = form(query, key, value, by_distance, seen)
            return jnp.sum(attended * weights), attended * (weights != 0)

        asked = (0, 1, 2, 3) if has_bias else (0, 1, 2)
        return jax.jit(jax.grad(attend, asked, has_aux=True))(query, key, value, by_distance)

    def plain(query, key, value, by_distance, seen):
        bias = None if by_distance is None else attention.by_pairs(by_distance)[None]
        return attention.dot_product_attention(query, key, value, bias, seen.mask())

    ours = results(recomputed_attention.recomputed_attention)
    theirs = results(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
    bias = 0.0
    if has_bias:
        at = np.arange(9) - np.arange(9)[:, None] + 8
        bias = np.asarray(by_distance)[:, at]
    expected = float64(query, key, value, bias, np.asarray(seen.mask()))
    real = np.asarray(segments)[:, :9] > 0
    np.testing.assert_allclose(np.asarray(ours[1])[real], expected[real], atol=1e-6)


def test_dropping_keys_is_dropping_weights(case):
    query, key, value, bias, mask = case
    rng, rate = jax.random.key(1), 0.4
    kept = np.asarray(jax.random.bernoulli(rng, 1 - rate, (6, 4, 1, 9)))
    dropped = attention.dropped_keys(value, rng, rate)
    attended = attention.dot_product_attention(query, key, dropped, bias, mask)
    logits = np.einsum("bqhd,bkhd->bhqk", np.asarray(query, np.float64), key) + bias
    weights = np.where(mask, np.exp(logits), 0.0)
    weights = weights / weights.sum(-1, keepdims=True) * kept / (1 - rate)
    np.testing.assert_allclose(attended, np.einsum("bhqk,bkhd->bqhd", weights, value), atol=1e-6)


def test_step_attention(case):
    query, key, value, bias, mask = case
    one = query[:, :1], key, value, bias[:, :, :1], mask
    kept = [jnp.moveaxis(x, 1, -1) for x in (key, value)]
    stepped = jax.jit(attention.step_attention)(query[:, :1], *kept, bias[:, :, :1], mask)
    np.testing.assert_allclose(stepped, attention.dot_product_attention(*one), atol=1e-6)
    np.testing.assert_allclose(stepped, float64(*one), atol=1e-6)


@pytest.mark.parametrize("blocked", [False, True])
def test_absorbed_cross_attention(case, blocked, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 1)
    query, _, _, _, mask = case
    rng = np.random.default_rng(1)
    encoded = rng.normal(size=(6, 9, 32)).astype(np.float32)
    key_kernel, value_kernel = rng.normal(size=(2, 32, 4, 8)).astype(np.float32) * 0.2
    key, value = (np.einsum("bke,ehd->bkhd", encoded, w) for w in (key_kernel, value_kernel))
    absorb = jax.jit(partial(attention.absorbed_cross_attention, blocked=blocked))
    absorbed = absorb(query, encoded, key_kernel, value_kernel, mask)
    np.testing.assert_allclose(absorbed, float64(query, key, value, 0.0, mask), atol=5e-6)


def test_absorbing_is_for_short_answers():
    assert attention.absorbing_is_cheaper(8, 300, 512, 6, 64)
    assert not attention.absorbing_is_cheaper(64, 300, 512, 6, 64)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_fast_forms_give_the_same_logits(scan_layers):
    rng = np.random.default_rng(3)
    prompts = rng.integers(2, 128, (5, 40)).astype(np.int32)
    prompts[1, 7:] = prompts[4, 1:] = 0
    targets = rng.integers(2, 128, (5, 3)).astype(np.int32)
    targets[2, 1:] = 0
    params = parameters.init_params(t5.Transformer(CONFIG), 4)[0]

    def logits(config, params):
        forward = jax.jit(partial(t5.Transformer(config).apply, enable_dropout=False))
        return forward({"params": params}, prompts, shift_right(targets), targets)

    fast = dataclasses.replace(FAST, scan_layers=scan_layers)
    ours = logits(fast, parameters.match_layout(params, scan_layers))
    real = targets > 0
    np.testing.assert_allclose(ours[real], logits(CONFIG, params)[real], atol=1e-5)


def test_bfloat16_products_between_float32_are_nearer_to_float32():
    rng = np.random.default_rng(5)
    prompts = rng.integers(2, 128, (4, 30)).astype(np.int32)
    params = parameters.init_params(t5.Transformer(CONFIG), 4)[0]

    def encoded(**changes):
        model = t5.Transformer(dataclasses.replace(CONFIG, **changes))
        encode = partial(model.apply, enable_dropout=False, method=t5.Transformer.encode)
        return np.asarray(jax.jit(encode)({"params": params}, prompts), np.float32)

    exact = encoded()
    half = np.abs(encoded(dtype="bfloat16") - exact).mean()
    mixed = np.abs(encoded(dtype="bfloat16", intermediate_dtype="float32") - exact).mean()
    assert 0 < mixed < half < 0.05


def test_layouts_convert_both_ways():
    params = parameters.init_params(t5.Transformer(CONFIG), 0)[0]
    stacked = parameters.match_layout(params, True)
    assert stacked["encoder"]["layers"]["mlp"]["wo"]["kernel"].shape == (2, 64, 32)
    shapes = parameters.abstract_params(
        t5.Transformer(dataclasses.replace(CONFIG, scan_layers=True))
    )
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(lambda x: x.shape, shapes[0])
    axes = shapes[1]["encoder"]["layers"]["mlp"]["wo"]["kernel"]
    assert axes == ("layers", "mlp", "embed")
    back = parameters.match_layout(stacked, False)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    assert parameters.match_layout(params, False).keys() == params.keys()
    jax.tree.map(np.testing.assert_array_equal, parameters.match_layout(stacked, True), stacked)
