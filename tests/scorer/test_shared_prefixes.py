"""Groups of prompts against every way of grouping them."""

import itertools
from functools import partial

from ait_jax import randomness
from ait_jax.scorer.shared_prefixes import SharedPrefix, grouped


def common(rows):
    limit = min(map(len, rows)) - 1
    same = (len({tuple(row[: n + 1]) for row in rows}) == 1 for n in range(limit))
    return next((n for n, is_same in enumerate(same) if not is_same), limit)


def runs(items):
    """Every way of cutting a list into runs."""
    for cuts in itertools.product([False, True], repeat=max(0, len(items) - 1)):
        parts = [items[:1]]
        for item, cut in zip(items[1:], cuts, strict=True):
            parts[-1:] = [parts[-1], [item]] if cut else [[*parts[-1], item]]
        yield parts


def saved(groups):
    return sum((len(group.members) - 1) * group.length for group in groups)


def best(rows, shortest, most_members):
    """The tokens that the best runs of the sorted prompts save."""

    def value(part):
        length = common([rows[i] for i in part])
        return (len(part) - 1) * length if length >= shortest else 0

    return max(
        sum(map(value, parts))
        for parts in runs(sorted(range(len(rows)), key=rows.__getitem__))
        if max(map(len, parts)) <= most_members
    )


def test_groups_save_most():
    def drawn(case, *bounds_and_key):
        return randomness.integer(*bounds_and_key, case)

    for case in range(120):
        draw = partial(drawn, case)
        shortest, most_members = 1 + draw(0, 3, "shortest"), 2 + draw(0, 6, "most")
        rows = [
            [draw(2, 4, "token", row, place) for place in range(1 + draw(0, 7, "length", row))]
            for row in range(1 + draw(0, 7, "rows"))
        ]
        groups = grouped(rows, shortest, most_members)
        members = sorted(row for group in groups for row in group.members)
        assert members == list(range(len(rows)))
        for length, group in groups:
            assert len(group) <= most_members
            assert length <= min(len(rows[row]) for row in group) - 1
            assert len({tuple(rows[row][:length]) for row in group}) == 1
            assert length >= shortest or length == 0
        assert saved(groups) == best(rows, shortest, most_members), rows


def test_equal_prompts_share_all_but_the_last_token():
    assert grouped([[5, 6, 7], [5, 6, 7]], shortest=2) == [SharedPrefix(2, (0, 1))]
    assert grouped([], shortest=2) == []
