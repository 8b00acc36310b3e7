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
      round_index: None for the base model before any training.
      num_tasks: how many tasks it was trained on, 0 for the base model.
      test, dev: {"overall", "cls", "gen": ROUGE-L in percent or None}; dev may be empty.
    """

    round_index: int | None
    num_tasks: int
    test: Mapping[str, float | None]
    dev: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """The model in words: "base" or "round 2"."""
        return "base" if self.round_index is None else f"round {self.round_index}"

    @classmethod
    def from_evaluation(
        cls, round_index: int | None, num_tasks: int, evaluation: Mapping[str, Mapping[str, Any]]
    ) -> "CurvePoint":
        """Takes the ROUGE-L figures out of an `evaluation.evaluate_splits` result (eval.json)."""

        def figures(split: str) -> dict[str, float | None]:
            if not (result := evaluation.get(split)):
                return {}
            return {"overall": result[ROUGE_L]} | {g: result[g][ROUGE_L] for g in ("cls", "gen")}

        return cls(round_index, num_tasks, figures("test"), figures("dev"))

    def to_json(self) -> dict[str, Any]:
        """Returns the point as `ait-jax status --json` and comparison.json write it."""
        return {
            "round": self.round_index,
            "num_tasks": self.num_tasks,
            "test": dict(self.test),
            "dev": dict(self.dev),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CurvePoint":
        """Returns the point that `to_json` wrote."""
        return cls(value["round"], value["num_tasks"], value["test"], value["dev"])


def by_num_tasks(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Returns the points as a curve has them, ascending by their number of tasks.

    Raises:
      UserError: no points.
    """
    if not points:
        raise UserError("Cannot draw a learning curve: there is no evaluated round.")
    return sorted(points, key=lambda point: point.num_tasks)


def series(points: Sequence[CurvePoint], split: str, group: str) -> list[float | None]:
    """Returns the ROUGE-L of each point, None where it was not measured."""
    return [getattr(point, split).get(group) for point in points]


def render_text(points: Sequence[CurvePoint]) -> str:
    """Returns the curve as a table with a sparkline under each column, for a terminal.

    Columns without figures are left out; a missing figure is a dash.

    Raises:
      UserError: no points.
    """
    points = by_num_tasks(points)
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
    lines = table(list(zip(*columns, strict=True))).split("\n")
    return "\n".join(["ROUGE-L", *(lines[:2] if len(points) == 1 else lines)])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows with aligned columns, the first flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines: list[str] = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def render_continual(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the ROUGE-L of a continual training's rounds as the table of continual.txt.

    Args:
      rows: "stage" (the round), "tasks", "replayed", and ROUGE-L by group; None or missing is "-".
    """
    groups = ["test", "holdout", *(f"previous_{n:03d}" for n in range(len(rows) - 1))]
    titles = ["test", "holdout", *(f"stage {number}" for number in range(len(rows) - 1))]
    lines = ["stage  tasks  replayed  " + "  ".join(f"{title:>8}" for title in titles)]
    for row in rows:
        figures = (row.get(group) for group in groups)
        cells = "  ".join(f"{'-' if f is None else f'{f:.2f}':>8}" for f in figures)
        lines.append(f"{row['stage']:>5}  {row['tasks']:>5}  {row['replayed']:>8}  {cells}")
    return "\n".join(lines)


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
