"""Groups of prompts in rows, and their scores against every prompt by itself."""

import numpy as np
import pytest
from tiny_llama import config_of, random_params

from ait_jax import randomness
from ait_jax.models.group_windows import BLOCK
from ait_jax.models.llama import LlamaTransformer
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.group_rows import GroupRows
from ait_jax.scorer.shared_prefixes import grouped

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


def test_every_text_is_in_one_row_and_rows_are_nearly_full(workload):
    prompts, targets = workload
    job = GroupRows(grouped(prompts), prompts, targets, most=192)
    members = [member for row in job.rows for group in row for member in group.members]
    assert sorted(members) == list(range(len(prompts)))
    lengths = [shape[0] for shape in job.shapes]
    assert set(lengths) <= {192, 128, 64} and lengths.count(192) >= len(lengths) - 1
    for number, (row, shape) in enumerate(zip(job.rows, job.shapes, strict=True)):
        arrays = (array[0] for array in job.arrays(shape, [number]))
        tokens, positions, groups, texts, begins, places, found = arrays
        asked = [member for group in row for member in group.members]
        wanted = [token for member in asked for token in targets[member]]
        assert found[: len(wanted)].tolist() == wanted and not found[len(wanted) :].any()
        # What stands before a target is the end of its prompt.
        starts = np.cumsum([0, *(len(targets[member]) for member in asked)])[:-1]
        assert tokens[places[starts]].tolist() == [prompts[member][-1] for member in asked]
        real = tokens != 0
        assert real.mean() > 0.7 or number == len(job.rows) - 1
        np.testing.assert_array_equal(groups > 0, real)
        own = [len(prompts[m]) - g.length + len(targets[m]) - 1 for g in row for m in g.members]
        assert np.bincount(texts)[1:].tolist() == own
        of_prefixes = positions[real & (texts == 0)].tolist()
        assert of_prefixes == [place for group in row for place in range(group.length)]
        first = np.arange(0, shape[0], BLOCK)
        np.testing.assert_array_equal(groups[begins], np.repeat(groups[first], 3).reshape(-1, 3))
        prefix, behind, text = begins.T
        needed = np.minimum(first + BLOCK - prefix, behind - prefix + first + BLOCK - text)
        assert needed.max() <= shape[1] <= shape[0]


def test_a_group_longer_than_a_row_is_in_several():
    prompts = [draw(40, "instruction") + draw(20, "instance", i) for i in range(12)]
    targets = [[5, 6, 1]] * 12
    job = GroupRows(grouped(prompts), prompts, targets, most=128)
    assert all(len(row) == 1 and row[0].length == 40 for row in job.rows)
    # 40 tokens and 22 for every text.
    assert [len(row[0].members) for row in job.rows] == [4, 4, 4]


# On one data shard groups stay whole; on eight and four, prefixes of 36 and 18 tokens run twice
# more.
ALL_SHARED = 18 * 9 + 30 * 3 + 36 * 6


@pytest.mark.parametrize(
    ("num_partitions", "tokens_per_batch", "shared_tokens"),
    [
        (8, 4096, ALL_SHARED),
        (1, 4096, ALL_SHARED - 2 * (36 + 18)),
        (2, 256, ALL_SHARED - 2 * (36 + 18)),
    ],
)
def test_sharing_changes_no_log_likelihood(
    workload, num_partitions, tokens_per_batch, shared_tokens
):
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

    assert work[True].shared_tokens == shared_tokens
    figures = work[True].summary()
    assert figures["tokens_computed"] == figures["tokens"] - work[True].shared_tokens
    assert "x fewer" in work[True].describe()
    assert work[True].flops < work[False].flops
    assert work[False].shared_tokens == 0 and "tokens_computed" not in work[False].summary()
    assert figures["tokens_computed"] <= work[True].padded_tokens
