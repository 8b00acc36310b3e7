"""comparison.png: learning curves of strategies, and their differences with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax.rounds.learning_curve import LABELS
from ait_jax.summaries import figures

# Okabe and Ito's colors: distinct for the color-blind, and dark enough for text. Line styles repeat
# what they say.
_COLORS = (figures.VERMILION, "#0072B2", "#007A59", "#B0528A", "#8A6500", figures.NAVY)
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_NAME = {"fontsize": 9.5, "fontweight": "bold", "va": "center"}
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.85, 0.35, 0.75, 0.9  # inches around a panel
_HEIGHT, _CURVES, _LABELS, _FOREST = 5.2, 5.6, 1.9, 3.4


def look(strategy: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a strategy's color, line and marker; the baseline is gray."""
    if strategy == result["baseline"]:
        return {"color": figures.FAINT_INK, "linestyle": "-", "marker": "o"}
    others = [name for name in result["strategies"] if name != result["baseline"]]
    i = others.index(strategy) if strategy in others else len(others)
    # After six, the colors repeat with other lines and markers.
    turn = i // len(_COLORS)
    return {
        "color": _COLORS[i % len(_COLORS)],
        "linestyle": _DASHES[(i + turn) % len(_DASHES)],
        "marker": _MARKERS[(i + turn) % len(_MARKERS)],
    }


def plot(path: Any, result: Mapping[str, Any]) -> None:
    """Writes the picture as a PNG; the same input gives the same bytes.

    On the left the curves: thick means, thin seeds, bands of one standard error on either side.
    Then differences to the baseline with paired intervals, and the paper's own curves if the
    result has them.
    """
    # What draws a panel, the indent and width of its axes, the width of the panel.
    panels = [(_draw_curves, 0.0, _CURVES, _CURVES + _LABELS)]
    if any(result["differences"].values()):
        panels.append((_draw_differences, 0.5, _FOREST, _FOREST + 0.6))
    if result["paper"]:
        panels.append((_draw_paper, 0.0, _CURVES * 0.75, _CURVES * 0.75 + _LABELS))
    width = sum(panel[-1] for panel in panels) + _LEFT * len(panels) + _RIGHT
    height = max(_HEIGHT, 2.2 + 0.75 * len(result["strategies"]))
    with figures.style():
        figure = figures.new_figure(width, height)
        bottom, tall = _BOTTOM / height, (height - _BOTTOM - _TOP) / height
        left = _LEFT
        for draw, indent, wide, whole in panels:
            draw(figure.add_axes(((left + indent) / width, bottom, wide / width, tall)), result)
            left += whole + _LEFT
        figures.save_png(figure, path)


def _draw_curves(axes: Any, result: Mapping[str, Any]) -> None:
    x = result["num_tasks"]
    ends: dict[str, float] = {}
    baseline_first = sorted(result["strategies"], key=lambda name: name != result["baseline"])
    for z, name in enumerate(baseline_first):
        style = look(name, result)
        for run in result["runs"]:
            if run["strategy"] == name:
                seed = [p["test"]["overall"] for p in run["points"] if p["round"] is not None]
                axes.plot(x, seed, color=style["color"], linewidth=0.7, alpha=0.45, zorder=2)
        points = result["curves"][name]["overall"]
        mean = [point["mean"] for point in points]
        errors = [(point["std"] or 0) / point["n"] ** 0.5 for point in points]
        low, high = ([m + sign * e for m, e in zip(mean, errors, strict=True)] for sign in (-1, 1))
        if any(errors):
            axes.fill_between(x, low, high, color=style["color"], alpha=0.13, linewidth=0, zorder=1)
        thick = {"linewidth": 2.3, "markersize": 6.5, "markeredgewidth": 0, "zorder": 4 + z}
        axes.plot(x, mean, clip_on=False, **thick, **style)
        ends[name] = mean[-1]
    _label_curves(axes, ends, result, x)
    axes.set_xticklabels([f"{n:,}\nround {i}" for i, n in enumerate(x)])
    seeds = len(result["seeds"])
    subtitle = f"means of {seeds} seeds, bands of ±1 standard error; thin lines are seeds"
    figures.add_title(axes, "Strategies compared", subtitle if seeds > 1 else "one seed")


