"""Which groups of prompts are decoded together, and how their prompts are packed into rows.

Groups go into pools of slots of one shape. A step of decoding reads all weights and all slots'
keys and values. Few groups in many pools read the weights over and over; groups of unlike sizes in
one pool read empty places. The costs here are those reads, in units of one token's keys and values.

Texts of unlike lengths are packed side by side in rows of one length, so that little is padding.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ait_jax.scorer.batching import padded_length
from ait_jax.scorer.shared_prefixes import SharedPrefix

# In a row of this many tokens, attention costs as much as all products with weights.
_ATTENTION_AS_DEAR = 2048
# Each number of slots is another program.
_COMPACTION = 4
# The possible numbers of packed rows.
ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)


class SlotShape(NamedTuple):
    """Tokens of the prefix, rows behind it, and tokens of each row's own prompt."""

    prefix: int
    members: int
    own: int

    def tokens(self, answer: int) -> int:
        """Returns the places of a slot, with answers of `answer` tokens."""
        return self.prefix + self.members * (self.own + answer)


class SlotPool(NamedTuple):
    """Groups that are decoded together, in slots of one shape."""

    shape: SlotShape
    groups: tuple[SharedPrefix, ...]


class Budget(NamedTuple):
    """What the slots of a pool have to fit into.

    Attributes:
      tokens: of all slots together.
      answer: the longest answer's tokens.
      multiple_of: the number of slots is a multiple of it.
      weights: what reading the weights costs, in tokens.
    """

    tokens: int
    answer: int
    multiple_of: int
    weights: float

    def slots(self, pool: SlotPool) -> int:
        """Returns how many slots the pool gets, no more than it has groups for."""
        at_a_time = self.multiple_of
        most = max(1, self.tokens // pool.shape.tokens(self.answer) // at_a_time)
        return at_a_time * min(most, -(-len(pool.groups) // at_a_time))

    def fewer(self, shape: SlotShape, slots: int) -> int:
        """Returns how few slots at work go on by themselves once no group waits.

        A quarter, or all where that would spare less reading than the weights are.
        """
        fewer = max(1, slots // _COMPACTION // self.multiple_of) * self.multiple_of
        spared = (slots - fewer) * shape.tokens(self.answer)
        return fewer if spared > self.weights else slots

    def cost(self, pool: SlotPool) -> float:
        """Returns what all of a pool's groups read for every token of an answer."""
        slots = self.slots(pool)
        step = self.weights + slots * pool.shape.tokens(self.answer)
        return step * max(1.0, len(pool.groups) / slots)


def pooled(
    shapes: Sequence[SlotShape], groups: Sequence[SharedPrefix], budget: Budget
) -> list[SlotPool]:
    """Puts groups into pools, and joins two pools where that is cheaper, most savings first.

    Args:
      shapes: what each group fits into.

    Returns:
      Pools, the largest shapes first.
    """
    by_shape: dict[SlotShape, list[SharedPrefix]] = {}
    for shape, group in zip(shapes, groups, strict=True):
        by_shape.setdefault(shape, []).append(group)
    pools = [SlotPool(shape, tuple(members)) for shape, members in sorted(by_shape.items())]
    while len(pools) > 1:
        saved, first, second = max(
            (budget.cost(a) + budget.cost(b) - budget.cost(_joined(a, b)), i, j)
            for (i, a), (j, b) in itertools.combinations(enumerate(pools), 2)
        )
        if saved <= 0:
            break
        joined = _joined(pools[first], pools[second])
        pools = [p for place, p in enumerate(pools) if place not in (first, second)] + [joined]
    return sorted(pools, key=lambda pool: pool.shape, reverse=True)


def _joined(first: SlotPool, second: SlotPool) -> SlotPool:
    shape = SlotShape(*map(max, first.shape, second.shape))
    return SlotPool(shape, first.groups + second.groups)


class Packing(NamedTuple):
    """Texts in rows of `width` tokens: for each row the numbers of its texts."""

    width: int
    rows: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=1024)
def packed(lengths: tuple[int, ...], widths: tuple[int, ...]) -> Packing:
    """Returns the cheapest packing, of first fit decreasing at every width.

    Args:
      lengths: of the texts, none above the last of the ascending `widths`.
    """
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    candidates: list[tuple[float, Packing]] = []
    for width in widths:
        if width < lengths[order[0]]:
            continue
        rows = _first_fit(lengths, order, width)
        cost = padded_length(len(rows), ROWS) * width * (1 + width / _ATTENTION_AS_DEAR)
        candidates.append((cost, Packing(width, tuple(map(tuple, rows)))))
        if len(rows) == 1:
            break
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _first_fit(lengths: Sequence[int], order: Sequence[int], width: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for text in order:
        row = next((i for i, free in enumerate(room) if free >= lengths[text]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows
