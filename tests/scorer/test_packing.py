"""Texts side by side in rows."""

import itertools

from ait_jax.scorer.packing import packed


def test_packing_loses_no_text_and_leaves_little_empty():
    lengths = (200, 180, 90, 60, 40, 30, 20, 20, 10, 5)
    width, rows = packed(lengths, (64, 128, 256, 512, 1024))
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(sum(lengths[text] for text in row) <= width for row in rows)
    assert width * len(rows) < 1.25 * sum(lengths)
