"""The task map: which remaining tasks are ambiguous, easy or difficult for the model.

x is prompt uncertainty, y prediction probability (arXiv 2311.00288, section 5). The
authors use no thresholds: a category is the chunk of tasks that a strategy would select
(`selection.Ambiguous`, `Easy`, `Difficult`), and the rest is neither.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ait_jax.errors import UserError, nearest
from ait_jax.selection import selection
from ait_jax.selection.uncertainty import TaskScores
from ait_jax.summaries import figures

AMBIGUOUS, EASY, DIFFICULT, OTHER = "ambiguous", "easy", "difficult", "other"
CATEGORIES = (AMBIGUOUS, EASY, DIFFICULT, OTHER)
_STRATEGIES = {
    AMBIGUOUS: selection.Ambiguous(),
    EASY: selection.Easy(),
    DIFFICULT: selection.Difficult(),
}
_COLORS = {
    AMBIGUOUS: figures.VERMILION,
    EASY: figures.SKY,
    DIFFICULT: figures.NAVY,
    OTHER: figures.GREY,
}
_X_TICKS = (
    *(1e-5, 1e-4, 5e-4, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
)


def classify(
    scores: TaskScores,
    size: int,
    *,
    is_cls: Callable[[str], bool],
    cls_ratio: float | None = None,
) -> dict[str, str]:
    """Returns {task: "ambiguous" | "easy" | "difficult" | "other"}, tasks as in `scores`.

    Each category is the chunk of `size` tasks (TASKS_PER_ROUND in the paper) that its
    strategy selects, with the same CLS/GEN ratio. In a small pool chunks would meet, so a
    chunk is at most a third of the tasks, and a task in several is ambiguous before all,
    else easy or difficult, whichever ranks it better (easy if equal).

    Raises:
      UserError: size below 1, or scores that are not finite.
    """
    if size < 1:
        raise UserError(f"The size of a task map's categories is {size}; it must be at least 1.")
    category_of = dict.fromkeys(scores.tasks, OTHER)
    if not len(scores):
        return category_of
    size = min(size, max(1, len(scores) // 3))
    place_of: dict[str, int] = {}
    for category in (AMBIGUOUS, EASY, DIFFICULT):
        chosen = selection.select(
            _STRATEGIES[category], scores, size, is_cls=is_cls, cls_ratio=cls_ratio, seed=0, round=0
        )
        for place, task in enumerate(chosen.tasks):
            rival = category_of[task]
            if rival == OTHER or (rival == EASY and place < place_of[task]):
                category_of[task], place_of[task] = category, place
    return category_of


def ranked(scores: TaskScores, categories: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the tasks of "ambiguous", "easy" and "difficult", the most telling ones first.

    Args:
      categories: as from `classify`.
    """
    context = selection.SelectionContext(seed=0, round=0)
    return {
        category: [t for t in strategy.rank(scores, context) if categories[t] == category]
        for category, strategy in _STRATEGIES.items()
    }


