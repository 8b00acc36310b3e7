"""Rows to padded batches of a few shapes."""

import numpy as np
import pytest

from ait_jax.batching import (
    LengthBuckets,
    batches_by_length,
    pad_rows,
    padded_length,
    rows_per_batch,
)
from ait_jax.errors import UserError


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
    with pytest.raises(UserError, match=f"LengthBuckets.{side} = .* must be ascending"):
        LengthBuckets(**{side: lengths})


def test_rows_per_batch():
    assert rows_per_batch(256, 16384, 1) == 64
    assert rows_per_batch(300, 16384, 1) == 32
    assert rows_per_batch(1024, 1024, 1) == 8
    assert rows_per_batch(1024, 100, 6) == 12


def test_leftover_rows_join_the_next_longer_inputs():
    shapes = [(8, 2), (4, 2), (8, 2), (8, 4), *[(4, 2)] * 9]
    batches = list(batches_by_length(shapes, tokens_per_batch=32, multiple_of=4))
    assert [shape for shape, _ in batches] == [(4, 2), (8, 2), (8, 4)]
    first, second, third = (indices for _, indices in batches)
    assert first == [1, *range(4, 11)]
    assert second == [11, 12, 0, 2, *[11] * 4], "two short rows, two long ones, filled up"
    assert third == [3] * 8
    assert sorted(set(first + second + third)) == list(range(13))
    for shape, indices in batches:
        assert all(a <= b for i in indices for a, b in zip(shapes[i], shape))
    assert not list(batches_by_length([], 32, 4))


def test_no_row_is_lost_or_cut():
    lengths = [1 + i * i % 61 for i in range(200)]
    shapes = [(padded_length(n, (8, 16, 32, 64)),) for n in lengths]
    seen = []
    for (length,), rows in batches_by_length(shapes, tokens_per_batch=256, multiple_of=8):
        assert len(rows) == rows_per_batch(length, 256, 8)
        assert all(shapes[row][0] <= length for row in rows)
        seen += sorted(set(rows))
    assert sorted(seen) == list(range(200))
