"""Rows of tokens to padded batches of a few fixed shapes."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ait_jax.errors import UserError, shown

Tokens = Sequence[int] | np.ndarray
# The padded lengths of a row or a batch, and batches as (shape, rows).
Shape = tuple[int, ...]
Batches = Iterator[tuple[Shape, list[int]]]

# A batch is halved while more of it than this would be padding, down to this share of the
# budget: small batches make poor use of a device, and each size costs a compilation.
_MAX_PADDING = 0.2
_SMALLEST_BATCH = 0.25


def padded_length(length: int, lengths: Sequence[int]) -> int:
    """Returns the smallest of the ascending `lengths` that holds `length`.

    Raises:
      ValueError: none does; callers first truncate to the last one.
    """
    for candidate in lengths:
        if length <= candidate:
            return candidate
    raise ValueError(f"{length} tokens exceed the longest bucket of {lengths[-1]}")


def pad_rows(rows: Sequence[Tokens], length: int) -> np.ndarray:
    """Returns int32 [rows, length], padded with 0 on the right."""
    padded = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


@dataclass(frozen=True)
class LengthBuckets:
    """The lengths that batches are padded to; every pair in use costs one compilation.

    Args:
      inputs: ascending; the last is the maximum source length.
      targets: ascending; the last is the maximum target length.
      answer: the most tokens that are decoded (ANSWER_LENGTH); None is the maximum target length.

    Raises:
      UserError: lengths that do not ascend, or an `answer` beyond the maximum target length.
    """

    inputs: Sequence[int] = (64, 128, 256, 384, 512, 768, 1024)
    targets: Sequence[int] = (16, 64, 128)
    answer: int | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            lengths = tuple(getattr(self, name))
            if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
                raise UserError(
                    f"batching.LengthBuckets.{name} = {lengths}: give ascending positive lengths."
                )
        if self.answer is None:
            return
        if type(self.answer) is not int or not 1 <= self.answer <= self.targets[-1]:
            raise UserError(
                f"ANSWER_LENGTH is {shown(self.answer)}; give a number from 1 to the last of "
                f"TARGET_LENGTHS, {self.targets[-1]}, or None for that."
            )

    @property
    def max_source_length(self) -> int:
        """The longest prompt, in tokens."""
        return self.inputs[-1]

    @property
    def max_target_length(self) -> int:
        """The longest target, in tokens."""
        return self.targets[-1]

    @property
    def max_answer_length(self) -> int:
        """The most tokens that are decoded, end-of-sequence included."""
        return self.targets[-1] if self.answer is None else self.answer

    def collate(self, examples: Sequence[tuple[Tokens, Tokens]]) -> dict[str, np.ndarray]:
        """Pads (inputs, targets) pairs to the smallest pair of buckets that holds them all."""
        padded = {}
        for feature, lengths, rows in zip(
            ("inputs", "targets"), (self.inputs, self.targets), zip(*examples, strict=True),
            strict=True,
        ):  # fmt: skip
            padded[feature] = pad_rows(rows, padded_length(max(map(len, rows)), lengths))
        return padded


def finer_lengths(lengths: Sequence[int], growth: float, multiple_of: int = 8) -> tuple[int, ...]:
    """Returns ascending lengths up to `lengths[-1]`, each at most `growth` times the one before.

    Args:
      lengths: ascending; only the last is kept.
      growth: above 1; rows of evenly spread lengths then have (growth - 1) / 2 of padding.
      multiple_of: divides every length but the last.
    """
    finer = [multiple_of]
    while finer[-1] < lengths[-1]:
        steps = int(finer[-1] * (growth - 1)) // multiple_of
        finer.append(finer[-1] + max(1, steps) * multiple_of)
    return (*(length for length in finer if length < lengths[-1]), lengths[-1])


def rows_per_batch(length: int, tokens_per_batch: int, multiple_of: int) -> int:
    """Returns how many rows of `length` make a batch of at most `tokens_per_batch` tokens.

    A multiple of the mesh's 'data' axis, and at least that.
    """
    return max(1, tokens_per_batch // length // multiple_of) * multiple_of


def batches_by_length(shapes: Sequence[Shape], tokens_per_batch: int, multiple_of: int) -> Batches:
    """Groups rows into batches, one fixed number of rows for every padded shape, or half of it.

    From the longest to the shortest, so that a batch holds rows of neighbouring lengths. Rows
    left over by one target length are joined by rows with shorter targets and no longer inputs;
    a batch that is still not full repeats its first row, so that no made-up row delays decoding.
    Where a few rows of spread lengths would need much padding, a batch is half or a quarter as
    large. So nearly every batch of a shape runs the same program.

    Args:
      shapes: the padded shape of every row: (input length,) or (input, target length).
      tokens_per_batch: budget of padded input tokens.
      multiple_of: shards of a batch.

    Yields:
      (shape, row indices).
    """
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for row, (length, *targets) in enumerate(shapes):
        groups.setdefault(tuple(targets), []).append((length, row))
    for rows in groups.values():
        rows.sort(key=lambda pair: (-pair[0], pair[1]))
    order = sorted(groups, reverse=True)
    for place, targets in enumerate(order):
        donors = [groups[donor] for donor in order[place:]]
        while groups[targets]:
            length = groups[targets][0][0]
            size = _worthwhile_rows(donors, length, tokens_per_batch, multiple_of)
            batch: list[int] = []
            for rows in donors:
                batch += _take(rows, size - len(batch), length)
            yield (length, *targets), batch + batch[:1] * (size - len(batch))


def _worthwhile_rows(
    donors: Sequence[list[tuple[int, int]]], length: int, tokens_per_batch: int, multiple_of: int
) -> int:
    """Returns `rows_per_batch`, halved while too much of the batch would be padding."""
    size = rows_per_batch(length, tokens_per_batch, multiple_of)
    lengths: list[int] = []
    for rows in donors:
        lengths += [n for n, _ in rows[_longest(rows, size - len(lengths), length)]]
    while 1 - sum(lengths[:size]) / (size * length) > _MAX_PADDING:
        half = size // 2 // multiple_of * multiple_of
        if half * length < tokens_per_batch * _SMALLEST_BATCH:
            break
        size = half
    return size


def _longest(rows: list[tuple[int, int]], count: int, length: int) -> slice:
    """Returns where the `count` longest rows that are no longer than `length` stand."""
    # Descending lengths: bisect on their negatives.
    first = bisect_left(rows, -length, key=lambda pair: -pair[0])
    return slice(first, first + max(0, count))


def _take(rows: list[tuple[int, int]], count: int, length: int) -> list[int]:
    """Removes and returns the rows at `_longest`."""
    where = _longest(rows, count, length)
    taken = [row for _, row in rows[where]]
    del rows[where]
    return taken


class PaddedRows:
    """Rows of tokens, one text to a row, as batches of an engine.

    Args:
      columns: for example prompts and targets, each with the lengths that it is padded to.
      tokens_per_batch: budget of padded tokens of the first column.

    Attributes:
      shapes: the padded length of every column of a row.
    """

    def __init__(
        self, *columns: tuple[Sequence[Tokens], Sequence[int]], tokens_per_batch: int
    ) -> None:
        self.columns, self.tokens_per_batch = [rows for rows, _ in columns], tokens_per_batch
        padded = ([padded_length(len(row), lengths) for row in rows] for rows, lengths in columns)
        self.shapes: list[tuple[int, ...]] = list(zip(*padded, strict=True))

    def batches(self, shapes: Sequence[Shape], processes: int, multiple_of: int) -> Batches:
        """Yields (shape, places in `shapes`) of batches; each process has an equal part of them."""
        return batches_by_length(shapes, self.tokens_per_batch // processes, multiple_of)

    def arrays(self, shape: tuple[int, ...], rows: Sequence[int | None]) -> list[np.ndarray]:
        """Returns an array for every column that is not empty; None is a row of padding."""
        return [
            pad_rows([() if row is None else column[row] for row in rows], length)
            for column, length in zip(self.columns, shape, strict=True)
            if length
        ]

    def padded_tokens(self, arrays: Sequence[np.ndarray], rows: Sequence[int | None]) -> int:
        """Returns how many places of a batch hold a prompt's token or none."""
        del rows
        return arrays[0].size
