"""The task map of every round that scored or selected tasks."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ait_jax.report.run_files import RunFiles
from ait_jax.report.task_index import TaskIndex
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection import task_map

REGIONS = (task_map.OTHER, task_map.AMBIGUOUS, task_map.EASY, task_map.DIFFICULT)
_MEASURES = ("prompt_uncertainty_error", "perplexity", "signed_mean", "std")
_COUNTS = ("num_instances", "num_prompts")


def scored_rounds(run: RunFiles, index: TaskIndex) -> list[dict[str, Any]]:
    """Returns the payload's `rounds`: those that scored or selected."""
    rounds = (_scored_round(run, index, number) for number in run.rounds)
    return [round for round in rounds if round is not None]


def _scored_round(run: RunFiles, index: TaskIndex, number: int) -> dict[str, Any] | None:
    folder = run.folder(number)
    table = folder / "task_scores.parquet"
    selected = run.names(folder / "selected.txt")
    if not table.exists() and not selected:
        return None
    round = {
        "round": number,
        "strategy": _strategy(run, number),
        "task": [],
        "prompt_uncertainty": [],
        "prediction_probability": [],
        "region": [],
        "measures": {},
        "selected": index.numbers(selected),
        "trained": index.numbers(run.names(folder / "train_tasks.txt")),
        "joined": index.numbers(run.names(folder / "joined_tasks.txt")),
    }
    if table.exists():
        scores = read_task_scores(table)
        rows = [row for row, name in enumerate(scores.tasks) if name in index]
        region_of = {
            name: REGIONS.index(region)
            for region in REGIONS[1:]
            for name in run.names(folder / f"{region}.txt")
        }
        round["task"] = index.numbers(scores.tasks)
        round["region"] = [region_of.get(scores.tasks[row], 0) for row in rows]
        for name in ("prompt_uncertainty", "prediction_probability"):
            round[name] = rounded(getattr(scores, name)[rows])
        round["measures"] = _measures(scores, rows)
    return round


def _strategy(run: RunFiles, number: int) -> str:
    stage = run.stage(number, "select") or (run.stage(number, "map") or {}).get("selection") or {}
    return stage.get("strategy", "")


def _measures(scores: Any, rows: list[int]) -> dict[str, list[Any]]:
    """Returns the other columns of the scores; counts only where they differ between tasks."""
    measures = {name: rounded(getattr(scores, name)[rows], 4) for name in _MEASURES}
    for name in _COUNTS:
        values = getattr(scores, name)[rows].tolist()
        if len(set(values)) > 1:
            measures[name] = values
    return measures


def rounded(values: np.ndarray | Iterable[float], digits: int = 5) -> list[float | None]:
    """Returns floats with so many significant digits, None for NaN and infinities."""
    return [
        float(f"{value:.{digits}g}") if np.isfinite(value) else None
        for value in np.asarray(values, np.float64).tolist()
    ]
