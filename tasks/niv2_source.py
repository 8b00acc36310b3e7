"""A clone of NIV2 on disk: its task files, its splits, and whether they changed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ait_jax.tasks.source_files import SourceFile, read_source_files, text_name

from ait_jax.errors import UserError
from ait_jax.pool.splits import read_names


class Clone:
    """A folder laid out as NIV2's repository: tasks/*.json and splits/<name>/*_tasks.txt.

    Args:
      directory: the folder (gin name NIV2_DIR).

    Raises:
      UserError: there is no such folder, or no task in it.
    """

    def __init__(self, directory: Any) -> None:
        self.directory = Path(directory).expanduser()
        if not self.directory.is_dir():
            raise UserError(
                f"NIV2_DIR = {str(directory)!r} is not a folder; give a clone of Natural Instructions "
                "(with tasks/*.json and splits/)."
            )
        # Hidden files are not tasks: archives made on macOS are full of `._task001.json`.
        self.task_paths = sorted(
            p for p in (self.directory / "tasks").glob("*.json") if not p.name.startswith(".")
        )
        if not self.task_paths:
            raise UserError(
                f"NIV2_DIR = {str(directory)!r} has no tasks/*.json; give a clone of Natural Instructions."
            )
        self._split_paths = sorted(self.directory.glob("splits/*/*_tasks.txt"))

    @property
    def num_bytes(self) -> int:
        """Bytes of all task files."""
        return sum(path.stat().st_size for path in self.task_paths)

    def read_splits(self) -> dict[str, dict[str, list[str]]]:
        """Returns {"default": {"train_tasks": [names], ...}, ...}. Raises UserError on a bad name."""
        splits: dict[str, dict[str, list[str]]] = {}
        for path in self._split_paths:
            splits.setdefault(path.parent.name, {})[path.stem] = list(read_names(path))
        return splits

    def files(
        self,
        known: Mapping[str, SourceFile],
        advance: Callable[[int], None] = lambda num_bytes: None,
    ) -> dict[str, SourceFile]:
        """Returns every file by its path relative to the clone; see `read_source_files`."""
        paths = {
            text_name(path.relative_to(self.directory)): path
            for path in [*self.task_paths, *self._split_paths]
        }
        return read_source_files(paths, known, advance)
