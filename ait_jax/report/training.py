"""Training curves: metrics.jsonl of every round."""

from collections.abc import Sequence
from typing import Any

from ait_jax.report.run_files import RunFiles

# Points of a curve; no screen shows more.
MOST_POINTS = 1000
_COLUMNS = ("loss", "accuracy", "learning_rate", "reward")


def training(run: RunFiles) -> list[dict[str, Any]]:
    """Returns the payload's `training`: one entry for every round with logged steps.

    Columns that a trainer does not log are left out; `dev` has the metric "rougeL", empty lists
    where no dev tasks are evaluated during training.
    """
    found = []
    for round in run.rounds:
        lines = [
            line
            for line in run.lines(run.folder(round) / "metrics.jsonl")
            if isinstance(line.get("step"), int)
        ]
        steps = thinned([line for line in lines if "loss" in line])
        dev = [line for line in lines if "dev/rougeL" in line]
        if not lines:
            continue
        found.append(
            {
                "round": round,
                "step": [line["step"] for line in steps],
                **{
                    name: [_short(line.get(name)) for line in steps]
                    for name in _COLUMNS
                    if any(name in line for line in steps)
                },
                "dev": {
                    "step": [line["step"] for line in dev],
                    "rougeL": [line["dev/rougeL"] for line in dev],
                },
                "chosen_step": (run.stage(round, "train") or {}).get("checkpoint_step"),
            }
        )
    return found


def thinned(lines: Sequence[Any]) -> list[Any]:
    """Returns at most `MOST_POINTS` of the lines, evenly spread; the last one is among them."""
    stride = -(-len(lines) // MOST_POINTS) or 1
    return list(lines[::-1][::stride][::-1])


def _short(value: Any) -> float | None:
    finite = isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
    return float(f"{value:.5g}") if finite else None
