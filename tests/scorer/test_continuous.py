"""Answers from slots that are filled anew against the plain form."""

import numpy as np
import pytest
from tiny_llama import config_of, random_params

from ait_jax import randomness
from ait_jax.models.llama import LlamaTransformer
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import continuous
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine

BUCKETS = LengthBuckets(inputs=(64,), targets=(12,))


def draw(length, *key):
    return [randomness.integer(2, 300, *key, i) for i in range(length)]


@pytest.mark.parametrize(("num_partitions", "tokens_per_batch"), [(8, 64), (4, 512)])
def test_answers_are_those_of_the_plain_form(num_partitions, tokens_per_batch, monkeypatch):
    """More groups than slots, of one or four rows, some of which never end."""
    monkeypatch.setattr(continuous, "_LEAST_ON_CPU", 0)
    prompts = [
        draw(18 + task, "instruction", task)
        + draw(randomness.integer(1, 13, "length", task, i), "instance", task, i)
        for task, instances in enumerate((4, 1, 4, 4, 1, 4))
        for i in range(instances)
    ]
    config = config_of(num_layers=1, num_heads=8, num_kv_heads=8 if num_partitions == 8 else 2)
    model, params = LlamaTransformer(config), random_params(config, 3)
    # Its logit is spread wider than others': ends come often, and at different steps.
    params["decoder"]["token_embedder"]["embedding"][1] *= 3
    found, work = {}, {}
    for share in (True, False):
        engine = Engine(
            model, Partitioner(num_partitions), BUCKETS, tokens_per_batch, 2.0,
            share_prefixes=share, in_slots=share,
        )  # fmt: skip
        found[share] = engine.decode(engine.place(params), prompts)
        work[share] = engine.work
    plain = found[False]
    lengths = set(map(len, plain.tokens))
    assert len(lengths) > 2 and max(lengths) == BUCKETS.max_target_length, "some never end"
    assert found[True].tokens == plain.tokens
    np.testing.assert_allclose(found[True].log_likelihoods, plain.log_likelihoods, atol=1e-5)
    np.testing.assert_allclose(found[True].generated, plain.generated, atol=1e-5)
    assert work[True].flops < work[False].flops and work[True].shared_tokens > 0


def test_prefixes_are_not_padded_beyond_their_slots():
    """The lengths that prompts are padded to lie closer together than those of slots."""
    prompts = [draw(245, "instruction") + draw(5, "instance", i) for i in range(2)]
    config = config_of(num_layers=1)
    params = random_params(config, 3)
    found = {}
    for share in (True, False):
        engine = Engine(
            LlamaTransformer(config), Partitioner(), LengthBuckets((320,), (4,)), 512,
            share_prefixes=share, in_slots=share,
        )  # fmt: skip
        found[share] = engine.decode(engine.place(params), prompts).tokens
    assert found[True] == found[False]
