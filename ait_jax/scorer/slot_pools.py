"""Which groups of prompts are decoded together: pools of slots of one shape.

A step of decoding reads all weights and all slots' keys and values. Few groups in many pools read
the weights over and over; groups of unlike sizes in one pool read places that hold nothing. What is
counted here are those readings, with a token's keys and values as the unit.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ait_jax.scorer.shared_prefixes import SharedPrefix


class SlotShape(NamedTuple):
    """Tokens of the prefix, rows behind it, and tokens of each row's own prompt."""

    prefix: int
    members: int
    own: int

    def tokens(self, answer: int) -> int:
        """Returns the places of a slot for answers of so many tokens."""
        return self.prefix + self.members * (self.own + answer)


class SlotPool(NamedTuple):
    shape: SlotShape
    groups: tuple[SharedPrefix, ...]


class Budget(NamedTuple):
    """What slots have to fit into.

    Attributes:
      tokens: of all slots of a pool.
      answer: the longest answer's tokens.
      multiple_of: slots come in so many at a time.
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

    def cost(self, pool: SlotPool) -> float:
        """Returns what is read for all of a pool's groups, for every token of an answer."""
        slots = self.slots(pool)
        step = self.weights + slots * pool.shape.tokens(self.answer)
        return step * max(1.0, len(pool.groups) / slots)


def pooled(
    shapes: Sequence[SlotShape], groups: Sequence[SharedPrefix], budget: Budget
) -> list[SlotPool]:
    """Puts groups into pools; two pools are one where that is cheaper, the most saving first.

    Args:
      shapes: that the groups fit into.

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
