"""Rows of tokens to padded batches of a few fixed shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ait_jax.errors import UserError

Tokens = Sequence[int]


def padded_length(length: int, lengths: Sequence[int]) -> int:
    """Returns the smallest of the ascending `lengths` that holds `length`.

    Raises:
      ValueError: none does; callers truncate to the last one before.
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
    """

    inputs: Sequence[int] = (64, 128, 256, 384, 512, 768, 1024)
    targets: Sequence[int] = (16, 64, 128)

    def __post_init__(self):
        for name in ("inputs", "targets"):
            lengths = tuple(getattr(self, name))
            if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
                raise UserError(
                    f"batching.LengthBuckets.{name} = {lengths} must be ascending positive lengths."
                )

    @property
    def max_source_length(self) -> int:
        return self.inputs[-1]

    @property
    def max_target_length(self) -> int:
        return self.targets[-1]

    def collate(self, examples: Sequence[tuple[Tokens, Tokens]]) -> dict[str, np.ndarray]:
        """Pads (inputs, targets) pairs to the smallest pair of buckets that holds them all."""
        inputs = [tokens for tokens, _ in examples]
        targets = [tokens for _, tokens in examples]
        return {
            "inputs": pad_rows(inputs, padded_length(max(map(len, inputs)), self.inputs)),
            "targets": pad_rows(targets, padded_length(max(map(len, targets)), self.targets)),
        }


def rows_per_batch(length: int, tokens_per_batch: int, multiple_of: int) -> int:
    """Returns how many rows of `length` make a batch: a power of two, at least 8.

    Rounded up to a multiple of the mesh's 'data' axis.
    """
    rows = max(8, 1 << max(0, (tokens_per_batch // length).bit_length() - 1))
    return -(-rows // multiple_of) * multiple_of


def batches_by_length(
    shapes: Sequence[tuple[int, ...]], tokens_per_batch: int, multiple_of: int
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Groups rows into batches, one fixed size for every padded shape.

    Rows that do not fill a batch of their shape join the next longer inputs (with targets of
    the same length), so that at most one batch per target length is not full. That one
    repeats its first row: every batch of a shape runs the same executable, and no made-up
    row delays decoding.

    Args:
      shapes: the padded shape of every row: (input length,) or (input, target length).
      tokens_per_batch: budget of padded input tokens.
      multiple_of: shards of a batch.

    Yields:
      (shape, row indices), longer inputs later.
    """
    by_targets: dict[tuple[int, ...], dict[int, list[int]]] = {}
    for row, (length, *targets) in enumerate(shapes):
        by_targets.setdefault(tuple(targets), {}).setdefault(length, []).append(row)
    for targets, rows_of in sorted(by_targets.items()):
        waiting: list[int] = []
        for length in sorted(rows_of):
            waiting += rows_of[length]
            size = rows_per_batch(length, tokens_per_batch, multiple_of)
            while len(waiting) >= size:
                yield (length, *targets), waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield (length, *targets), waiting + [waiting[0]] * (size - len(waiting))
