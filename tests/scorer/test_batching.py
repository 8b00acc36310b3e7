"""Rows to padded batches of a few shapes."""

import itertools

import numpy as np
import pytest

from ait_jax.errors import UserError
from ait_jax.scorer.batching import (
    LengthBuckets,
    batches_by_length,
    finer_lengths,
    pad_rows,
    padded_length,
    rows_per_batch,
)


def test_padded_length():
    assert [padded_length(n, (4, 8, 16)) for n in (0, 1, 4, 5, 16)] == [4, 4, 4, 8, 16]
    with pytest.raises(ValueError, match="17 tokens exceed the longest bucket of 16"):
        padded_length(17, (4, 8, 16))


def test_pad_rows():
    padded = pad_rows([[5, 6], [], np.array([7, 8, 9])], 4)
    assert padded.dtype == np.int32
    np.testing.assert_array_equal(padded, [[5, 6, 0, 0], [0, 0, 0, 0], [7, 8, 9, 0]])


def test_collate_takes_the_smallest_pair_of_buckets():
    buckets = LengthBuckets(inputs=(4, 8), targets=(2, 6))
    batch = buckets.collate([([1] * 3, [2]), ([1] * 5, [2, 2])])
    assert batch["inputs"].shape == (2, 8) and batch["targets"].shape == (2, 2)
    np.testing.assert_array_equal(batch["inputs"][0], [1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch["targets"], [[2, 0], [2, 2]])
    assert buckets.max_source_length == 8 and buckets.max_target_length == 6


@pytest.mark.parametrize("lengths", [(), (8, 4), (4, 4), (0, 4)])
@pytest.mark.parametrize("side", ["inputs", "targets"])
def test_wrong_buckets_are_named(side, lengths):
    with pytest.raises(
        UserError, match=f"LengthBuckets.{side} = .* give ascending positive lengths"
    ):
        LengthBuckets(**{side: lengths})


def test_rows_per_batch():
    assert rows_per_batch(256, 16384, 1) == 64
    assert rows_per_batch(300, 16384, 1) == 54
    assert rows_per_batch(300, 16384, 8) == 48
    assert rows_per_batch(1024, 100, 6) == 6


def test_finer_lengths_grow_by_the_given_factor():
    lengths = finer_lengths((64, 1000), 1.1)
    assert lengths[-1] == 1000 and lengths[0] == 8
    assert all(length % 8 == 0 for length in lengths)
    assert all(b - a == 8 or b <= 1.1 * a for a, b in itertools.pairwise(lengths))
    assert finer_lengths((5,), 2.0) == (5,)
    assert finer_lengths((16, 64, 128), 2.0) == (8, 16, 32, 64, 128)


def test_leftover_rows_are_joined_by_rows_with_shorter_targets():
    shapes = [(8, 2), (4, 2), (8, 2), (8, 4), *[(4, 2)] * 9]
    batches = list(batches_by_length(shapes, tokens_per_batch=32, multiple_of=4))
    assert batches == [
        ((8, 4), [3, 0, 2, 1]),
        ((4, 2), [4, 5, 6, 7, 8, 9, 10, 11]),
        # Half a batch holds the one that is left.
        ((4, 2), [12] * 4),
    ]
    assert not list(batches_by_length([], 32, 4))


def test_few_rows_of_spread_lengths_make_smaller_batches():
    shapes = [(64,), *[(16,)] * 15]
    batches = list(batches_by_length(shapes, tokens_per_batch=1024, multiple_of=2))
    # 16 rows of 64 would be 70% padding, 8 rows 66%, and 2 rows are below a quarter of the budget.
    assert [(shape, len(rows)) for shape, rows in batches] == [((64,), 4), ((16,), 16)]
    assert list(batches_by_length([(64,)] * 16, 1024, 2)) == [((64,), list(range(16)))]


def test_real_lengths_waste_at_most_a_twentieth():
    # Log-normal with NIV2's mean of 300 tokens: a chunk of 4,096 prompts.
    rng = np.random.default_rng(0)
    real = np.clip(rng.lognormal(5.5, 0.65, 4096), 20, 1024).astype(int).tolist()
    lengths = finer_lengths((128, 1024), 1.06)
    shapes = [(padded_length(n, lengths), 16) for n in real]
    batches = batches_by_length(shapes, tokens_per_batch=8192, multiple_of=1)
    padded = sum(length * len(rows) for (length, _), rows in batches)
    assert 1 - sum(real) / padded < 0.05


def test_no_row_is_lost_or_cut():
    lengths = [1 + i * i % 61 for i in range(200)]
    shapes = [(padded_length(n, (8, 16, 32, 64)),) for n in lengths]
    seen = []
    for (length,), rows in batches_by_length(shapes, tokens_per_batch=256, multiple_of=8):
        assert rows_per_batch(length, 256, 8) // len(rows) in (1, 2, 4) and len(rows) % 8 == 0
        assert all(shapes[row][0] <= length for row in rows)
        seen += sorted(set(rows))
    assert sorted(seen) == list(range(200))
