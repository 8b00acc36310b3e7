"""Counts by stage and reason: nothing is left out without a line that says why."""

from collections.abc import Mapping
from typing import Any

_EXAMPLES = 3
_LONGEST_EXAMPLE = 120


class Tally:
    """Counts things by stage and reason, with the first few examples of each.

    Stages and reasons keep the order in which they first came. A reason that is not a
    rejection ("kept", "read") is counted like any other.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, stage: str, reason: str, example: str = "", count: int = 1) -> None:
        """Counts `count` more of `reason` at `stage`."""
        reasons = self._counts.setdefault(stage, {})
        reasons[reason] = reasons.get(reason, 0) + count
        examples = self._examples.setdefault((stage, reason), [])
        if example and len(examples) < _EXAMPLES:
            examples.append(example[:_LONGEST_EXAMPLE])

    def count(self, stage: str, reason: str) -> int:
        """Returns how many there were; 0 for what never came."""
        return self._counts.get(stage, {}).get(reason, 0)

    def counts(self, stage: str) -> Mapping[str, int]:
        """Returns reason -> count."""
        return dict(self._counts.get(stage, {}))

    def to_json(self) -> dict[str, Any]:
        """Returns {stage: {reason: {"count": n, "examples": [...]}}}."""
        return {
            stage: {
                reason: {"count": count, "examples": self._examples[stage, reason]}
                for reason, count in reasons.items()
            }
            for stage, reasons in self._counts.items()
        }

    def table(self) -> str:
        """Returns the counts as lines of text, one table with the stages as headings."""
        width = max(
            (len(f"{count:,}") for rs in self._counts.values() for count in rs.values()), default=1
        )
        lines = []
        for stage, reasons in self._counts.items():
            lines.append(f"{stage}:")
            lines += [f"  {count:>{width},}  {reason}" for reason, count in reasons.items()]
        return "\n".join(lines)
