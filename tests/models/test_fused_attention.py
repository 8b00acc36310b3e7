"""The fused kernel, interpreted, against the plain form: results and all gradients."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ait_jax.models import attention, attention_kernels, fused_attention, parameters, t5
from ait_jax.models.attention import Seen, by_pairs
from ait_jax.models.likelihood import shift_right
from ait_jax.runtime.partitioning import Partitioner

CONFIG = t5.T5Config(
    vocab_size=128,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=64,
    mlp_activations=("gelu", "linear"),
    attention_kernel="plain",
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 queries and two heads, so that short rows have several."""
    for name in ("ROWS", "LANES"):
        monkeypatch.setattr(attention_kernels, name, 16)
    monkeypatch.setattr(fused_attention, "_FEWEST_QUERIES", 1)


def segments(rng, batch, length):
    """Three texts and padding in every row but the last one, which is padding alone."""
    numbers = np.sort(rng.integers(1, 4, (batch, length)), axis=1)
    padded = np.arange(length) >= rng.integers(length // 2, length + 1, batch)[:, None]
    padded[-1] = True
    return np.where(padded, 0, numbers).astype(np.int32)


def case(queries, keys, *, batch=3, heads=4, head_dim=8, causal=False, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = [(batch, length, heads, head_dim) for length in (queries, keys, keys, queries)]
    query, key, value, gradient = (jnp.asarray(rng.normal(size=s), dtype) for s in shapes)
    by_distance = None
    if queries == keys:
        by_distance = jnp.asarray(rng.normal(size=(heads, 2 * keys - 1)), jnp.float32)
    of_queries = segments(rng, batch, queries)
    of_keys = of_queries if queries == keys else segments(rng, batch, keys)
    inputs = (query / head_dim**0.5, key, value, by_distance)
    return inputs, Seen(jnp.asarray(of_queries), jnp.asarray(of_keys), causal), gradient


def plain(query, key, value, by_distance, seen):
    bias = None if by_distance is None else by_pairs(by_distance)[None]
    return attention.dot_product_attention(query, key, value, bias, seen.mask())


def with_gradients(attend, inputs, seen, gradient):
    def both(inputs):
        attended, backward = jax.vjp(lambda *inputs: attend(*inputs, seen), *inputs)
        return [attended, *backward(gradient)]

    return [x for x in jax.jit(both)(inputs) if x is not None]


def check(inputs, seen, gradient, atol=1e-5):
    ours = with_gradients(fused_attention.fused_attention, inputs, seen, gradient)
    reference = with_gradients(plain, inputs, seen, gradient)
    assert len(ours) == len(reference)
    for own, wanted in zip(ours, reference, strict=True):
        assert own.dtype == wanted.dtype
        np.testing.assert_allclose(
            np.asarray(own, np.float32), np.asarray(wanted, np.float32), atol=atol
        )


@pytest.mark.parametrize(
    "queries, keys, causal",
    [(32, 32, True), (37, 37, True), (37, 37, False), (20, 45, False), (45, 16, False)],
)
def test_results_and_gradients(small_blocks, queries, keys, causal):
    check(*case(queries, keys, causal=causal))


def test_blocks_of_a_tpu():
    check(*case(150, 150, batch=2, heads=2, head_dim=64, causal=True))


def test_bfloat16(small_blocks):
    check(*case(37, 37, dtype=jnp.bfloat16), atol=0.1)


def test_what_causal_rows_see_of_padding_keys(small_blocks):
    inputs, seen, gradient = case(37, 37)
    ones = jnp.ones_like(seen.query_segments_BxQ)
    check(inputs, Seen(ones, seen.key_segments_BxK, causal=True), gradient)


@pytest.mark.parametrize(
    "devices, num_partitions, batch", [(1, 1, 4), (2, 1, 4), (2, 2, 4), (2, 1, 3)]
)
def test_a_mesh(small_blocks, devices, num_partitions, batch):
    class Few(Partitioner):
        devices = property(lambda self: jax.devices()[:count])

    count = devices
    inputs, seen, gradient = case(20, 20, batch=batch, causal=True)
    with Few(num_partitions=num_partitions).activate():
        check(inputs, seen, gradient)


def test_which_sizes_suit():
    def suits(queries, keys, heads, head_dim):
        shapes = ((2, length, heads, head_dim) for length in (queries, keys))
        return fused_attention.suits(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))

    assert suits(1024, 1024, 64, 64) and suits(128, 1000, 6, 64) and suits(64, 64, 12, 128)
    assert not suits(32, 1024, 64, 64)  # too few queries
    assert not suits(1024, 4096, 64, 64)  # too many keys
    assert not suits(1024, 1024, 9, 64)  # nine heads together do not fit


# --- T5 ---


@pytest.fixture(scope="module")
def packed():
    """Two texts a row, their prompts and targets: (arguments, segment ids)."""
    rng = np.random.default_rng(3)
    prompts, targets = (rng.integers(2, 128, (2, n)).astype(np.int32) for n in (40, 18))
    of_prompts, of_targets = np.repeat([1, 2, 0], [16, 20, 4]), np.repeat([1, 2, 0], [6, 9, 3])
    of_prompts, of_targets = (np.stack([x, x]).astype(np.int32) for x in (of_prompts, of_targets))
    prompts, targets = prompts * (of_prompts > 0), targets * (of_targets > 0)
    arguments = (prompts, shift_right(targets, of_targets), targets)
    return arguments, {"encoder_segment_ids": of_prompts, "decoder_segment_ids": of_targets}


@pytest.mark.parametrize(
    "is_packed, dropout_rate, changes",
    [(True, 0.0, {"scan_layers": True, "remat_policy": "full"}), (False, 0.5, {})],
)
def test_a_t5_trains_as_with_the_plain_form(small_blocks, packed, is_packed, dropout_rate, changes):
    (prompts, shifted, targets), ids = packed
    config = dataclasses.replace(CONFIG, dropout_rate=dropout_rate, **changes)
    params = parameters.init_params(t5.Transformer(config), 4)[0]

    def gradients(kernel):
        model = t5.Transformer(dataclasses.replace(config, attention_kernel=kernel))

        def loss(params):
            logits = model.apply(
                {"params": params},
                prompts,
                shifted,
                targets,
                enable_dropout=dropout_rate > 0,
                rngs={"dropout": jax.random.key(5)},
                **(ids if is_packed else {}),
            )
            log_p = jax.nn.log_softmax(logits)
            picked = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
            return -jnp.mean(jnp.where(targets > 0, picked, 0.0))

        return jax.jit(jax.value_and_grad(loss))(params)

    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-5), gradients("fused"), gradients("plain")
    )


