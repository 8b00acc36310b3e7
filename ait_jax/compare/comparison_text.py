"""A comparison in words and tables: the terminal's text, comparison.csv."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ait_jax.report import csv_text as spreadsheet
from ait_jax.rounds.learning_curve import LABELS, table

# With fewer, an interval says more about Student's t than about the strategies.
FEW_SEEDS = 5


def render(result: Mapping[str, Any]) -> str:
    """Returns tables and verdict of `comparison_result.compare` for a terminal."""
    tables = (_curves, _differences, _looks, _costs, _target, _overlaps, _released, _paper)
    parts = [made(result) for made in tables]
    parts.append("\n".join(["verdict", *map(_wrapped, verdict(result))]))
    noted = warnings(result)
    if noted:
        parts.append("\n".join(["note", *map(_wrapped, noted)]))
    return "\n\n".join(part for part in parts if part)


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 100, initial_indent="- ", subsequent_indent="  ")


def _curves(result: Mapping[str, Any]) -> str:
    rows = [["tasks", "", *(f"{n:,}" for n in result["num_tasks"]), "area", "seeds"]]
    for name in result["strategies"]:
        for group, points in result["curves"][name].items():
            scores = [f"{point['mean']:.2f}" for point in points]
            area = f"{result['areas'][name][group]['mean']:.2f}"
            first = name if group == "overall" else ""
            rows.append([first, LABELS[group], *scores, area, str(points[-1]["n"])])
    return f"test ROUGE-L, means over seeds (area: mean height of the curve)\n{table(rows)}"


def _interval(summary: Mapping[str, Any]) -> str:
    text = f"{summary['mean']:+.2f}"
    if summary["low"] is None:
        return f"{text} [no interval]"
    return f"{text} [{summary['low']:+.2f}, {summary['high']:+.2f}]"


def _differences(result: Mapping[str, Any]) -> str:
    # Round 0 is shared: nothing was selected yet.
    shown = range(1 if len(result["num_tasks"]) > 1 else 0, len(result["num_tasks"]))
    rows = [["tasks", "", *(f"{result['num_tasks'][i]:,}" for i in shown), "area"]]
    for name, groups in result["differences"].items():
        for group, found in groups.items():
            cells = [_interval(found["rounds"][i]) for i in shown]
            first = name if group == "overall" else ""
            rows.append([first, LABELS[group], *cells, _interval(found["area"])])
    if len(rows) == 1:
        return ""
    percent = f"{100 * result['confidence']:g}%"
    return f"minus {result['baseline']}, paired by seed, with {percent} intervals\n{table(rows)}"


def look(name: str, baseline: str, found: Mapping[str, Any]) -> str:
    """Returns a line on what one of a strategy's "looks" leaves possible."""
    verdict = found["verdict"]
    words = f"is {verdict} than" if verdict else "is not yet told from"
    seeds = "1 seed" if found["n"] == 1 else f"{found['n']} seeds"
    return f"{name} {words} {baseline} after {seeds}: {_interval(found)}"


def _looks(result: Mapping[str, Any]) -> str:
    known = {name: found for name, found in result["looks"].items() if len(found) > 1}
    if not known:
        return ""
    percent = f"{100 * result['confidence']:g}%"
    head = (
        f"looking after every seed, at {result['num_tasks'][-1]:,} tasks, with {percent} for all "
        "looks at all strategies together"
    )
    return "\n".join([head, *(look(name, result["baseline"], f[-1]) for name, f in known.items())])


def _costs(result: Mapping[str, Any]) -> str:
    if not result["costs"]:
        return ""
    rows = [["", "training steps", "tokens", "seconds", "scored tokens", "seconds", "together"]]
    for name, costs in result["costs"].items():
        training, scoring = costs["training_seconds"], costs["scoring_seconds"]
        numbers = [costs[n] for n in ("training_steps", "training_tokens")]
        numbers += [training, costs["scoring_tokens"], scoring, training + scoring]
        rows.append([name, *(f"{number:,.0f}" for number in numbers)])
    return f"what a run costs, means over seeds\n{table(rows)}"


def _target(result: Mapping[str, Any]) -> str:
    target = result["target"]
    rows = [["", "mean curve", "single seeds"]]
    for name, found in target["tasks"].items():
        seeds = ", ".join(map(_tasks, found["by_seed"].values()))
        rows.append([name, _tasks(found["mean_curve"]), seeds])
    what = "" if target["given"] else f" (the last mean of {result['baseline']})"
    return f"tasks needed to reach {target['score']:.2f}{what}\n{table(rows)}"


def _tasks(tasks: float | None) -> str:
    return "not reached" if tasks is None else f"{tasks:,.0f}"


def _overlaps(result: Mapping[str, Any]) -> str:
    pairs = [
        pair for pair in result["overlaps"] if pair["selections"] and pair["together"]["by_seed"]
    ]
    if not pairs:
        return ""
    count = len(pairs[0]["selections"])
    rows = [["", *(f"after round {n}" for n in range(count)), "all together"]]
    for pair in pairs:
        cells = [_overlap(each) for each in [*pair["selections"], pair["together"]]]
        rows.append([f"{pair['first']} and {pair['second']}", *cells])
    head = "overlap of the selections (Jaccard, mean over seeds; in brackets that of random draws)"
    return f"{head}\n{table(rows)}"


def _overlap(found: Mapping[str, Any]) -> str:
    if found["jaccard"] is None:
        return "-"
    return f"{found['jaccard']:.2f} ({found['expected_jaccard'] or 0:.2f})"


