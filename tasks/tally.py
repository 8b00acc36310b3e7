"""What was wrong with a source of tasks, or left out: counted by reason, the first named."""

from collections.abc import Mapping
from typing import Any


class Tally:
    """Counts by reason, each with the place of its first case.

    Attributes:
      bad: what a source should not have; whoever reads decides whether that is an error.
      noted: what is in order and yet worth saying: duplicates dropped, fields not used.
    """

    def __init__(self, data: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        data = data or {}
        self.bad: dict[str, dict[str, Any]] = dict(data.get("bad", {}))
        self.noted: dict[str, dict[str, Any]] = dict(data.get("noted", {}))

    def add_bad(self, reason: str, first: str) -> None:
        """Counts a bad row; `first` says where and what, kept for the first of its kind."""
        self._add(self.bad, reason, first)

    def note(self, reason: str, first: str) -> None:
        self._add(self.noted, reason, first)

    @staticmethod
    def _add(group: dict[str, dict[str, Any]], reason: str, first: str) -> None:
        group.setdefault(reason, {"count": 0, "first": first})["count"] += 1

    @property
    def num_bad(self) -> int:
        return sum(entry["count"] for entry in self.bad.values())

    def to_json(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        return {"bad": self.bad, "noted": self.noted}

    def describe_bad(self) -> list[str]:
        return _lines(self.bad)

    def describe_noted(self) -> list[str]:
        return _lines(self.noted)


def _lines(group: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{entry['count']:,} {reason}; the first: {entry['first']}"
        for reason, entry in group.items()
    ]
