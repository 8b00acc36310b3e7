"""A clone of NIV2 on disk: its task files, its splits, and whether they changed."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.splits import read_names


@dataclass(frozen=True)
class SourceFile:
    """What is remembered of a file: enough to see, mostly without reading it, that it changed."""

    size: int
    modified_ns: int
    sha256: str


class Clone:
    """A folder laid out as NIV2's repository: tasks/*.json and splits/<name>/*_tasks.txt.

    Args:
      directory: the folder (gin name NIV2_DIR).

    Raises:
      UserError: there is no such folder, or no task in it.
    """

    def __init__(self, directory: Any):
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
        self, known: Mapping[str, SourceFile], advance: Callable[[int], None] = lambda num_bytes: None
    ) -> dict[str, SourceFile]:
        """Returns every file by its path relative to the clone.

        Args:
          known: files as they once were; one whose size and time of modification are still
            the same is taken to be the same and not read, as `make` and `git` do.
          advance: called with the size of each file that is done.
        """
        files = {}
        for path in [*self.task_paths, *self._split_paths]:
            # A name that is not UTF-8 could not be written to the record.
            name = os.fsencode(path.relative_to(self.directory)).decode("utf-8", "backslashreplace")
            try:
                status = path.stat()
            except OSError as error:
                raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
            advance(status.st_size)
            before = known.get(name)
            if before and (before.size, before.modified_ns) == (status.st_size, status.st_mtime_ns):
                files[name] = before
            else:
                files[name] = SourceFile(status.st_size, status.st_mtime_ns, _sha256(path))
        return files


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error


def fingerprint(files: Mapping[str, SourceFile]) -> str:
    """Returns a SHA-256 (hex) over names and contents; times do not enter."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name].size}\0{files[name].sha256}\n".encode())
    return digest.hexdigest()


def difference(before: Mapping[str, SourceFile], now: Mapping[str, SourceFile]) -> str:
    """Returns what changed in words ("2 files added (the first is ...)"), or ""."""
    groups = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(n for n in now.keys() & before.keys() if now[n].sha256 != before[n].sha256),
    }
    return ", ".join(
        f"{len(names)} {'file' if len(names) == 1 else 'files'} {what} (the first is {names[0]!r})"
        for what, names in groups.items()
        if names
    )


def files_to_json(files: Mapping[str, SourceFile]) -> dict[str, dict[str, Any]]:
    return {name: asdict(file) for name, file in files.items()}


def files_from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, SourceFile]:
    return {name: SourceFile(**values) for name, values in data.items()}
