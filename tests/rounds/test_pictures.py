"""pictures.py: task maps that are there, the same bytes and legible."""

import numpy as np
import pytest
from selecting import context_of, random_scores, scores_at

from ait_jax.errors import UserError
from ait_jax.rounds import pictures
from ait_jax.rounds.pictures import plot_task_map
from ait_jax.selection.task_map import classify
from ait_jax.selection.uncertainty import TaskScores


@pytest.mark.parametrize("n", [1, 3, 60])
def test_plots_are_the_same_bytes(tmp_path, n):
    context = context_of(random_scores(n), 5)
    categories = classify(context)
    for name in ("a.png", "b.png"):
        selected = context.scores.tasks[:2]
        plot_task_map(tmp_path / name, context, categories, selected=selected, round_index=0)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [1500, 900]


def test_the_selection_changes_the_picture(tmp_path):
    context = context_of(random_scores(20), 5)
    drawn = set()
    for options in ({}, {"selected": context.scores.tasks[:3]}):
        plot_task_map(tmp_path / "a.png", context, classify(context), **options)
        drawn.add((tmp_path / "a.png").read_bytes())
    assert len(drawn) == 2


def test_all_scores_zero_and_awkward_names(tmp_path):
    scores = scores_at({"$x^{": (0.0, 0.5), "<b>": (0.0, 0.5), "{": (0.0, 1.0), "東京": (0.0, 0.5)})
    categories = dict.fromkeys(scores.tasks, "other")
    plot_task_map(tmp_path / "a.png", context_of(scores, 1), categories)
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("n", [60, 2000])
def test_labels_do_not_overlap(monkeypatch, tmp_path, n):
    taken = []

    class Recording(pictures._Placement):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            taken.append(self.taken)

    monkeypatch.setattr(pictures, "_Placement", Recording)
    context = context_of(random_scores(n), n // 10)
    plot_task_map(tmp_path / "a.png", context, classify(context))
    (boxes,) = taken
    assert len(boxes) >= 6
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for a0, b0, a1, b1 in boxes[:i]:
            assert x1 < a0 or a1 < x0 or y1 < b0 or b1 < y0


def test_ticks_are_apart_and_in_range():
    for largest in (1e-6, 0.003, 0.02, 0.3, 1.0):
        ticks = np.array(pictures._ticks(largest))
        assert ticks[0] == 0 and ticks[-1] <= 1.1 * largest
        assert (np.diff(np.cbrt(ticks)) >= 0.07 * np.cbrt(largest)).all()
        assert largest < 1e-4 or len(ticks) >= 4


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(UserError, match="no scored tasks"):
        plot_task_map(path, context_of(TaskScores.unscored([]), 1), {})
    with pytest.raises(UserError, match="2 tasks have none, the first 'a'"):
        plot_task_map(path, context_of(TaskScores.unscored("ab"), 1), {})
    assert not path.exists()
