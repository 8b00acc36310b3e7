"""What a run's files say in numbers, as its page shows them: tasks, scores, curves, time, cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax.evaluation.evaluation import EXACT_MATCH, ROUGE_1, ROUGE_L
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.record import (
    CONTINUAL,
    SCORE,
    Record,
    read_evaluation,
    read_metrics,
    read_timings,
)
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection import task_map
from ait_jax.selection.uncertainty import TaskScores

SPLITS = ("train", "pool", "dev", "test")
UNKNOWN = "(unknown)"
INSTRUCTION_CHARACTERS = 160
REGIONS = (task_map.OTHER, task_map.AMBIGUOUS, task_map.EASY, task_map.DIFFICULT)
# Points of a training curve; no screen shows more.
MOST_POINTS = 1000
_MEASURES = ("prompt_uncertainty_error", "perplexity", "signed_mean", "std")
_COUNTS = ("num_instances", "num_prompts")
_TRAINING_COLUMNS = ("loss", "accuracy", "learning_rate", "reward")
_RENAMED = {"padding_fraction": "padding"}


class TaskIndex:
    """Numbers a run's tasks: train, pool, dev, test, then those that joined later.

    Attributes:
      names: of all tasks, in the order of their numbers.
      split: task -> the one of SPLITS in which it began.
    """

    def __init__(self, run: Record) -> None:
        self.split: dict[str, str] = {}
        if run.kind == SCORE:
            self._add(names_in(run.path / "tasks.txt"), "pool")
        elif run.kind == CONTINUAL:
            for round_index in run.rounds:
                for name in ("stage_tasks.txt", "joined_tasks.txt"):
                    self._add(names_in(run.folder(round_index) / name), "train")
            self._add(names_in(run.folder(0) / "test_tasks.txt"), "test")
        else:
            for split in SPLITS:
                name = "remain" if split == "pool" else split
                self._add(names_in(run.folder(0) / f"{name}_tasks.txt"), split)
            for round_index in run.rounds:
                self._add(names_in(run.folder(round_index) / "joined_tasks.txt"), "pool")
        self.names = tuple(self.split)
        self._number_of = {name: number for number, name in enumerate(self.names)}

    def _add(self, names: Iterable[str], split: str) -> None:
        for name in names:
            self.split.setdefault(name, split)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._number_of

    def numbers(self, names: Iterable[str]) -> list[int]:
        """Returns the tasks' numbers; skips unknown names."""
        return [self._number_of[name] for name in names if name in self._number_of]

    def columns(self, pool: TaskPool | None) -> tuple[dict[str, list[Any]], list[str]]:
        """Returns the payload's `tasks` and `task_categories`.

        Without a pool, or for a task not in it, category, CLS/GEN and instruction are unknown.
        """
        categories: dict[str, int] = {}
        columns: dict[str, list[Any]] = {
            "name": list(self.names),
            "category": [],
            "is_cls": [],
            "split": [SPLITS.index(split) for split in self.split.values()],
            "instruction": [],
        }
        for name in self.names:
            category, is_cls, text = UNKNOWN, None, ""
            if pool is not None and name in pool:
                task = pool[name]
                category, is_cls = task.category, int(pool.is_cls(name))
                text = task.instruction.definition.strip()
            columns["category"].append(categories.setdefault(category, len(categories)))
            columns["is_cls"].append(is_cls)
            columns["instruction"].append(cut(text, INSTRUCTION_CHARACTERS))
        return columns, list(categories)


def names_in(path: Any) -> tuple[str, ...]:
    """Returns the tasks in a list; none if there is no such file."""
    return read_names(path) if path.exists() else ()


def regions(folder: Any) -> dict[str, str]:
    """Returns task -> its region of a round's task map; tasks of no region are missing."""
    return {name: region for region in REGIONS[1:] for name in names_in(folder / f"{region}.txt")}


def cut(text: str, characters: int) -> str:
    """Returns at most `characters` of `text`; an ellipsis stands for the rest."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def rounded(values: np.ndarray | Iterable[float], digits: int = 5) -> list[float | None]:
    """Returns floats with `digits` significant digits, None for NaN and infinities."""
    return [
        float(f"{value:.{digits}g}") if np.isfinite(value) else None
        for value in np.asarray(values, np.float64).tolist()
    ]


# --- scored rounds ---


def scored_rounds(run: Record, index: TaskIndex) -> list[dict[str, Any]]:
    """Returns the payload's `rounds`: the task maps of those that scored or selected tasks."""
    found = (_scored_round(run, index, round_index) for round_index in run.rounds)
    return [each for each in found if each is not None]


def _scored_round(run: Record, index: TaskIndex, round_index: int) -> dict[str, Any] | None:
    folder = run.folder(round_index)
    table = folder / "task_scores.parquet"
    selected = names_in(folder / "selected.txt")
    if not table.exists() and not selected:
        return None
    found: dict[str, Any] = {
        "round": round_index,
        "strategy": selection_of(run, round_index).get("strategy", ""),
        "task": [],
        "prompt_uncertainty": [],
        "prediction_probability": [],
        "region": [],
        "measures": {},
        "selected": index.numbers(selected),
        "trained": index.numbers(names_in(folder / "train_tasks.txt")),
        "joined": index.numbers(names_in(folder / "joined_tasks.txt")),
    }
    if table.exists():
        scores = read_task_scores(table)
        rows = [row for row, name in enumerate(scores.tasks) if name in index]
        region_of = regions(folder)
        found["task"] = index.numbers(scores.tasks)
        found["region"] = [
            REGIONS.index(region_of.get(scores.tasks[row], task_map.OTHER)) for row in rows
        ]
        for name in ("prompt_uncertainty", "prediction_probability"):
            found[name] = rounded(getattr(scores, name)[rows])
        found["measures"] = _measures(scores, rows)
    return found


