"""The learning curve: ROUGE-L on held-out tasks against the number of training tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import ROUGE_L
from ait_jax.summaries import figures

GROUPS = ("overall", "cls", "gen")
_LABELS = {"overall": "overall", "cls": "CLS", "gen": "GEN"}
_COLORS = {"overall": figures.INK, "cls": figures.VERMILION, "gen": figures.SKY}
_LINES = {
    "test": {"linestyle": "-", "linewidth": 2.2},
    "dev": {"linestyle": (0, (4, 2.5)), "linewidth": 1.2},
}
_BARS = "▁▂▃▄▅▆▇█"
_MOST_TICKS = 14


@dataclass(frozen=True)
class CurvePoint:
    """One evaluated model.

    Attributes:
      round: None for the base model before any training.
      num_tasks: how many tasks it was trained on, 0 for the base model.
      test, dev: {"overall", "cls", "gen": ROUGE-L in percent or None}; dev may be empty.
    """

    round: int | None
    num_tasks: int
    test: Mapping[str, float | None]
    dev: Mapping[str, float | None]

    @property
    def name(self) -> str:
        return "base" if self.round is None else f"round {self.round}"

    @classmethod
    def from_evaluation(
        cls, round: int | None, num_tasks: int, evaluation: Mapping[str, Mapping[str, Any]]
    ) -> "CurvePoint":
        """Takes the ROUGE-L figures out of an `evaluation.evaluate_splits` result (eval.json)."""
        return cls(
            round, num_tasks, _figures(evaluation.get("test")), _figures(evaluation.get("dev"))
        )


def _figures(result: Mapping[str, Any] | None) -> dict[str, float | None]:
    if not result:
        return {}
    return {
        "overall": result[ROUGE_L],
        "cls": result["cls"][ROUGE_L],
        "gen": result["gen"][ROUGE_L],
    }


def plot_learning_curve(path: Any, points: Sequence[CurvePoint], *, strategy: str = "") -> None:
    """Writes the curve as a PNG of 1350 x 825 pixels; the same input gives the same bytes.

    Test figures are solid lines, dev figures dashed. Each x tick gives the number of
    training tasks and the round.

    Raises:
      UserError: no points.
    """
    _check(points)
    points = sorted(points, key=lambda point: point.num_tasks)
    with figures.style():
        figure = figures.new_figure(9, 5.5)
        axes = figure.add_axes((0.08, 0.14, 0.645, 0.71))
        x = [point.num_tasks for point in points]
        for split in ("dev", "test"):  # test above dev
            for group in reversed(GROUPS):
                y = _series(points, split, group)
                if any(value is not None for value in y):
                    axes.plot(
                        x,
                        [float("nan") if value is None else value for value in y],
                        color=_COLORS[group],
                        marker="o" if split == "test" else ".",
                        markersize=6 if split == "test" else 5,
                        markeredgewidth=0,
                        clip_on=False,
                        zorder=3 if split == "test" else 2,
                        **_LINES[split],
                    )
        _set_axes(axes, points)
        _draw_legend(axes, points)
        by = f", tasks chosen by {strategy}" if strategy else ""
        figures.add_title(axes, "Learning curve", f"ROUGE-L on held-out tasks{by}")
        figures.save_png(figure, path)


def _check(points: Sequence[CurvePoint]) -> None:
    if not points:
        raise UserError("There is no evaluated round to draw a learning curve of.")


def _series(points: Sequence[CurvePoint], split: str, group: str) -> list[float | None]:
    return [getattr(point, split).get(group) for point in points]


def _set_axes(axes: Any, points: Sequence[CurvePoint]) -> None:
    step = -(-len(points) // _MOST_TICKS)
    shown = list(points[::-step])[::-1]  # the last round always has its tick
    axes.set_xticks([point.num_tasks for point in shown])
    # Two lines a tick: the words would run into each other where there are many.
    word = "" if len(shown) > 8 else "round "
    names = ["base" if point.round is None else f"{word}{point.round}" for point in shown]
    axes.set_xticklabels([f"{point.num_tasks:,}\n{name}" for point, name in zip(shown, names)])
    axes.set_xlabel("training tasks" if word else "training tasks, and the round below")
    axes.set_ylabel("ROUGE-L")
    axes.margins(x=0.04)
    if len(points) == 1:
        axes.set_xlim(points[0].num_tasks - 1, points[0].num_tasks + 1)


def _draw_legend(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Draws the legend right of the axes; each entry ends with its last figure and its gain."""
    from matplotlib.lines import Line2D

    entries = []
    for split in ("test", "dev"):
        for group in GROUPS:
            known = [value for value in _series(points, split, group) if value is not None]
            if not known:
                continue
            gain = f" ({known[-1] - known[0]:+.1f})" if len(known) > 1 else ""
            label = f"{split} {_LABELS[group]}  {known[-1]:.1f}{gain}"
            entries.append(Line2D([], [], color=_COLORS[group], label=label, **_LINES[split]))
    axes.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        labelspacing=0.9,
        handlelength=2.4,
        fontsize=9.5,
    )


def render_text(points: Sequence[CurvePoint]) -> str:
    """Returns the curve as a table with a sparkline under each column, for a terminal.

    Columns without any figure are left out; a missing figure is a dash.

    Raises:
      UserError: no points.
    """
    _check(points)
    points = sorted(points, key=lambda point: point.num_tasks)
    columns = [["", *(point.name for point in points), "gain", ""]]
    columns.append(["tasks", *(f"{point.num_tasks:,}" for point in points), "", ""])
    for split in ("test", "dev"):
        for group in GROUPS:
            values = _series(points, split, group)
            known = [value for value in values if value is not None]
            if known:
                cells = ["-" if value is None else f"{value:.2f}" for value in values]
                gain = f"{known[-1] - known[0]:+.2f}" if len(known) > 1 else ""
                header = split if group == "overall" else f"{split} {_LABELS[group]}"
                columns.append([header, *cells, gain, sparkline(values)])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    if len(points) == 1:
        lines = lines[:2]
    return "\n".join(["ROUGE-L", *lines])


def sparkline(values: Sequence[float | None]) -> str:
    """Returns one block character per value, lowest to highest; a space for None."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, spread = min(known), max(known) - min(known)
    return "".join(
        " " if value is None else _BARS[round((value - low) / spread * 7) if spread else 3]
        for value in values
    )