def test_every_platform_has_one_form():
    config = dataclasses.replace(CONFIG, attention_kernel="auto")
    chosen = {name: config.for_scoring(name).attention_kernel for name in ("cpu", "gpu", "tpu")}
    assert chosen == {"cpu": "blocked", "gpu": "plain", "tpu": "fused"}
    assert CONFIG.for_scoring("tpu").attention_kernel == "plain"  # as asked
    assert config.kernel == "plain"  # training on a CPU


# --- for TPUs that nobody holds ---


@pytest.mark.parametrize(
    "topology, queries, keys, heads, head_dim, dtype",
    [
        ("v4:2x2x1", 1280, 1280, 2, 64, jnp.float32),  # the least vector memory
        ("v5e:2x2", 1280, 1280, 2, 128, jnp.float32),
        ("v5e:2x2", 100, 520, 6, 64, jnp.bfloat16),
        ("v6e:2x2", 368, 368, 6, 64, jnp.bfloat16),
    ],
)
def test_mosaic_compiles_both_passes(topology, queries, keys, heads, head_dim, dtype):
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'ait-jax[plan]'")
    from ait_jax.plan.topology import PlannedPartitioner, devices_of

    partitioner = PlannedPartitioner(1, given_devices=devices_of(topology)[:1])
    inputs, seen, gradient = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=partitioner.replicated),
        case(queries, keys, heads=heads, head_dim=head_dim, causal=queries == keys, dtype=dtype),
    )

    def both(inputs, seen, gradient):
        attend = fused_attention.fused_attention
        attended, backward = jax.vjp(lambda *inputs: attend(*inputs, seen), *inputs)
        return attended, backward(gradient)

    with partitioner.activate():
        assert fused_attention.suits(*inputs[:2])
        text = jax.jit(both).lower(inputs, seen, gradient).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
