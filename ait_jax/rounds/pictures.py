"""A run's pictures: the task map of a round, and the learning curve of all rounds."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown
from ait_jax.rounds.learning_curve import GROUPS, LABELS, CurvePoint, by_num_tasks, series
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.task_map import AMBIGUOUS, CATEGORIES, DIFFICULT, EASY, OTHER, ranked
from ait_jax.selection.uncertainty import TaskScores
from ait_jax.summaries import figures

_MAP_COLORS = {
    AMBIGUOUS: figures.VERMILION,
    EASY: figures.SKY,
    DIFFICULT: figures.NAVY,
    OTHER: figures.GREY,
}
_X_TICKS = (
    *(1e-5, 1e-4, 5e-4, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
)
_NUM_LABELS = 9  # at most, where there is room
# Both legends stand to the right of their axes.
_LEGEND = {"loc": "upper left", "borderaxespad": 0, "labelspacing": 0.9}
_CURVE_COLORS = {"overall": figures.INK, "cls": figures.VERMILION, "gen": figures.SKY}
_LINES = {
    "test": {"linestyle": "-", "linewidth": 2.2},
    "dev": {"linestyle": (0, (4, 2.5)), "linewidth": 1.2},
}
_MOST_TICKS = 14


def plot_task_map(
    path: Any,
    context: SelectionContext,
    categories: Mapping[str, str],
    *,
    selected: Sequence[str] = (),
    round_index: int | None = None,
    strategy: str = "",
) -> None:
    """Writes the task map as a PNG of 1500 x 900 pixels; the same input gives the same bytes.

    Args:
      context: finite scores of 1 to tens of thousands of tasks; its pool's CLS tasks are circles,
        GEN tasks triangles.
      categories: as from `task_map.classify`.
      selected: the round's selection; these tasks get a ring.
      round_index, strategy: for the title; None: the tasks were scored outside of a run.

    Raises:
      UserError: no tasks, or scores that are not finite.
    """
    scores = context.scores
    _check_scores(scores)
    with figures.style():
        figure = figures.new_figure(10, 6)
        axes = figure.add_axes((0.07, 0.1, 0.665, 0.76))
        _set_map_axes(axes, scores)
        size = float(np.interp(np.log10(len(scores)), [1, 2, 3.3, 4.7], [70, 42, 14, 2]))
        cls = np.array([context.pool.is_cls(task) for task in scores.tasks])
        chosen_tasks = set(selected)
        ringed = np.array([task in chosen_tasks for task in scores.tasks])
        _draw_points(axes, scores, categories, cls, ringed, size)
        _draw_map_legend(axes, categories, cls, int(ringed.sum()))
        where = "Task map" if round_index is None else f"Task map, round {round_index}"
        tasks = "tasks" if round_index is None else "remaining tasks"
        chosen = f", {int(ringed.sum()):,} selected" if ringed.any() else ""
        by = f" by {strategy}" if strategy and chosen else ""
        figures.add_title(axes, where, f"{len(scores):,} {tasks}{chosen}{by}")
        _draw_labels(axes, scores, _tasks_to_label(context, categories, selected))
        figures.save_png(figure, path)


def _check_scores(scores: TaskScores) -> None:
    if not len(scores):
        raise UserError("Cannot draw a task map: there are no scored tasks.")
    finite = np.isfinite(scores.prompt_uncertainty) & np.isfinite(scores.prediction_probability)
    if not finite.all():
        names = [task for task, good in zip(scores.tasks, finite, strict=True) if not good]
        raise UserError(
            f"A task map needs finite scores; {len(names)} tasks have none, the first "
            f"{shown(names[0])}."
        )


def _set_map_axes(axes: Any, scores: TaskScores) -> None:
    largest = max(float(scores.prompt_uncertainty.max()), 1e-6)
    axes.set_xscale("function", functions=(np.cbrt, lambda x: x**3))
    axes.set_xlim(-((0.03 * np.cbrt(largest)) ** 3), (1.05 * np.cbrt(largest)) ** 3)
    ticks = _ticks(largest)
    axes.set_xticks(ticks, [f"{tick:.5f}".rstrip("0").rstrip(".") for tick in ticks])
    axes.set_xlabel("prompt uncertainty (cube-root axis)")
    low, high = scores.prediction_probability.min(), scores.prediction_probability.max()
    axes.set_ylim(np.floor(low * 10 - 0.3) / 10, min(1.025, np.ceil(high * 10 + 0.3) / 10))
    axes.set_ylabel("prediction probability")


def _ticks(largest: float) -> list[float]:
    """Returns round numbers in [0, largest], no two closer than 7% on the cube-root axis."""
    ticks = [0.0]
    for tick in _X_TICKS:
        if tick <= largest * 1.1 and np.cbrt(tick) - np.cbrt(ticks[-1]) >= 0.07 * np.cbrt(largest):
            ticks.append(tick)
    return ticks


def _draw_points(
    axes: Any,
    scores: TaskScores,
    categories: Mapping[str, str],
    cls: np.ndarray,
    ringed: np.ndarray,
    size: float,
) -> None:
    """Draws a marker for every task; `cls` and `ringed` are bool[tasks]."""
    x, y = scores.prompt_uncertainty, scores.prediction_probability
    of_category = np.array([categories[task] for task in scores.tasks])
    # The darker a crowd, the more points lie on each other.
    crowd_alpha = float(np.interp(size, [2, 14], [0.4, 0.6]))
    for category in reversed(CATEGORIES):  # the gray ones below
        for marker, group in (("o", cls), ("^", ~cls)):
            rows = (of_category == category) & group
            color, alpha = _MAP_COLORS[category], crowd_alpha if category == OTHER else 0.9
            axes.scatter(x[rows], y[rows], size, color, marker=marker, alpha=alpha, lw=0)
    axes.scatter(
        x[ringed],
        y[ringed],
        size * 2.6,
        facecolors="none",
        edgecolors=figures.INK,
        linewidths=float(np.interp(size, [2, 14, 70], [0.2, 0.7, 1.3])),
    )


def _draw_map_legend(
    axes: Any, categories: Mapping[str, str], cls: np.ndarray, num_selected: int
) -> None:
    """Draws one legend to the right of the axes: colors, shapes, rings, with counts."""
    from matplotlib.lines import Line2D

    def entry(marker: str, label: str, **look: Any) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=8, label=label, **look)

    counts = {name: sum(c == name for c in categories.values()) for name in CATEGORIES}
    entries = [
        entry("s", f"{name} ({counts[name]:,})", color=_MAP_COLORS[name], markeredgewidth=0)
        for name in CATEGORIES
    ]
    shape = {"color": figures.FAINT_INK, "markeredgewidth": 0}
    entries += [
        entry("o", f"CLS ({int(cls.sum()):,})", **shape),
        entry("^", f"GEN ({int((~cls).sum()):,})", **shape),
    ]
    if num_selected:
        ring = {"markerfacecolor": "none", "markeredgecolor": figures.INK}
        entries.append(entry("o", f"selected ({num_selected:,})", **ring))
    axes.legend(handles=entries, bbox_to_anchor=(1.03, 1.0), fontsize=10, **_LEGEND)


def _tasks_to_label(
    context: SelectionContext, categories: Mapping[str, str], selected: Sequence[str]
) -> list[str]:
    """Returns tasks, most telling first: each category's first ones in turn, then selected ones."""
    by_category = ranked(context, categories).values()
    names = [task for place in zip_longest(*by_category) for task in place if task is not None]
    rest = [task for task in selected if categories.get(task) == OTHER]
    if len(context.scores) <= _NUM_LABELS:
        named = {*names, *rest}
        rest += [task for task in context.scores.tasks if task not in named]
    return (names + rest)[:_NUM_LABELS]


