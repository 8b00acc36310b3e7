"""Prompts that begin alike: a decoder-only model runs what they share once.

A task's n instances follow the same instruction, so their prompts share it. Tokens are compared,
not text: a token that spans the end of the instruction does no harm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ait_jax.scorer.batching import Tokens

# Fewer shared tokens are not worth another shape of program.
SHORTEST = 16
# At most this many rows share one run of a prefix; one with more rows is run again for them.
MOST_MEMBERS = 64


class SharedPrefix(NamedTuple):
    """Prompts that are run together.

    Attributes:
      length: leading tokens that all of them share, fewer than any of them has; 0 for one alone.
      members: their places in the list of prompts.
    """

    length: int
    members: tuple[int, ...]


def grouped(
    prompts: Sequence[Tokens], shortest: int = SHORTEST, most_members: int = MOST_MEMBERS
) -> list[SharedPrefix]:
    """Puts prompts into the groups that save most tokens, (members - 1) * length each.

    Sorted prompts that share a prefix are neighbors, so groups are runs of the sorted prompts, and
    the best runs of the first i prompts follow from those of fewer.

    Args:
      prompts: none of them empty; equal ones share all but their last token, which comes before
        the target.
      shortest: of a group's shared prefix.
      most_members: of a group.
    """
    rows = [tuple(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    begins = _best_runs([rows[row] for row in order], shortest, most_members)
    groups: list[SharedPrefix] = []
    end = len(order)
    while end:
        begin, length = begins[end]
        groups.append(SharedPrefix(length, tuple(order[begin:end])))
        end = begin
    return groups[::-1]


def _best_runs(
    rows: Sequence[tuple[int, ...]], shortest: int, most_members: int
) -> list[tuple[int, int]]:
    """Returns (where the last run begins, the tokens it shares) for every end."""
    saved = np.zeros(len(rows) + 1, np.int64)  # by the best runs of the rows before
    shared = np.zeros(len(rows), np.int64)  # by the rows from here to the end
    begins = [(0, 0)]
    for end in range(1, len(rows) + 1):
        first = max(0, end - most_members)
        if end > 1:
            common = _common(rows[end - 2], rows[end - 1])
            shared[end - 2] = common
            np.minimum(shared[first : end - 1], common, out=shared[first : end - 1])
        lengths = np.where(shared[first:end] >= shortest, shared[first:end], 0)
        values = saved[first:end] + np.arange(end - first - 1, -1, -1) * lengths
        # Of equally good runs the shortest.
        begin = end - 1 - int(np.argmax(values[::-1]))
        saved[end] = values[begin - first]
        begins.append((begin, int(lengths[begin - first])))
    return begins


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Returns how many leading tokens two prompts share, the last of either left out."""
    limit = min(len(first), len(second)) - 1
    if first[:limit] == second[:limit]:
        return limit
    return next(i for i in range(limit) if first[i] != second[i])