def _released(result: Mapping[str, Any]) -> str:
    released = result["released"]
    if released is None:
        return ""
    head = (
        "overlap with the authors' released selections (Jaccard of all rounds, mean over seeds and "
        "splits)"
    )
    names, missing = released["names"], released["unknown_names"]
    if missing == names:
        return f"{head}\nnone of their {names:,} tasks is in this pool: nothing to compare"
    unknown = f"\nleft out: {missing:,} of their {names:,} tasks, not in this pool"
    theirs = list(dict.fromkeys(each["released_strategy"] for each in released["overlaps"]))
    rows = [["", *(f"their {name}" for name in theirs)]]
    for name in result["strategies"]:
        cells: list[str] = []
        for other in theirs:
            found = [
                each["together"]
                for each in released["overlaps"]
                if (each["strategy"], each["released_strategy"]) == (name, other)
                and each["together"]["jaccard"] is not None
            ]
            keys = ("jaccard", "expected_jaccard")
            means = [fmean(each[key] or 0 for each in found) if found else None for key in keys]
            cells.append(_overlap(dict(zip(keys, means, strict=True))))
        rows.append([name, *cells])
    return f"{head}\n{table(rows)}{unknown if missing else ''}"


def _paper(result: Mapping[str, Any]) -> str:
    paper = result["paper"]
    if paper is None:
        return ""
    rows = [["tasks", *(f"{n:,}" for n in paper["num_tasks"])]]
    for name, groups in paper["test"].items():
        rows.append([name, *(f"{score:.2f}" for score in groups["overall"])])
    return (
        f"the paper's own curves, not ours: test ROUGE-L, means of {paper['num_runs']} runs\n"
        f"{table(rows)}\n{textwrap.fill(paper['source'], 100)}"
    )


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Returns a line per strategy: is its last difference to the baseline noise?"""
    no_pair = f"has no seed in common with {result['baseline']}: nothing to compare"
    lines = [
        _judged(name, groups, result) if "overall" in groups else f"{name} {no_pair}"
        for name, groups in result["differences"].items()
    ]
    return lines or [f"only {result['baseline']}: nothing to compare it with"]


def _is_noise(summary: Mapping[str, Any]) -> bool:
    return summary["low"] is None or summary["low"] <= 0 <= summary["high"]


def _judged(name: str, groups: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    last = groups["overall"]["rounds"][-1]
    noise = _is_noise(last)
    better = "better" if last["mean"] > 0 else "worse"
    words = "cannot be told from" if noise else f"is {better} than"
    seeds = "1 seed" if last["n"] == 1 else f"{last['n']} seeds"
    text = (
        f"{name} {words} {result['baseline']} at {result['num_tasks'][-1]:,} tasks: "
        f"{_interval(last)} test ROUGE-L over {seeds}"
    )
    if last["low"] is None:
        return f"{text}; one seed does not tell a difference from noise"
    text += ", within noise" if noise else ", beyond noise"
    number, p = len(result["holm"]), result["holm"].get(name, 0.0)
    if not noise and p > 1 - result["confidence"]:
        text += f" by itself, but not as one of {number} comparisons (Holm p = {p:.2f})"
    if last["std"] == 0:
        text += " and the same in every seed"
    text += _beside(groups, noise)
    if noise and last["std"]:
        needed = last["seeds_needed"]
        seeds = f"about {needed:,}" if needed else "over 1,000"
        text += f"; to see such a difference takes {seeds} seeds"
    return text


def _beside(groups: Mapping[str, Any], noise: bool) -> str:
    """Says which other differences are within noise."""
    others = {"the whole curve": groups["overall"]["area"]}
    others |= {LABELS[g]: groups[g]["rounds"][-1] for g in ("cls", "gen") if g in groups}
    alike = [_named(name, found) for name, found in others.items() if _is_noise(found) == noise]
    unlike = [_named(name, found) for name, found in others.items() if _is_noise(found) != noise]
    text = f", as for {_joined(alike)}" if alike else ""
    if unlike:
        text += f"; {'beyond' if noise else 'within'} noise: {_joined(unlike)}"
    return text


def _named(name: str, summary: Mapping[str, Any]) -> str:
    return name if _is_noise(summary) else f"{name} ({summary['mean']:+.2f})"


def _joined(names: Sequence[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Returns what to bear in mind when reading the numbers."""
    lines: list[str] = []
    for each in result["left_out"]:
        seed = "" if each["seed"] is None else f" with seed {each['seed']}"
        lines.append(f"left out: {each['strategy']}{seed}: {each['reason']}")
    lines += result["remarks"]
    counts = {
        groups["overall"]["rounds"][-1]["n"]
        for groups in result["differences"].values()
        if "overall" in groups
    }
    fewest = min(counts, default=0)
    if fewest == 1:
        lines.append("one seed has no interval, and a difference may be all noise; use more seeds")
    elif counts and fewest < FEW_SEEDS:
        lines.append(
            f"{fewest} seeds are few: the intervals are wide, assume normally distributed "
            "differences, and say little about other seeds; the paper's means are of 5 runs"
        )
    if len(result["holm"]) > 1:
        lines.append(
            f"each interval stands alone: of {len(result['holm'])} or more at "
            f"{100 * result['confidence']:g}%, one beyond noise by chance is no surprise"
        )
    return lines


def csv_text(result: Mapping[str, Any]) -> str:
    """Returns the scores: one line per run, round, split and group."""
    buffer = io.StringIO()
    rows: list[list[Any]] = [["strategy", "seed", "round", "num_tasks", "split", "group", "rougeL"]]
    for run in result["runs"]:
        for point in run["points"]:
            name = "base" if point["round"] is None else point["round"]
            for split in ("test", "dev"):
                for group, score in point[split].items():
                    if score is not None:
                        place = [run["strategy"], run["seed"], name, point["num_tasks"]]
                        rows.append([*place, split, group, score])
    spreadsheet.write(rows, buffer)
    return buffer.getvalue()
