"""The files a pool was prepared from: what is remembered of them, and whether they changed."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError


@dataclass(frozen=True)
class SourceFile:
    """What is remembered of a file: enough to see, mostly without reading it, that it changed."""

    size: int
    modified_ns: int
    sha256: str


def read_source_files(
    paths: Mapping[str, Path],
    known: Mapping[str, SourceFile],
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> dict[str, SourceFile]:
    """Returns what is to be remembered of every file.

    Args:
      paths: name -> where it lies.
      known: files as they once were; one whose size and time of modification are still
        the same is taken to be the same and not read, as `make` and `git` do.
      advance: called with the size of each file that is done.

    Raises:
      UserError: a file cannot be read.
    """
    files = {}
    for name, path in paths.items():
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
