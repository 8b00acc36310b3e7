"""task_map.py: categories by hand, and what the strategies select."""

from collections import Counter

import pytest
from selecting import context_of, random_scores, scores_at

from ait_jax.errors import UserError
from ait_jax.selection import selection
from ait_jax.selection.task_map import classify
from ait_jax.selection.uncertainty import TaskScores

CORNERS = {
    "c_sure": (0.001, 0.95),
    "g_lost": (0.002, 0.30),
    "c_torn": (0.250, 0.60),
    "g_middling": (0.05, 0.62),
    "c_middling": (0.06, 0.64),
    "g_other": (0.07, 0.66),
}


def test_categories_by_hand():
    categories = classify(context_of(scores_at(CORNERS), 1))
    assert categories.pop("c_torn") == "ambiguous"
    assert categories.pop("c_sure") == "easy"
    assert categories.pop("g_lost") == "difficult"
    assert set(categories.values()) == {"other"} and len(categories) == 3


def test_categories_are_what_the_strategies_select():
    context = context_of(random_scores(300), 30, 0.356)
    categories = classify(context)
    for strategy in (selection.Ambiguous(), selection.Easy(), selection.Difficult()):
        chosen = selection.select(strategy, context)
        assert {t for t, c in categories.items() if c == strategy.name} == set(chosen.tasks)
        assert chosen.num_cls == 10
    assert list(categories) == list(context.scores.tasks)


def test_chunks_of_a_small_pool_do_not_meet_more_than_they_must():
    for n in range(1, 12):
        counts = Counter(classify(context_of(random_scores(n), 68)).values())
        assert sum(counts.values()) == n and counts["ambiguous"] == max(1, n // 3)
    assert classify(context_of(TaskScores.unscored([]), 3)) == {}
    with pytest.raises(UserError, match="is 0"):
        classify(context_of(random_scores(3), 0))


def test_a_task_in_two_chunks_takes_the_better_place():
    # Probability rises with uncertainty: all tie for easy, which leaves a and b by name, and
    # a and b are the most difficult too.
    scores = scores_at({n: (0.01 * (i + 1), 0.5 + 0.1 * i) for i, n in enumerate("abcdef")})
    categories = classify(context_of(scores, 2))
    assert [n for n in "abcdef" if categories[n] == "ambiguous"] == ["e", "f"]
    assert categories["a"] == categories["b"] == "easy"
    # Now b is first among the difficult (its rank sum is 1, a's 2) and second among the easy.
    points = dict(zip("abcdef", [0.8, 0.5, 0.6, 0.7, 0.9, 0.95], strict=True))
    points = {n: (0.01 * (i + 1), p) for i, (n, p) in enumerate(points.items())}
    context = context_of(scores_at(points), 2)
    assert selection.Difficult().rank(context.scores, context)[:2] == ["b", "a"]
    categories = classify(context)
    assert categories["a"] == "easy" and categories["b"] == "difficult"
