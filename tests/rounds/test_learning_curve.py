"""learning_curve.py: figures taken from evaluations, text worked by hand, stable plots."""

import pytest

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import Prediction, evaluate_splits
from ait_jax.rounds import pictures
from ait_jax.rounds.learning_curve import CurvePoint, render_text, sparkline
from ait_jax.rounds.pictures import plot_learning_curve


def point(round_index, num_tasks, overall, cls=None, dev=None) -> CurvePoint:
    return CurvePoint(
        round_index,
        num_tasks,
        {"overall": overall, "cls": cls, "gen": None},
        {"overall": dev} if dev is not None else {},
    )


POINTS = [
    point(0, 8, 22.25, 30.0, 20.0),
    point(None, 0, 18.0, 31.0),
    point(1, 1016, 25.0, 35.5, 24.0),
]


def test_text_by_hand():
    assert render_text(POINTS) == "\n".join(
        [
            "ROUGE-L",
            "         tasks   test  test CLS    dev",
            "base         0  18.00     31.00      -",
            "round 0      8  22.25     30.00  20.00",
            "round 1  1,016  25.00     35.50  24.00",
            "gain            +7.00     +4.50  +4.00",
            "                  ▁▅█       ▂▁█     ▁█",
        ]
    )


def test_one_point_has_no_gain():
    assert render_text(POINTS[:1]).splitlines()[2:] == ["round 0      8  22.25     30.00  20.00"]


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, None, 5]) == "▄ ▄"
    assert sparkline([None, None]) == "  "
    assert sparkline([3, 1]) == "█▁"


def test_points_come_from_evaluations():
    predictions = [Prediction("c", "0", "yes", ("yes",)), Prediction("g", "0", "a b", ("a c",))]
    result = evaluate_splits(
        predictions, {"test": ["c", "g"], "dev": []}, lambda task: task == "c", lambda task: "x"
    )
    taken = CurvePoint.from_evaluation(2, 24, result)
    assert taken.test == {"overall": 75.0, "cls": 100.0, "gen": 50.0}
    assert taken.dev == {"overall": None, "cls": None, "gen": None}
    assert taken.name == "round 2" and CurvePoint.from_evaluation(None, 0, {}).name == "base"
    assert "dev" not in render_text([taken])


def test_plots_are_the_same_bytes_in_any_order(tmp_path):
    plot_learning_curve(tmp_path / "a.png", POINTS, strategy="random")
    plot_learning_curve(tmp_path / "b.png", POINTS[::-1], strategy="random")
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [1350, 825]
    plot_learning_curve(tmp_path / "b.png", POINTS[:2], strategy="random")
    assert data != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("num_points", [1, 40])
def test_few_and_many_points_are_drawn(tmp_path, num_points):
    points = [point(i, i * 8, 20.0 + i) for i in range(num_points)]
    plot_learning_curve(tmp_path / "a.png", points)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_last_round_always_has_a_tick():
    axes = pictures.figures.new_figure(9, 5).add_axes((0, 0, 1, 1))
    pictures._set_curve_axes(axes, [point(i, i * 8, 20.0) for i in range(40)])
    assert axes.get_xticks()[-1] == 39 * 8 and len(axes.get_xticks()) <= 14


def test_no_points_are_refused(tmp_path):
    with pytest.raises(UserError, match="no evaluated round"):
        plot_learning_curve(tmp_path / "a.png", [])
    with pytest.raises(UserError, match="no evaluated round"):
        render_text([])
