"""overlap.py: by hand, against simulated draws, and on the layout of the released splits."""

import numpy as np
import pytest
from shared_data import ACTIVE_IT, needs_shared

from ait_jax.compare import overlap
from ait_jax.compare.overlap import Draw
from ait_jax.errors import UserError


def draw(selected, offered) -> Draw:
    return Draw(frozenset(selected), frozenset(offered))


def test_by_hand():
    found = overlap.overlap(draw("abc", "abcdef"), draw("bcd", "abcdgh"))
    assert (found.common, found.jaccard) == (2, 2 / 4)
    # 4 tasks were offered to both, each in either draw with the chance 1/2.
    assert found.expected_common == 1.0 and found.expected_jaccard == 1 / 5
    nothing = overlap.overlap(draw("", ""), draw("", "ab"))
    assert nothing.jaccard is None and nothing.expected_jaccard is None


def test_expected_is_what_random_draws_share():
    rng = np.random.default_rng(0)
    first, second = (
        np.array([f"task{i}" for i in numbers]) for numbers in (range(30), range(10, 50))
    )
    common = [
        len(
            np.intersect1d(
                rng.choice(first, 12, replace=False), rng.choice(second, 8, replace=False)
            )
        )
        for _ in range(4000)
    ]
    expected = overlap.overlap(draw(first[:12], first), draw(second[:8], second)).expected_common
    assert np.mean(common) == pytest.approx(expected, abs=4 * np.std(common) / 4000**0.5)


def write(folder, name, train, remain):
    (folder / name).mkdir(parents=True)
    (folder / name / "train_tasks.txt").write_text("\n".join(train))
    (folder / name / "remain_tasks.txt").write_text("\n".join(remain))


def test_released_layout(tmp_path):
    split = tmp_path / "TLAL_Exp0_all_10"
    write(split, "Random_0", "ab", "cdef")
    write(split, "Random_1", "abc", "def")
    write(split, "Random_2", "ab", "cdef")  # the initial tasks again, as in two released splits
    write(split, "init", "ab", "cdef")
    for folder in (tmp_path, split):
        assert overlap.released(folder) == {(split.name, "random"): [draw("c", "cdef")]}
    assert overlap.only(draw("c", "cdef"), "abd") == draw("", "d")
    with pytest.raises(UserError, match="RELEASED_SELECTIONS = .*no folders of splits"):
        overlap.released(split / "init")
    with pytest.raises(UserError, match="is not a folder"):
        overlap.released(tmp_path / "missing")


@needs_shared
def test_the_released_splits():
    found = overlap.released(ACTIVE_IT)
    assert len({split for split, _ in found}) == 1
    split = {strategy: draws for (_, strategy), draws in found.items()}
    sizes = {name: [len(each.selected) for each in draws] for name, draws in split.items()}
    assert sizes.pop("prompt_uncertainty") == [68] * 4
    assert sizes == {name: [68] * 5 for name in ("random", "high_perplexity", "low_perplexity")}
    # paper_facts A5: after round 0 the paper's tasks and high and low perplexity's share 5 and 3.
    ours, high, low = (
        split[n][0] for n in ("prompt_uncertainty", "high_perplexity", "low_perplexity")
    )
    assert overlap.overlap(ours, high).common == 5 and overlap.overlap(ours, low).common == 3
