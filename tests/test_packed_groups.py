"""Scoring behind shared prefixes against every prompt by itself."""

import itertools

import numpy as np
import pytest
from tiny_llama import config_of, random_params

from ait_jax import randomness
from ait_jax.batching import LengthBuckets
from ait_jax.models.llama import LlamaTransformer
from ait_jax.partitioning import Partitioner
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.packed_groups import packed

BUCKETS = LengthBuckets(inputs=(64,), targets=(8,))


def draw(length, *key):
    return [randomness.integer(2, 300, *key, i) for i in range(length)]


@pytest.fixture(scope="module")
def workload():
    """Prompts of five instructions of 18 to 42 tokens, two alone, and targets."""
    prompts, targets = [], []
    for task, instances in enumerate((9, 1, 4, 7, 1)):
        instruction = draw(18 + 6 * task, "instruction", task)
        for i in range(instances):
            length = randomness.integer(1, 21, "length", task, i)
            prompts.append(instruction + draw(length, "instance", task, i))
            targets.append([*draw(randomness.integer(0, 8, "t", task, i), "answer", task, i), 1])
    # The same prompt under two answers: all but its last token is shared.
    return [*prompts, prompts[0]], [*targets, [7, 1]]


def test_packing_loses_no_text_and_computes_little():
    lengths = (200, 180, 90, 60, 40, 30, 20, 20, 10, 5)
    width, rows = packed(lengths, (64, 128, 256, 512, 1024))
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(sum(lengths[text] for text in row) <= width for row in rows)
    assert width * len(rows) < 1.25 * sum(lengths)


@pytest.mark.parametrize(("num_partitions", "tokens_per_batch"), [(1, 4096), (2, 256)])
def test_sharing_changes_no_log_likelihood(workload, num_partitions, tokens_per_batch):
    config = config_of()
    model, params = LlamaTransformer(config), random_params(config)
    values, work = {}, {}
    for share in (True, False):
        engine = Engine(
            model, Partitioner(num_partitions), BUCKETS, tokens_per_batch, 2.0, share_prefixes=share
        )
        values[share] = engine.log_likelihoods(engine.place(params), *workload)
        work[share] = engine.work
    assert np.std(values[False]) > 0.1
    np.testing.assert_allclose(values[True], values[False], atol=1e-5)

    assert work[True].shared_tokens >= 18 * 9 + 30 * 3 + 36 * 6
    figures = work[True].summary()
    assert figures["tokens_computed"] == figures["tokens"] - work[True].shared_tokens
    assert "x fewer" in work[True].describe()
    assert work[True].flops < work[False].flops
    assert work[False].shared_tokens == 0 and "tokens_computed" not in work[False].summary()
    assert figures["tokens_computed"] <= work[True].padded_tokens
