"""Groups of prompts in pools of slots: what is joined, and what that costs."""

import itertools

import pytest

from ait_jax.scorer.shared_prefixes import SharedPrefix
from ait_jax.scorer.slot_pools import Budget, SlotPool, SlotShape, packed, pooled

SMALL, LARGE = SlotShape(64, 4, 32), SlotShape(512, 4, 32)


def groups(number, first=0):
    return tuple(SharedPrefix(40, (i,)) for i in range(first, first + number))


def test_few_groups_are_joined_and_many_are_not():
    """A step reads weights worth 1,000 tokens, small slots of 224 and large ones of 672."""
    budget = Budget(tokens=4096, answer=8, multiple_of=1, weights=1000.0)
    few = pooled([SMALL, LARGE], groups(2), budget)
    assert few == [SlotPool(LARGE, groups(2))]
    # 18 small slots fit into the budget; as large ones only 6 would.
    many = pooled([SMALL] * 18 + [LARGE] * 6, groups(24), budget)
    assert many == [SlotPool(LARGE, groups(6, first=18)), SlotPool(SMALL, groups(18))]


def test_a_joined_slot_has_the_largest_of_every_size():
    budget = Budget(tokens=4096, answer=8, multiple_of=1, weights=1e9)
    (pool,) = pooled([SlotShape(64, 8, 32), SlotShape(128, 2, 64)], groups(2), budget)
    assert pool.shape == SlotShape(128, 8, 64) and sorted(pool.groups) == sorted(groups(2))


def test_no_group_is_lost_and_joining_never_costs_more():
    budget = Budget(tokens=8192, answer=32, multiple_of=2, weights=5000.0)
    shapes = [SlotShape(64 << (i % 4), 1 + i % 3, 32 << (i % 2)) for i in range(40)]
    found = pooled(shapes, groups(40), budget)
    assert sorted(group for pool in found for group in pool.groups) == sorted(groups(40))
    alone = [
        SlotPool(shape, tuple(g for s, g in zip(shapes, groups(40), strict=True) if s == shape))
        for shape in set(shapes)
    ]
    assert sum(map(budget.cost, found)) < sum(map(budget.cost, alone))
    assert len(found) < len(alone)


@pytest.mark.parametrize(
    ("number", "multiple_of", "slots"),
    [(3, 1, 3), (3, 2, 4), (99, 1, 18), (99, 8, 16), (1, 64, 64)],
)
def test_slots_fit_the_budget_and_the_mesh(number, multiple_of, slots):
    budget = Budget(tokens=4096, answer=8, multiple_of=multiple_of, weights=1.0)
    pool = SlotPool(SMALL, groups(number))
    assert budget.slots(pool) == slots
    rounds = max(1, number / slots)
    assert budget.cost(pool) == pytest.approx(rounds * (1 + slots * SMALL.tokens(8)))


@pytest.mark.parametrize(
    ("multiple_of", "weights", "fewer"), [(1, 3500.0, 5), (2, 3500.0, 4), (1, 3600.0, 21)]
)
def test_few_slots_go_on_by_themselves_if_that_spares_more_than_the_weights(
    multiple_of, weights, fewer
):
    budget = Budget(tokens=8192, answer=8, multiple_of=multiple_of, weights=weights)
    assert budget.fewer(SMALL, 21) == fewer and budget.fewer(SMALL, multiple_of) == multiple_of


def test_nothing_to_do_is_no_pool():
    assert pooled([], [], Budget(100, 8, 1, 1.0)) == []


def test_packing_loses_no_text_and_leaves_little_empty():
    lengths = (200, 180, 90, 60, 40, 30, 20, 20, 10, 5)
    width, rows = packed(lengths, (64, 128, 256, 512, 1024))
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(sum(lengths[text] for text in row) <= width for row in rows)
    assert width * len(rows) < 1.25 * sum(lengths)