def _label_curves(
    axes: Any, ends: Mapping[str, float], result: Mapping[str, Any], x: Sequence[float]
) -> None:
    """Labels the axes, and each curve's end with its name and value, moved apart as needed."""
    axes.set_xlabel("training tasks")
    axes.set_ylabel("test ROUGE-L")
    axes.margins(x=0.03, y=0.08)
    axes.figure.canvas.draw()
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.figure.get_figheight()
    places = spread(list(ends.values()), (high - low) / inches * 0.2)
    for (name, score), place in zip(ends.items(), places, strict=True):
        color = look(name, result)["color"]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5}
        axes.annotate(
            f"{name}  {score:.1f}",
            xy=(x[-1], score),
            xytext=(1.035, place),
            textcoords=axes.get_yaxis_transform(),
            color=color,
            annotation_clip=False,
            arrowprops=line,
            **_NAME,
        )
    axes.set_xticks(x)


def spread(values: Sequence[float], least: float) -> list[float]:
    """Returns `values`, moved apart as little as puts `least` between neighbors."""
    from scipy import optimize  # pyright: ignore[reportMissingTypeStubs] - SciPy has none

    order, steps = np.argsort(values, kind="stable"), least * np.arange(len(values))
    places = np.empty(len(values))
    # Without the steps, places at least that far apart are a sequence that does not fall.
    rising: Any = optimize.isotonic_regression(np.asarray(values)[order] - steps)
    places[order] = rising.x + steps
    return places.tolist()


def _draw_differences(axes: Any, result: Mapping[str, Any]) -> None:
    """Draws one row for each strategy and group: the last round's paired difference."""
    axes.axvline(0, color=figures.INK, linewidth=1, zorder=1)
    labels: dict[float, str] = {}  # place -> what stands there
    row = 0.0
    for name, groups in result["differences"].items():
        style = look(name, result)
        rows = {label: groups[g]["rounds"][-1] for g, label in LABELS.items() if g in groups}
        if "overall" in groups:
            rows["whole curve"] = groups["overall"]["area"]
        if rows:
            axes.annotate(
                name,
                xy=(0, row),
                xycoords=("axes fraction", "data"),
                xytext=(4, 1),
                textcoords="offset points",
                color=style["color"],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                **_NAME,
            )
            row += 0.7
        for label, found in rows.items():
            thick, size = (2.6, 7) if label == "overall" else (1.4, 5)
            if found["low"] is not None:
                line = {"linewidth": thick, "zorder": 2, "solid_capstyle": "butt"}
                axes.plot([found["low"], found["high"]], [row, row], color=style["color"], **line)
            mark = {"markersize": size, "markeredgewidth": 0, "zorder": 3, **style}
            axes.plot([found["mean"]], [row], **mark)
            labels[row] = label
            row += 0.62
        row += 0.3
    axes.set_ylim(row - 0.2, -0.6)
    axes.set_yticks(list(labels), list(labels.values()))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ROUGE-L")
    percent = f"{100 * result['confidence']:g}%"
    figures.add_title(
        axes,
        f"Minus {result['baseline']}, at {result['num_tasks'][-1]:,} tasks",
        f"paired by seed; {percent} intervals: across 0 is noise",
    )


def _draw_paper(axes: Any, result: Mapping[str, Any]) -> None:
    paper = result["paper"]
    x = paper["num_tasks"]
    ends: dict[str, float] = {}
    names = dict.fromkeys([*result["strategies"], *paper["test"]])
    shown = {**result, "strategies": list(names)}
    for name, groups in paper["test"].items():
        thin = {"linewidth": 1.6, "markersize": 4.5, "markeredgewidth": 0, **look(name, shown)}
        axes.plot(x, groups["overall"], clip_on=False, **thin)
        ends[name] = groups["overall"][-1]
    _label_curves(axes, ends, shown, x)
    figures.add_title(
        axes,
        "The paper's curves (theirs, not ours)",
        f"NIV2, T5-large, means of {paper['num_runs']} runs, read from Figure 3",
    )
