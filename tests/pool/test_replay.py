"""Rules of replay against vectors whose order can be seen by eye."""

import numpy as np
import pytest

from ait_jax.errors import UserError
from ait_jax.pool import replay

# Current tasks point east, as the earlier "east"; "north" and "north2" are alike, "west" is alone.
CURRENT = np.array([[1.0, 0.0], [2.0, 0.1]])
PREVIOUS = np.array([[3.0, 0.0], [0.0, 1.0], [0.1, 2.0], [-1.0, 0.0]])
NAMES = ("east", "north", "north2", "west")


def chosen(rule, count=1, current=CURRENT, previous=PREVIOUS):
    return replay.choose(NAMES, replay.replay_scores(rule, current, previous), count)


def test_rules_by_eye():
    assert chosen(replay.DIVERSE) == ("west",)
    assert chosen(replay.DATA_DIVERSE) == ("west",)
    assert chosen(replay.SIMILAR) == ("east",)
    assert set(chosen(replay.SUPPORT, 2)) == {"north", "north2"}, (
        "the two that stand for each other"
    )
    assert chosen(replay.SIMILAR, 9) == ("east", "north2", "north", "west"), "fewer than asked for"


def test_scores_are_the_sums_of_cosines_entry_by_entry():
    generator = np.random.default_rng(0)
    current, previous = generator.normal(size=(3, 5)), generator.normal(size=(4, 5))

    def cosine(a, b):
        return (
            sum(x * y for x, y in zip(a, b, strict=True))
            / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
        )

    columns = [sum(cosine(c, p) for c in current) for p in previous]
    rows = [sum(cosine(p, q) for q in previous) for p in previous]
    np.testing.assert_allclose(replay.replay_scores(replay.SIMILAR, current, previous), columns)
    np.testing.assert_allclose(-replay.replay_scores(replay.DIVERSE, current, previous), columns)
    np.testing.assert_allclose(replay.replay_scores(replay.SUPPORT, current, previous), rows)


def test_lengths_of_vectors_do_not_matter_and_zeros_are_like_nothing():
    for rule in replay.RULES[2:]:
        assert chosen(rule, 4, CURRENT * 7, PREVIOUS * [[1], [5], [0.1], [3]]) == chosen(rule, 4)
    assert replay.cosine_similarities(np.zeros((1, 2)), PREVIOUS).tolist() == [[0.0] * 4]


def test_equal_scores_go_by_name():
    assert replay.choose(("b", "c", "a"), [1.0, 1.0, 1.0], 2) == ("a", "b")


def test_random_replay_hangs_on_seed_and_round_alone():
    names = [f"task{i}" for i in range(20)]
    drawn = replay.choose_at_random(names, 5, 1, 1)
    assert drawn == replay.choose_at_random(names[::-1], 5, 1, 1) and len(set(drawn)) == 5
    assert drawn != replay.choose_at_random(names, 5, 1, 2)
    rest = replay.choose_at_random([n for n in names if n != drawn[0]], 4, 1, 1)
    assert rest == drawn[1:]


def test_mistakes_are_named():
    with pytest.raises(UserError, match="REPLAY = 'instruction_divers' .*'instruction_diverse'"):
        replay.check_rule("instruction_divers")
    with pytest.raises(UserError, match="not finite"):
        replay.replay_scores(replay.SIMILAR, CURRENT * np.nan, PREVIOUS)