def _draw_labels(axes: Any, scores: TaskScores, names: Sequence[str]) -> None:
    """Writes names beside their points, or numbers where a name would cover something.

    A list under the legend says whose the numbers are, so no map is too dense to label.
    """
    row_of = {task: row for row, task in enumerate(scores.tasks)}
    place = _Placement(axes, scores)
    listed: list[str] = []
    # In a crowd a long leader line would cross other points.
    near = _NAME_OFFSETS[:16] if len(scores) > 100 else _NAME_OFFSETS
    for name in names:
        text, size = (name if len(name) <= 34 else f"{name[:33]}…"), 7.5
        offset = place.find(row_of[name], text, size, near)
        if offset is None:
            text, size = str(len(listed) + 1), 8.5
            offset = place.find(row_of[name], text, size, _NUMBER_OFFSETS, may_cover=True)
            if offset is None:
                continue
            listed.append(place.fitted(f"{text}  {name}", 7.5))
        place.write(row_of[name], text, size, offset)
    axes.annotate(
        "\n".join(listed),
        xy=(1.035, 0.02),
        xycoords="axes fraction",
        ha="left",
        va="bottom",
        fontsize=7.5,
        linespacing=1.7,
    )


class _Placement:
    """Finds room for short texts around points, and remembers what is taken, in pixels."""

    def __init__(self, axes: Any, scores: TaskScores) -> None:
        self.axes = axes
        self.renderer = axes.figure.canvas.get_renderer()
        self.xy = np.column_stack([scores.prompt_uncertainty, scores.prediction_probability])
        self.points = axes.transData.transform(self.xy)
        self.frame = axes.get_window_extent(self.renderer)
        self.taken: list[tuple[float, float, float, float]] = []

    def find(
        self,
        row: int,
        text: str,
        font_size: float,
        offsets: Sequence[tuple[float, float]],
        may_cover: bool = False,
    ) -> tuple[float, float] | None:
        """Takes the nearest free place that covers no point; returns its offset in points.

        With `may_cover`, the place that covers the fewest points wins.
        """
        pixels = figures.DPI / 72
        width, height = self._size(text, font_size)
        spots = []
        for dx, dy in offsets:
            x = self.points[row, 0] + dx * pixels + width * (np.sign(dx) - 1) / 2
            y = self.points[row, 1] + dy * pixels + height * (np.sign(dy) - 1) / 2
            box = (x - 3, y - 3, x + width + 3, y + height + 3)
            if self._free(box):
                spots.append((self._covered(box, margin=5 if may_cover else 9), (dx, dy), box))
        if not spots:
            return None
        covered, offset, box = min(spots, key=lambda spot: spot[0])
        if covered and not may_cover:
            return None
        self.taken.append(box)
        return offset

    def fitted(self, text: str, font_size: float) -> str:
        """Returns `text` cut to the width of the list beside the axes."""
        room = self.axes.figure.bbox.width * 0.985 - (self.frame.x0 + 1.035 * self.frame.width)
        cut = text
        while self._size(cut, font_size)[0] > room:
            cut = f"{cut[:-2]}…"
        return cut

    def _size(self, text: str, font_size: float) -> tuple[float, float]:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(family="DejaVu Sans", size=font_size)
        return self.renderer.get_text_width_height_descent(text, font, False)[:2]

    def write(self, row: int, text: str, font_size: float, offset: tuple[float, float]) -> None:
        """Writes beside a row's point, with a line to it if they are far apart."""
        from matplotlib.patheffects import withStroke

        dx, dy = offset
        far = np.hypot(dx, dy) > 12
        line = {"arrowstyle": "-", "color": figures.FAINT_INK, "lw": 0.6}
        line |= {"shrinkA": 1, "shrinkB": 6}
        self.axes.annotate(
            text,
            self.xy[row],
            xytext=(dx, dy),
            textcoords="offset points",
            ha=("right", "center", "left")[int(np.sign(dx)) + 1],
            va=("top", "center", "bottom")[int(np.sign(dy)) + 1],
            fontsize=font_size,
            fontweight="bold" if text.isdigit() else "normal",
            zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops=line if far else None,
        )

    def _free(self, box: tuple) -> bool:
        x0, y0, x1, y1 = box
        frame = self.frame
        if x0 < frame.x0 or x1 > frame.x1 + 20 or y0 < frame.y0 or y1 > frame.y1 + 6:
            return False
        return all(x1 < a0 or a1 < x0 or y1 < b0 or b1 < y0 for a0, b0, a1, b1 in self.taken)

    def _covered(self, box: tuple, margin: float) -> int:
        """Returns how many points lie in the box or within `margin` pixels of it."""
        low, high = np.array(box[:2]) - margin, np.array(box[2:]) + margin
        return int(((self.points > low) & (self.points < high)).all(axis=1).sum())


