"""The tasks of a run by number, with what the page shows of them."""

from collections.abc import Iterable
from typing import Any

from ait_jax.pool.pool import TaskPool
from ait_jax.report.run_files import CONTINUAL, SCORE, RunFiles

SPLITS = ("train", "pool", "dev", "test")
UNKNOWN = "(unknown)"
INSTRUCTION_CHARACTERS = 160


class TaskIndex:
    """Tasks in a fixed order: train, pool, dev, test, then those that joined later.

    Attributes:
      names: of all tasks.
      split: task -> one of SPLITS, where it was when the run began.
    """

    def __init__(self, run: RunFiles) -> None:
        self.split: dict[str, str] = {}
        if run.kind == SCORE:
            self._add(run.names(run.path / "tasks.txt"), "pool")
        elif run.kind == CONTINUAL:
            for number in run.rounds:
                folder = run.folder(number)
                for name in ("stage_tasks.txt", "joined_tasks.txt"):
                    self._add(run.names(folder / name), "train")
            self._add(run.names(run.folder(0) / "test_tasks.txt"), "test")
        else:
            for split in SPLITS:
                name = {"pool": "remain"}.get(split, split)
                self._add(run.names(run.folder(0) / f"{name}_tasks.txt"), split)
            for number in run.rounds:
                self._add(run.names(run.folder(number) / "joined_tasks.txt"), "pool")
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
        """Returns the numbers of tasks; names that are not in the index are left out."""
        return [self._number_of[name] for name in names if name in self._number_of]

    def columns(self, pool: TaskPool | None) -> tuple[dict[str, list[Any]], list[str]]:
        """Returns the payload's `tasks` and `task_categories`.

        Without a pool, or for a task that it lacks, category, CLS/GEN and instruction are unknown.
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
            task = pool.get(name) if pool is not None else None
            category = task.category if task else UNKNOWN
            columns["category"].append(categories.setdefault(category, len(categories)))
            columns["is_cls"].append(int(pool.is_cls(name)) if task else None)
            text = task.instruction.definition.strip() if task else ""
            columns["instruction"].append(cut(text, INSTRUCTION_CHARACTERS))
        return columns, list(categories)


def cut(text: str, characters: int) -> str:
    """Returns at most so many characters, the last one an ellipsis where some were cut."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"
