"""A run's status as lines for a terminal: the live view, `ait-jax status`, lists of runs."""

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ait_jax.errors import shown, visible
from ait_jax.rounds import run_status
from ait_jax.rounds.learning_curve import CurvePoint, render_text, sparkline
from ait_jax.runtime.reporter import RUNNING, Reporter
from ait_jax.runtime.terminal import duration

_GOOD, _BAD, _FAINT = "green", "yellow", "dim"
_BYTES = 1_000_000
# For terminals without Unicode.
_ASCII = str.maketrans("━─▁▂▃▄▅▆▇█…", "#-_.-=+*%#~", "")


def drawn(lines: Sequence[Text], columns: int, stream: Any) -> list[tuple[str, int]]:
    """Returns lines as the stream's terminal wants them, in its colors, with their widths."""
    console = Console(file=stream, width=columns, highlight=False, markup=False, emoji=False)
    unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
    found: list[tuple[str, int]] = []
    for line in lines:
        with console.capture() as capture:
            console.print(line, end="", no_wrap=True, overflow="ellipsis", crop=True)
        text = capture.get().rstrip("\n")
        found.append((text if unicode else text.translate(_ASCII), min(columns, line.cell_len)))
    return found


def reporter_lines(reporter: Reporter, columns: int, rows: int) -> list[tuple[str, int]]:
    """Returns the live view of this process's run, as `watching.show_with` takes it."""
    status = run_status.compose(reporter.to_json(), dict(reporter.stages), list(reporter.timings))
    return drawn(live_lines(status, columns)[:rows], columns, sys.stdout)