def selection_of(run: Record, round_index: int) -> Mapping[str, Any]:
    """Returns what run.json says of a round's selection; empty if there was none."""
    selected = run.stage(round_index, "select")
    return selected or (run.stage(round_index, "map") or {}).get("selection") or {}


def _measures(scores: TaskScores, rows: list[int]) -> dict[str, list[Any]]:
    """Returns the other columns of the scores; counts only where they differ between tasks."""
    measures: dict[str, list[Any]] = {
        name: rounded(getattr(scores, name)[rows], 4) for name in _MEASURES
    }
    for name in _COUNTS:
        values = getattr(scores, name)[rows].tolist()
        if len(set(values)) > 1:
            measures[name] = values
    return measures


# --- evaluations and training ---


def evaluations(run: Record, index: TaskIndex) -> list[dict[str, Any]]:
    """Returns the payload's `evaluations`: the base model first, then rounds.

    `test` and `dev` are None without such tasks; a continual run's further groups ("holdout",
    "previous_000", ...) are under `others`.
    """
    found: list[dict[str, Any]] = []
    for round_index in (None, *run.rounds):
        folder = run.path / "base" if round_index is None else run.folder(round_index)
        result = read_evaluation(folder)
        if result is None:
            continue
        groups = {name: _metrics(metrics, index) for name, metrics in result.items()}
        evaluation = {
            "round": round_index,
            "name": "base" if round_index is None else f"round {round_index}",
            "num_tasks": 0 if round_index is None else _num_tasks(run, round_index),
            "test": groups.pop("test", None),
            "dev": groups.pop("dev", None),
        }
        found.append(evaluation | ({"others": groups} if groups else {}))
    return found


def _num_tasks(run: Record, round_index: int) -> int:
    """Returns how many tasks a round's model was trained on, replayed ones counted once."""
    if run.kind != CONTINUAL:
        return len(names_in(run.folder(round_index) / "train_tasks.txt"))
    rounds = (each for each in run.rounds if each <= round_index)
    return sum((run.stage(each, "train") or {}).get("tasks", 0) for each in rounds)


def _metrics(metrics: Mapping[str, Any], index: TaskIndex) -> dict[str, Any]:
    per_task = metrics.get("per_task", {})
    return {
        "overall": _figures(metrics),
        "cls": _figures(metrics.get("cls", {})),
        "gen": _figures(metrics.get("gen", {})),
        "categories": {name: _figures(m) for name, m in metrics.get("per_category", {}).items()},
        "tasks": {
            str(number): _figures(per_task[name])
            for name in per_task
            for number in index.numbers([name])
        },
    }


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rougeL": metrics.get(ROUGE_L),
        "rouge1": metrics.get(ROUGE_1),
        "exact_match": metrics.get(EXACT_MATCH),
        "instances": metrics.get("num_instances"),
        "tasks": metrics.get("num_tasks"),
    }


def training(run: Record) -> list[dict[str, Any]]:
    """Returns the payload's `training`: metrics.jsonl of every round with logged steps.

    Columns that a trainer does not log are left out; `dev` has empty lists if no dev tasks are
    evaluated during training.
    """
    found: list[dict[str, Any]] = []
    for round_index in run.rounds:
        lines = read_metrics(run.folder(round_index))
        lines = [line for line in lines if line.get("step") is not None]
        if not lines:
            continue
        steps = thinned([line for line in lines if "loss" in line])
        dev = [line for line in lines if "dev/rougeL" in line]
        found.append(
            {
                "round": round_index,
                "step": [line["step"] for line in steps],
                **{
                    name: [_short(line.get(name)) for line in steps]
                    for name in _TRAINING_COLUMNS
                    if any(name in line for line in steps)
                },
                "dev": {
                    "step": [line["step"] for line in dev],
                    "rougeL": [line["dev/rougeL"] for line in dev],
                },
                "chosen_step": (run.stage(round_index, "train") or {}).get("checkpoint_step"),
            }
        )
    return found


def thinned(lines: Sequence[Any]) -> list[Any]:
    """Returns at most `MOST_POINTS` of the lines, evenly spread and with the last one."""
    stride = -(-len(lines) // MOST_POINTS) or 1
    return list(lines[::-1][::stride][::-1])


def _short(value: Any) -> float | None:
    return rounded([value])[0] if isinstance(value, (int, float)) else None


# --- time and cost ---


def timings(run: Record) -> list[dict[str, Any]]:
    """Returns the payload's `timings`: timings.jsonl, in the order in which stages ended."""
    return [
        {"tokens_per_second": None, "padding": None, "mfu": None}
        | {"stage": timing.stage, "seconds": timing.seconds}
        | {_RENAMED.get(name, name): value for name, value in timing.figures.items()}
        for timing in read_timings(run.path)
    ]


def cost(lines: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, Any]:
    """Returns the payload's `cost`.

    Device-hours are each stage's seconds times the devices that it held, idle or not. A line
    without devices, from an older version, counts as one; `devices` and `device_kind` are None if
    no line has them.

    Args:
      lines: from `timings`.
      price: of one device for one hour, in any currency.
    """
    hours = sum(line["seconds"] * (line.get("devices") or 1) for line in lines) / 3600
    devices = [line["devices"] for line in lines if line.get("devices")]
    kinds = list(dict.fromkeys(line["device_kind"] for line in lines if line.get("device_kind")))
    return {
        "devices": max(devices, default=None),
        "device_kind": ", ".join(kinds) or None,
        "hours": round(sum(line["seconds"] for line in lines) / 3600, 6),
        "device_hours": round(hours, 6),
        "price_per_device_hour": price,
        "total": None if price is None else round(hours * price, 4),
    }