def plot_task_map(
    path: Any,
    scores: TaskScores,
    categories: Mapping[str, str],
    *,
    is_cls: Callable[[str], bool],
    selected: Sequence[str] = (),
    round: int | None = None,
    strategy: str = "",
    x_scale: str = "cube_root",
    num_labels: int = 9,
) -> None:
    """Writes the task map as a PNG of 1500 x 900 pixels; the same input gives the same bytes.

    Args:
      path: file to write, local or any epath.
      scores: of the remaining tasks, finite; 1 to tens of thousands.
      categories: as from `classify`.
      is_cls: circles for CLS, triangles for GEN.
      selected: tasks to ring: the round's selection.
      round, strategy: for the title; without a round it is a map of tasks that were only scored.
      x_scale: "cube_root" as in the authors' figures, or "linear".
      num_labels: at most so many names are written, where there is room.

    Raises:
      UserError: an unknown x_scale, no tasks, or scores that are not finite.
    """
    _check(scores, x_scale)
    with figures.style():
        figure = figures.new_figure(10, 6)
        axes = figure.add_axes((0.07, 0.1, 0.665, 0.76))
        _set_axes(axes, scores, x_scale)
        size = float(np.interp(np.log10(len(scores)), [1, 2, 3.3, 4.7], [70, 42, 14, 2]))
        cls = np.array([bool(is_cls(task)) for task in scores.tasks])
        chosen_tasks = set(selected)
        ringed = np.array([task in chosen_tasks for task in scores.tasks])
        _draw_points(axes, scores, categories, cls, ringed, size)
        _draw_legend(axes, categories, cls, int(ringed.sum()))
        where = "Task map" if round is None else f"Task map, round {round}"
        tasks = "tasks" if round is None else "remaining tasks"
        chosen = f", {int(ringed.sum()):,} selected" if ringed.any() else ""
        by = f" by {strategy}" if strategy and chosen else ""
        figures.add_title(axes, where, f"{len(scores):,} {tasks}{chosen}{by}")
        _draw_labels(axes, scores, _tasks_to_label(scores, categories, selected, num_labels))
        figures.save_png(figure, path)


def _check(scores: TaskScores, x_scale: str) -> None:
    scales = ("cube_root", "linear")
    if x_scale not in scales:
        raise UserError(
            f"A task map's x_scale is {x_scale!r}.{nearest(x_scale, scales)} It must be one of "
            f"{', '.join(scales)}."
        )
    if not len(scores):
        raise UserError("There are no scored tasks to draw a task map of.")
    finite = np.isfinite(scores.prompt_uncertainty) & np.isfinite(scores.prediction_probability)
    if not finite.all():
        names = [task for task, good in zip(scores.tasks, finite) if not good]
        raise UserError(
            f"A task map needs finite scores; {len(names)} tasks have none, the first {names[0]!r}."
        )


def _set_axes(axes: Any, scores: TaskScores, x_scale: str) -> None:
    largest = max(float(scores.prompt_uncertainty.max()), 1e-6)
    if x_scale == "cube_root":
        axes.set_xscale("function", functions=(np.cbrt, lambda x: x**3))
        axes.set_xlim(-((0.03 * np.cbrt(largest)) ** 3), (1.05 * np.cbrt(largest)) ** 3)
        axes.set_xticks(_ticks(largest))
        axes.set_xticklabels([f"{tick:.5f}".rstrip("0").rstrip(".") for tick in _ticks(largest)])
        axes.set_xlabel("prompt uncertainty (cube-root axis)")
    else:
        axes.set_xlim(-0.03 * largest, 1.06 * largest)
        axes.set_xlabel("prompt uncertainty")
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


def _draw_points(axes, scores: TaskScores, categories, cls, ringed, size: float) -> None:
    x, y = scores.prompt_uncertainty, scores.prediction_probability
    of_category = np.array([categories[task] for task in scores.tasks])
    # Where many points lie on each other, their darkness tells how many.
    crowd_alpha = float(np.interp(size, [2, 14], [0.4, 0.6]))
    for category in reversed(CATEGORIES):  # the grey ones below
        for marker, group in (("o", cls), ("^", ~cls)):
            rows = (of_category == category) & group
            color, alpha = _COLORS[category], crowd_alpha if category == OTHER else 0.9
            axes.scatter(x[rows], y[rows], size, color, marker=marker, alpha=alpha, lw=0)
    axes.scatter(
        x[ringed],
        y[ringed],
        size * 2.6,
        facecolors="none",
        edgecolors=figures.INK,
        linewidths=float(np.interp(size, [2, 14, 70], [0.2, 0.7, 1.3])),
    )


