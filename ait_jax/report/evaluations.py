"""eval.json of every evaluated model, as the page wants it."""

from collections.abc import Mapping
from typing import Any

from ait_jax.evaluation.evaluation import EXACT_MATCH, ROUGE_L
from ait_jax.report.run_files import CONTINUAL, RunFiles
from ait_jax.report.task_index import TaskIndex


def evaluations(run: RunFiles, index: TaskIndex) -> list[dict[str, Any]]:
    """Returns the payload's `evaluations`: the base model first, then rounds.

    `test` and `dev` are None where there are no such tasks; a continual run has further groups
    ("holdout", "previous_000", ...) under `others`.
    """
    found = []
    for round in (None, *run.rounds):
        folder = run.path / "base" if round is None else run.folder(round)
        result = run.json(folder / "eval.json")
        if result is None:
            continue
        groups = {name: _metrics(metrics, index) for name, metrics in result.items()}
        evaluation = {
            "round": round,
            "name": "base" if round is None else f"round {round}",
            "num_tasks": 0 if round is None else _num_tasks(run, round),
            "test": groups.pop("test", None),
            "dev": groups.pop("dev", None),
        }
        found.append(evaluation | ({"others": groups} if groups else {}))
    return found


def _num_tasks(run: RunFiles, round: int) -> int:
    """Returns how many tasks a round's model was trained on, replayed ones counted once."""
    if run.kind != CONTINUAL:
        return len(run.names(run.folder(round) / "train_tasks.txt"))
    stages = (run.stage(number, "train") or {} for number in run.rounds if number <= round)
    return sum(stage.get("tasks", 0) for stage in stages)


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
        "exact_match": metrics.get(EXACT_MATCH),
        "instances": metrics.get("num_instances"),
        "tasks": metrics.get("num_tasks"),
    }
