"""Training examples side by side in rows, so that little of a batch is padding.

A row holds whole examples, told apart by segment ids (1, 2, ..., 0 is padding): the loss of packed
examples is that of the same examples in rows of their own. Rows of like lengths make a part of the
batch, whose arrays have one shape and so one program.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ait_jax.scorer.batching import LengthBuckets, Tokens, padded_length

# Target lengths of rows double from here: a row of one example has few targets, one of many more.
_FEWEST_TARGETS = 8
# Parameters whose gradients stay in a CPU's caches.
_SMALL_MODEL = 2**23

Lengths = Int[np.ndarray, "examples 2"]
Shape = tuple[int, int]  # padded input and target length of a row


class Part(NamedTuple):
    """Rows of one shape.

    Attributes:
      shape: the padded lengths of inputs and targets.
      rows: of each row, the positions of its examples in the batch; an empty row is padding.
    """

    shape: Shape
    rows: list[list[int]]


@dataclass(frozen=True)
class Packing:
    """How batches are packed.

    Args:
      buckets: the input lengths that rows may have, and their most targets. Every pair of input
        and target length in use costs a compilation.
      cost: (input length, target length) -> what a row of these costs, in FLOPs.
      multiple_of: the rows of a microbatch are, as the mesh's 'data' axis asks.
      rows_at_once: of a microbatch, at most; a multiple of `multiple_of`.
      tokens_of_a_part: rows of like lengths are parts of about so many input tokens, as suits a
        CPU. If None, a batch is one part, of as few microbatches as hold it.
    """

    buckets: LengthBuckets
    cost: Callable[[int, int], float]
    multiple_of: int
    rows_at_once: int
    tokens_of_a_part: int | None

    def parts(self, lengths: Lengths) -> list[Part]:
        """Returns the parts of a batch of examples of such input and target lengths.

        The same examples give the same parts. Of all row lengths that hold the longest example,
        the rows of the one whose parts cost least are taken.
        """
        longest = int(lengths[:, 0].max())
        capacities = [length for length in self.buckets.inputs if length >= longest]
        choices = [self._divided(self._filled(lengths, capacity)) for capacity in capacities]
        return min(choices, key=self._cost)

    def _filled(self, lengths: Lengths, capacity: int) -> list[tuple[Shape, list[int]]]:
        """Returns rows of at most `capacity` input tokens, by best fit, longest example first."""
        most = self.buckets.max_target_length
        used = np.zeros((len(lengths), 2), np.int64)
        rows: list[list[int]] = []
        for index in np.argsort(-lengths[:, 0], kind="stable").tolist():
            after = used[: len(rows)] + lengths[index]
            room = np.where(after[:, 1] <= most, capacity - after[:, 0], -1)
            fitting = np.flatnonzero(room >= 0)
            if fitting.size:
                row = int(fitting[room[fitting].argmin()])
                rows[row].append(index)
            else:
                row = len(rows)
                rows.append([index])
            used[row] += lengths[index]
        return [(self._padded(*used[row].tolist()), sorted(rows[row])) for row in range(len(rows))]

    def _padded(self, inputs: int, targets: int) -> Shape:
        doubled = max(_FEWEST_TARGETS, 1 << (targets - 1).bit_length())
        return (
            padded_length(inputs, self.buckets.inputs),
            min(doubled, self.buckets.max_target_length),
        )

    def _divided(self, rows: list[tuple[Shape, list[int]]]) -> list[Part]:
        """Puts rows, longest first, into parts."""
        rows = sorted(rows, key=lambda row: (-row[0][0], -row[0][1]))
        parts = []
        while rows:
            if self.tokens_of_a_part is not None:
                most = min(self.tokens_of_a_part // rows[0][0][0], self.rows_at_once)
                count = rounded_up(1 << max(0, most.bit_length() - 1), self.multiple_of)
            else:
                microbatches = math.ceil(len(rows) / self.rows_at_once)
                count = rounded_up(len(rows), self.multiple_of * microbatches)
            taken, rows = rows[:count], rows[count:]
            shape = max(s[0] for s, _ in taken), max(s[1] for s, _ in taken)
            empty: list[list[int]] = [[] for _ in range(count - len(taken))]
            parts.append(Part(shape, [members for _, members in taken] + empty))
        return parts

    def _cost(self, parts: list[Part]) -> float:
        return sum(self.cost(*part.shape) * len(part.rows) for part in parts)


def tokens_that_suit_a_cpu(num_params: int) -> int:
    """Returns `tokens_of_a_part` for a model.

    Every part writes and adds gradients of all weights, which asks for long parts where these do
    not stay in the caches; activations ask for short ones.
    """
    return 256 if num_params < _SMALL_MODEL else 512


def rounded_up(count: int, multiple_of: int) -> int:
    """Returns the smallest multiple that is at least `count`."""
    return -(-count // multiple_of) * multiple_of


def packed(
    part: Part, examples: Sequence[tuple[Tokens, Tokens] | None], rows: slice = slice(None)
) -> dict[str, np.ndarray]:
    """Returns a part's arrays, int32: "inputs" and "targets" (rows, length) and their segments.

    Args:
      examples: of the batch; None where no row of `rows` has it.
      rows: the ones to return.
    """
    own, arrays = part.rows[rows], {}
    for side, feature in enumerate(("inputs", "targets")):
        tokens = np.zeros((len(own), part.shape[side]), np.int32)
        segments = np.zeros_like(tokens)
        for row, members in enumerate(own):
            start = 0
            for segment, index in enumerate(members, start=1):
                example = examples[index]
                assert example is not None
                place = slice(start, start := start + len(example[side]))
                tokens[row, place], segments[row, place] = example[side], segment
        arrays |= {feature: tokens, f"{feature}_segments": segments}
    return arrays