def _draw_legend(axes, categories: Mapping[str, str], cls, num_selected: int) -> None:
    """Draws one legend to the right of the axes: colours, shapes, rings, with counts."""
    from matplotlib.lines import Line2D

    def entry(marker: str, label: str, **look) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=8, label=label, **look)

    counts = {name: sum(c == name for c in categories.values()) for name in CATEGORIES}
    entries = [
        entry("s", f"{name} ({counts[name]:,})", color=_COLORS[name], markeredgewidth=0)
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
    axes.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(1.03, 1.0),
        borderaxespad=0,
        labelspacing=0.9,
        fontsize=10,
    )


def _tasks_to_label(
    scores: TaskScores, categories: Mapping[str, str], selected: Sequence[str], num_labels: int
) -> list[str]:
    """Returns names, most telling first: every category's first tasks in turn, then selected."""
    by_category = ranked(scores, categories).values()
    names = [task for place in zip_longest(*by_category) for task in place if task is not None]
    rest = [task for task in selected if categories.get(task) == OTHER]
    if len(scores) <= num_labels:
        named = {*names, *rest}
        rest += [task for task in scores.tasks if task not in named]
    return (names + rest)[:num_labels]


def _draw_labels(axes: Any, scores: TaskScores, names: Sequence[str]) -> None:
    """Writes names beside their points; where a name would cover something, a number does.

    The numbers' names stand in a list under the legend, so no map is too dense to label.
    """
    row_of = {task: row for row, task in enumerate(scores.tasks)}
    place = _Placement(axes, scores)
    listed: list[str] = []
    # In a crowd a long leader line would cross other points.
    near = _NAME_OFFSETS[:16] if len(scores) > 100 else _NAME_OFFSETS
    for name in names:
        text = name if len(name) <= 34 else f"{name[:33]}…"
        spot = place.find(row_of[name], text, 7.5, near)
        if spot is None:
            text = str(len(listed) + 1)
            spot = place.find(row_of[name], text, 8.5, _NUMBER_OFFSETS, may_cover=True)
            if spot is None:
                continue
            listed.append(place.fitted(f"{text}  {name}", 7.5))
        place.write(row_of[name], text, spot)
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
    """Finds room for short texts around points; keeps what is taken, in pixels."""

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
    ) -> tuple | None:
        """Returns (offset in points, font size) of the best free place, or None.

        Near places come first; with `may_cover` the one covering the fewest points wins.
        """
        pixels = figures.DPI / 72
        width, height = self._size(text, font_size)
        best = None
        for dx, dy in offsets:
            x = self.points[row, 0] + dx * pixels + width * (np.sign(dx) - 1) / 2
            y = self.points[row, 1] + dy * pixels + height * (np.sign(dy) - 1) / 2
            box = (x - 3, y - 3, x + width + 3, y + height + 3)
            if not self._free(box):
                continue
            covered = self._covered(box, margin=5 if may_cover else 9)
            if covered and not may_cover:
                continue
            if best is None or covered < best[0]:
                best = (covered, (dx, dy), font_size, box)
            if not covered:
                break
        if best is None:
            return None
        self.taken.append(best[3])
        return best[1], best[2]

    def fitted(self, text: str, font_size: float) -> str:
        """Returns `text` cut to the width of the list right of the axes."""
        room = self.axes.figure.bbox.width * 0.985 - (self.frame.x0 + 1.035 * self.frame.width)
        cut = text
        while self._size(cut, font_size)[0] > room:
            cut = f"{cut[:-2]}…"
        return cut

    def _size(self, text: str, font_size: float) -> tuple[float, float]:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(family="DejaVu Sans", size=font_size)
        return self.renderer.get_text_width_height_descent(text, font, False)[:2]

    def write(self, row: int, text: str, spot: tuple) -> None:
        from matplotlib.patheffects import withStroke

        (dx, dy), font_size = spot
        far = np.hypot(dx, dy) > 12
        line = {
            "arrowstyle": "-",
            "color": figures.FAINT_INK,
            "lw": 0.6,
            "shrinkA": 1,
            "shrinkB": 6,
        }
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