def _offsets(*distances: float) -> tuple[tuple[float, float], ...]:
    """Returns places around a point, in points, nearest first."""
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
    return tuple((round(dx * d, 1), round(dy * d, 1)) for d in distances for dx, dy in sides)


_NAME_OFFSETS, _NUMBER_OFFSETS = _offsets(11, 18, 28), _offsets(8, 13, 20)


def plot_learning_curve(path: Any, points: Sequence[CurvePoint], *, strategy: str = "") -> None:
    """Writes the curve as a PNG of 1350 x 825 pixels; the same input gives the same bytes.

    Test figures are solid lines, dev figures dashed. An x tick gives the number of training tasks
    and the round.

    Raises:
      UserError: no points.
    """
    points = by_num_tasks(points)
    with figures.style():
        figure = figures.new_figure(9, 5.5)
        axes = figure.add_axes((0.08, 0.14, 0.645, 0.71))
        x = [point.num_tasks for point in points]
        for split in ("dev", "test"):  # test above dev
            for group in reversed(GROUPS):
                y = series(points, split, group)
                if any(value is not None for value in y):
                    axes.plot(
                        x,
                        [float("nan") if value is None else value for value in y],
                        color=_CURVE_COLORS[group],
                        marker="o" if split == "test" else ".",
                        markersize=6 if split == "test" else 5,
                        markeredgewidth=0,
                        clip_on=False,
                        zorder=3 if split == "test" else 2,
                        **_LINES[split],
                    )
        _set_curve_axes(axes, points)
        _draw_curve_legend(axes, points)
        by = f", tasks chosen by {strategy}" if strategy else ""
        figures.add_title(axes, "Learning curve", f"ROUGE-L on held-out tasks{by}")
        figures.save_png(figure, path)


