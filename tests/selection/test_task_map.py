"""task_map.py: categories by hand, plots that are there, the same bytes and legible."""

from collections import Counter

import numpy as np
import pytest

from ait_jax.errors import UserError
from ait_jax.selection import selection, task_map
from ait_jax.selection.task_map import classify, plot_task_map
from ait_jax.selection.uncertainty import LikelihoodTable, TaskScores, task_scores


def is_cls(name: str) -> bool:
    return name.startswith("c")


def scores_at(points: dict[str, tuple[float, float]]) -> TaskScores:
    """Scores with given (prompt uncertainty, probability), through a likelihood table."""
    rows = []
    for name, (uncertainty, probability) in points.items():
        for j, p in enumerate((probability, probability - uncertainty)):
            rows.append((name, "0", j, np.log(p)))
    return task_scores(LikelihoodTable.from_columns(*zip(*rows, strict=True)))


def random_scores(n: int) -> TaskScores:
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.3, 1.0, n)
    uncertainty = probability * generator.beta(1, 8, n)
    return scores_at(
        {
            f"{'cg'[i % 3 > 0]}task{i:04d}_with_quite_a_long_name_of_its_own": point
            for i, point in enumerate(zip(uncertainty, probability, strict=True))
        }
    )


CORNERS = {
    "c_sure": (0.001, 0.95),
    "g_lost": (0.002, 0.30),
    "c_torn": (0.250, 0.60),
    "g_middling": (0.05, 0.62),
    "c_middling": (0.06, 0.64),
    "g_other": (0.07, 0.66),
}


def test_categories_by_hand():
    categories = classify(scores_at(CORNERS), 1, is_cls=is_cls)
    assert categories.pop("c_torn") == "ambiguous"
    assert categories.pop("c_sure") == "easy"
    assert categories.pop("g_lost") == "difficult"
    assert set(categories.values()) == {"other"} and len(categories) == 3


def test_categories_are_what_the_strategies_select():
    scores = random_scores(300)
    categories = classify(scores, 30, is_cls=is_cls, cls_ratio=0.356)
    options = {"is_cls": is_cls, "cls_ratio": 0.356, "seed": 0, "round": 0}
    for name in ("ambiguous", "easy", "difficult"):
        chosen = selection.select(selection.strategy(name), scores, 30, **options)
        assert {t for t, c in categories.items() if c == name} == set(chosen.tasks)
        assert chosen.num_cls == 10
    assert list(categories) == list(scores.tasks)


def test_chunks_of_a_small_pool_do_not_meet_more_than_they_must():
    for n in range(1, 12):
        counts = Counter(classify(random_scores(n), 68, is_cls=is_cls).values())
        assert sum(counts.values()) == n and counts["ambiguous"] == max(1, n // 3)
    assert classify(TaskScores.unscored([]), 3, is_cls=is_cls) == {}
    with pytest.raises(UserError, match="is 0"):
        classify(random_scores(3), 0, is_cls=is_cls)


def test_a_task_in_two_chunks_takes_the_better_place():
    # Probability rises with uncertainty: all tie for easy, which leaves a and b by name, and
    # a and b are the most difficult too.
    scores = scores_at({n: (0.01 * (i + 1), 0.5 + 0.1 * i) for i, n in enumerate("abcdef")})
    categories = classify(scores, 2, is_cls=is_cls)
    assert [n for n in "abcdef" if categories[n] == "ambiguous"] == ["e", "f"]
    assert categories["a"] == categories["b"] == "easy"
    # Now b is first among the difficult (its rank sum is 1, a's 2) and second among the easy.
    points = dict(zip("abcdef", [0.8, 0.5, 0.6, 0.7, 0.9, 0.95], strict=True))
    points = {n: (0.01 * (i + 1), p) for i, (n, p) in enumerate(points.items())}
    scores = scores_at(points)
    assert selection.Difficult().rank(scores, None)[:2] == ["b", "a"]
    categories = classify(scores, 2, is_cls=is_cls)
    assert categories["a"] == "easy" and categories["b"] == "difficult"


@pytest.mark.parametrize("n", [1, 3, 60])
def test_plots_are_the_same_bytes(tmp_path, n):
    scores = random_scores(n)
    categories = classify(scores, 5, is_cls=is_cls)
    for name in ("a.png", "b.png"):
        selected = scores.tasks[:2]
        plot_task_map(
            tmp_path / name, scores, categories, is_cls=is_cls, selected=selected, round=0
        )
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [1500, 900]


def test_scale_and_selection_change_the_picture(tmp_path):
    scores = random_scores(20)
    categories = classify(scores, 5, is_cls=is_cls)
    pictures = set()
    for options in ({}, {"x_scale": "linear"}, {"selected": scores.tasks[:3]}):
        plot_task_map(tmp_path / "a.png", scores, categories, is_cls=is_cls, **options)
        pictures.add((tmp_path / "a.png").read_bytes())
    assert len(pictures) == 3


def test_all_scores_zero_and_awkward_names(tmp_path):
    scores = scores_at({"$x^{": (0.0, 0.5), "<b>": (0.0, 0.5), "": (0.0, 1.0), "東京": (0.0, 0.5)})
    plot_task_map(tmp_path / "a.png", scores, dict.fromkeys(scores.tasks, "other"), is_cls=is_cls)
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("n", [60, 2000])
def test_labels_do_not_overlap(monkeypatch, tmp_path, n):
    taken = []

    class Recording(task_map._Placement):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            taken.append(self.taken)

    monkeypatch.setattr(task_map, "_Placement", Recording)
    scores = random_scores(n)
    categories = classify(scores, n // 10, is_cls=is_cls)
    plot_task_map(tmp_path / "a.png", scores, categories, is_cls=is_cls)
    (boxes,) = taken
    assert len(boxes) >= 6
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for a0, b0, a1, b1 in boxes[:i]:
            assert x1 < a0 or a1 < x0 or y1 < b0 or b1 < y0


def test_ticks_are_apart_and_in_range():
    for largest in (1e-6, 0.003, 0.02, 0.3, 1.0):
        ticks = np.array(task_map._ticks(largest))
        assert ticks[0] == 0 and ticks[-1] <= 1.1 * largest
        assert (np.diff(np.cbrt(ticks)) >= 0.07 * np.cbrt(largest)).all()
        assert largest < 1e-4 or len(ticks) >= 4


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path, scores = tmp_path / "a.png", random_scores(3)
    with pytest.raises(UserError, match="Did you mean 'cube_root'"):
        plot_task_map(path, scores, {}, is_cls=is_cls, x_scale="cuberoot")
    with pytest.raises(UserError, match="no scored tasks"):
        plot_task_map(path, TaskScores.unscored([]), {}, is_cls=is_cls)
    with pytest.raises(UserError, match="2 tasks have none, the first 'a'"):
        plot_task_map(path, TaskScores.unscored("ab"), {}, is_cls=is_cls)
    assert not path.exists()
