"""The learning curve: ROUGE-L on held-out tasks against the number of training tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import ROUGE_L

GROUPS = ("overall", "cls", "gen")
LABELS = {"overall": "overall", "cls": "CLS", "gen": "GEN"}
_BARS = "▁▂▃▄▅▆▇█"


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


def check_points(points: Sequence[CurvePoint]) -> None:
    if not points:
        raise UserError("There is no evaluated round to draw a learning curve of.")


def series(points: Sequence[CurvePoint], split: str, group: str) -> list[float | None]:
    return [getattr(point, split).get(group) for point in points]


def render_text(points: Sequence[CurvePoint]) -> str:
    """Returns the curve as a table with a sparkline under each column, for a terminal.

    Columns without any figure are left out; a missing figure is a dash.

    Raises:
      UserError: no points.
    """
    check_points(points)
    points = sorted(points, key=lambda point: point.num_tasks)
    columns = [["", *(point.name for point in points), "gain", ""]]
    columns.append(["tasks", *(f"{point.num_tasks:,}" for point in points), "", ""])
    for split in ("test", "dev"):
        for group in GROUPS:
            values = series(points, split, group)
            known = [value for value in values if value is not None]
            if known:
                cells = ["-" if value is None else f"{value:.2f}" for value in values]
                gain = f"{known[-1] - known[0]:+.2f}" if len(known) > 1 else ""
                header = split if group == "overall" else f"{split} {LABELS[group]}"
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