def live_lines(status: Mapping[str, Any], columns: int) -> list[Text]:
    """Returns the lines below a running program's own, the most telling ones first."""
    lines: list[Text] = []
    if status["stage"]:
        elapsed = Text(f"for {duration(status['stage_seconds'] or 0)}", style=_FAINT)
        lines.append(_spread(_stage_text(status), elapsed, columns))
    lines += [_bar(activity, columns) for activity in status["activities"][:2]]
    figures = _figures(status, columns)
    if figures:
        lines.append(figures)
    if status["curve"] or (status["stage"] and status["stages_total"]):
        curve = _curve_text(status["curve"], columns // 2)
        lines.append(_spread(curve, _run_left(status), columns))
    return lines


def _stage_text(status: Mapping[str, Any]) -> Text:
    folder, _, kind = status["stage"].rpartition("/")
    text = Text(folder or kind, style="bold")
    if status["round"] is not None and status["rounds"]:
        text.append(f" ({status['round'] + 1} of {status['rounds']})", style="")
    if folder:
        text.append(f"  {kind}", style="bold cyan")
    if status["stages_total"]:
        number = min(status["stages_done"] + 1, status["stages_total"])
        text.append(f"  stage {number} of {status['stages_total']}", style=_FAINT)
    return text


def _spread(left: Text, right: Text, columns: int) -> Text:
    """Returns one line with a text at each end; drops the right one if there is no room."""
    room = columns - left.cell_len - right.cell_len
    if room < 2:
        return left
    return Text.assemble(left, " " * room, right)


def _bar(activity: Mapping[str, Any], columns: int) -> Text:
    """Returns a bar between words and figures."""
    done, total = activity["done"], activity["total"]
    share = done / total if total else 1.0
    left = activity["seconds_left"]
    words = Text(f"{activity['what'][: max(16, columns // 3)]:<12} ")
    # Counts of bytes are too long to read.
    figures = f" {done:,}/{total:,} {share:4.0%}" if total < _BYTES else f" {share:4.0%}"
    figures += f"  {duration(left)} left" if left is not None else ""
    if activity.get("note"):
        figures += f"  {activity['note']}"
    after = Text(figures)
    width = min(40, columns - words.cell_len - after.cell_len)
    if width < 4:
        return Text.assemble(words, after)
    full = max(0, min(width, int(width * share)))
    # Heavy and light, to be distinct without colors, too.
    return Text.assemble(words, ("━" * full, _GOOD), ("─" * (width - full), _FAINT), after)


def _figures(status: Mapping[str, Any], columns: int) -> Text | None:
    parts: list[Text] = []
    losses = status["losses"]
    if losses:
        room = max(8, min(30, columns - 52))
        line = sparkline(_thinned(losses, room))
        parts.append(Text.assemble("loss ", (f"{losses[-1]:.4f}", "bold"), " ", (line, "cyan")))
    if status["tokens_per_second"]:
        parts.append(Text(f"{status['tokens_per_second']:,.0f} tokens/s"))
    if status["mfu"]:
        parts.append(Text(f"MFU {status['mfu']:.1%}"))
    return Text("   ").join(parts) if parts else None


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Returns at most `most` values, each the mean of neighbors."""
    count = min(most, len(values))
    edges = [i * len(values) // count for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def _curve_text(points: Sequence[Mapping[str, Any]], columns: int) -> Text:
    known = [p["test"].get("overall") for p in points]
    if not any(value is not None for value in known):
        return Text()
    shown = [f"{value:.1f}" if value is not None else "-" for value in known]
    text = Text.assemble("test ROUGE-L ", (sparkline(known[-20:]), "cyan"), " ")
    while len(shown) > 1 and text.cell_len + len("  ".join(shown)) > columns + 10:
        shown = ["…", *shown[2:]] if shown[0] == "…" else ["…", *shown[1:]]
    return text.append(" ".join(shown))


def _run_left(status: Mapping[str, Any]) -> Text:
    if status["seconds_left"] is not None:
        return Text(f"run: about {duration(status['seconds_left'])} left")
    if status["stages_total"] and status["state"] == RUNNING:
        return Text("run: no estimate until every kind of stage has run once", style=_FAINT)
    return Text()


# --- `ait-jax status` ---


def status_lines(status: Mapping[str, Any], columns: int) -> list[Text]:
    """Returns everything that is known about a run."""
    lines: list[Text] = [_heading(status), _state_line(status)]
    if status["problem"]:
        lines.append(Text(f"last problem: {status['problem']}", style=_BAD))
    running = status["state"] == RUNNING
    if running:
        lines += live_lines({**status, "curve": []}, columns)
    else:
        lines.append(_done_text(status))
        figures = _figures({**status, "tokens_per_second": None, "mfu": None}, columns)
        if figures:
            lines.append(figures)
    following = status["next"] if running else status["stage"] or status["next"]
    if status["state"] != "finished" and following:
        again = "" if running else " (the same command continues)"
        lines.append(Text(f"next: {following}{again}"))
    points = [CurvePoint.from_json(point) for point in status["curve"]]
    if points:
        lines += [Text(), *map(Text, render_text(points).splitlines())]
    return lines


def _heading(status: Mapping[str, Any]) -> Text:
    kinds = {"run": "run", "continual": "continual training", "score": "scores"}
    about = [f"{kinds.get(status['kind'], 'run')} on the pool {shown(status['pool'])}"]
    if status.get("strategy"):
        about.append(status["strategy"])
    about.append(f"seed {status['seed']}")
    return Text.assemble((visible(status["directory"]), "bold"), f"  {', '.join(about)}")


def _state_line(status: Mapping[str, Any]) -> Text:
    style = {"running": _GOOD, "finished": _GOOD}.get(status["state"], _BAD)
    text = Text(status["state"], style=style)
    if status["state"] == RUNNING and status["pid"]:
        text.append(f" on {status['host']}, process {status['pid']}", style="")
    if status["updated"]:
        age = max(0.0, time.time() - status["updated"])
        sign = ", last seen" if status["state"] == RUNNING else ","
        text.append(f"{sign} {duration(age)} ago", style="")
    if status["state"] == RUNNING and status["seconds"]:
        text.append(f", for {duration(status['seconds'])}", style="")
    return text


def _done_text(status: Mapping[str, Any]) -> Text:
    of = f" of {status['stages_total']}" if status["stages_total"] else ""
    text = Text(f"{status['stages_done']}{of} stages done")
    if status["stage"]:
        text.append(f"; stopped in {status['stage']}")
        for activity in status["activities"][:1]:
            text.append(f", {activity['done']:,}/{activity['total']:,} {activity['what']}")
    return text


def summary(status: Mapping[str, Any]) -> str:
    """Returns one line, for lists of runs and for output that is not a terminal."""
    parts = [status["state"]]
    if status["stage"] and status["state"] != "finished":
        parts.append(status["stage"])
    for activity in status["activities"][:1] if status["state"] == RUNNING else ():
        parts.append(f"{activity['what']} {activity['done']:,}/{activity['total']:,}")
    if status["stages_total"]:
        parts.append(f"{status['stages_done']}/{status['stages_total']} stages")
    known = [p["test"]["overall"] for p in status["curve"] if p["test"].get("overall") is not None]
    if known:
        parts.append(f"test ROUGE-L {known[-1]:.2f}")
    if status["seconds_left"] is not None:
        parts.append(f"about {duration(status['seconds_left'])} left")
    if status["problem"]:
        parts.append(status["problem"])
    return ", ".join(parts)
