"""Rows of tokens, one text to a row, as batches of an engine."""

from collections.abc import Iterator, Sequence

import numpy as np

from ait_jax.scorer.batching import Tokens, batches_by_length, pad_rows


class PaddedRows:
    """Rows and the shapes that they are padded to.

    Args:
      shapes: of every row, a length for each column.
      columns: e.g. prompts and targets.
      tokens_per_batch: budget of padded tokens of the first column.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        columns: Sequence[Sequence[Tokens]],
        tokens_per_batch: int,
    ) -> None:
        self.shapes, self.columns, self.tokens_per_batch = shapes, columns, tokens_per_batch

    def batches(
        self, shapes: Sequence[tuple[int, ...]], processes: int, multiple_of: int
    ) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Yields (shape, places in `shapes`) of batches; each process has an equal part of them."""
        return batches_by_length(shapes, self.tokens_per_batch // processes, multiple_of)

    def arrays(self, shape: tuple[int, ...], rows: Sequence[int | None]) -> list[np.ndarray]:
        """Returns a padded array for every column; None is a row of padding."""
        return [
            pad_rows([() if row is None else column[row] for row in rows], length)
            for column, length in zip(self.columns, shape)
        ]

    def padded_tokens(self, arrays: Sequence[np.ndarray], rows: Sequence[int | None]) -> int:
        """Returns how many places of a batch hold a prompt's token or none."""
        del rows
        return arrays[0].size