def _set_curve_axes(axes: Any, points: Sequence[CurvePoint]) -> None:
    step = -(-len(points) // _MOST_TICKS)
    shown = list(points[::-step])[::-1]  # the last round always has its tick
    axes.set_xticks([point.num_tasks for point in shown])
    # Where there are many, the word would run into the next one.
    many = len(shown) > 8
    names = [point.name.removeprefix("round " if many else "") for point in shown]
    tasks = [f"{point.num_tasks:,}" for point in shown]
    axes.set_xticklabels(map("\n".join, zip(tasks, names, strict=True)))
    axes.set_xlabel("training tasks, and the round below" if many else "training tasks")
    axes.set_ylabel("ROUGE-L")
    axes.margins(x=0.04)
    if len(points) == 1:
        axes.set_xlim(points[0].num_tasks - 1, points[0].num_tasks + 1)


def _draw_curve_legend(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Draws the legend; each entry ends with its last figure and its gain."""
    from matplotlib.lines import Line2D

    entries = []
    for split in ("test", "dev"):
        for group in GROUPS:
            known = [value for value in series(points, split, group) if value is not None]
            if not known:
                continue
            gain = f" ({known[-1] - known[0]:+.1f})" if len(known) > 1 else ""
            label = f"{split} {LABELS[group]}  {known[-1]:.1f}{gain}"
            entries.append(Line2D([], [], color=_CURVE_COLORS[group], label=label, **_LINES[split]))
    legend = {"bbox_to_anchor": (1.02, 1.0), "handlelength": 2.4, "fontsize": 9.5, **_LEGEND}
    axes.legend(handles=entries, **legend)
