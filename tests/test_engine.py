"""The engine against one prompt at a time, without padding, buckets or mesh."""

import jax
import numpy as np
import pytest

from ait_jax import randomness
from ait_jax.batching import LengthBuckets
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.partitioning import Partitioner
from ait_jax.scorer.engine import Engine

BUCKETS = LengthBuckets(inputs=(8, 16), targets=(4, 8))


def tokens(length: int, *key) -> list[int]:
    return [randomness.integer(2, 64, *key, i) for i in range(length - 1)] + [1]


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        vocab_size=64, emb_dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1,
        head_dim=8, mlp_dim=32, mlp_activations=("gelu", "linear"), logits_via_embedding=True,
    )
    return Transformer(config)


@pytest.fixture(scope="module")
def params(model):
    return init_params(model, 3)[0]


@pytest.fixture(scope="module")
def prompts():
    return [tokens(randomness.integer(2, 17, "length", i), "prompt", i) for i in range(21)]


def by_hand(model, params, prompt, target) -> float:
    """Mean log-likelihood of one target in float64 NumPy, from the model's raw logits."""
    decoder_inputs = np.array([[0, *target[:-1]]])
    logits = np.asarray(
        model.apply(
            {"params": params}, np.array([prompt]), decoder_inputs, np.array([target]),
            enable_dropout=False,
        ),
        np.float64,
    )[0]
    normalizer = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return float(np.mean(logits[np.arange(len(target)), target] - normalizer))


@pytest.mark.parametrize("num_partitions", [1, 2])
def test_log_likelihoods_are_those_of_single_rows(model, params, prompts, num_partitions):
    engine = Engine(model, Partitioner(num_partitions), BUCKETS, tokens_per_batch=64)
    targets = [tokens(randomness.integer(1, 9, "t", i), "target", i) for i in range(len(prompts))]
    values = engine.log_likelihoods(engine.place(params), prompts, targets)
    expected = [by_hand(model, params, p, t) for p, t in zip(prompts, targets)]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_answers_are_the_argmax_at_every_step(model, params, prompts):
    engine = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    answers = engine.generate(engine.place(params), prompts)
    for prompt, answer in list(zip(prompts, answers))[:6]:
        assert len(answer) <= BUCKETS.max_target_length and 1 not in answer
        for step in range(min(len(answer), 3)):
            logits = model.apply(
                {"params": params}, np.array([prompt]), np.array([[0, *answer[:step]]]),
                np.ones((1, step + 1), int), enable_dropout=False,
            )
            assert int(np.argmax(logits[0, -1])) == answer[step]


def test_work_counts_real_and_padded_tokens(model, params, prompts):
    engine = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    engine.generate(engine.place(params), prompts)
    summary = engine.work.summary()
    assert summary["prompts"] == len(prompts)
    assert summary["tokens"] == sum(map(len, prompts))
    assert engine.work.padded_tokens >= summary["tokens"]
    assert 0 <= summary["padding_fraction"] < 1 and summary["tokens_per_second"] > 0
    engine.work.clear()
    assert engine.work.summary() == {} and engine.work.describe() == ""


def test_parameters_are_sharded_over_the_model_axis(model, params):
    engine = Engine(model, Partitioner(num_partitions=2), BUCKETS)
    placed = engine.place(params)
    kernel = placed["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    shapes = {shard.data.shape for shard in kernel.addressable_shards}
    assert shapes == {(1, 16, 16)} and len(jax.devices()) == 8
