"""The files a pool was prepared from: what is remembered of them, and whether they changed."""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime.files import open_regular


@dataclass(frozen=True)
class SourceFile:
    """What is remembered of a file: shows, mostly without reading it, whether it changed."""

    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class SourceFiles:
    """The files that a pool is prepared from.

    Attributes:
      label: the source in words, for messages: "NIV2_DIR = 'clone'".
      paths: name, independent of where the files are -> path.
      skips_unreadable: whether a link to nothing, a pipe and the like are remembered as such; else
        they are refused.
    """

    label: str
    paths: Mapping[str, Path]
    skips_unreadable: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(map(size_of, self.paths.values()))

    def read(
        self,
        known: Mapping[str, SourceFile],
        advance: Callable[[int], None] = lambda num_bytes: None,
    ) -> dict[str, SourceFile]:
        """Returns what is to be remembered of each file.

        Args:
          known: files as they once were; one with the same size and time of modification is
            taken to be unchanged and is not read, as `make` and `git` do.
          advance: called with the size of each file once it is read.

        Raises:
          UserError: a file cannot be read.
        """
        files = {}
        for name, path in self.paths.items():
            try:
                files[name] = _read(path, known.get(name))
            except OSError as error:
                if not self.skips_unreadable or error.errno in _TOO_MANY_OPEN:
                    problem = error.strerror or error
                    raise UserError(f"{shown_path(path)}: cannot read it: {problem}.") from error
                files[name] = _UNREADABLE
            advance(files[name].size)
        return files


_UNREADABLE = SourceFile(0, 0, "")
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


def _read(path: Path, before: SourceFile | None) -> SourceFile:
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        stamp = (status.st_size, status.st_mtime_ns)
        if before and (before.size, before.modified_ns) == stamp:
            return before
        return SourceFile(*stamp, hashlib.file_digest(file, "sha256").hexdigest())


def size_of(path: Path) -> int:
    """Returns a file's bytes, 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def fingerprint(files: Mapping[str, SourceFile]) -> str:
    """Returns a SHA-256 (hex) over names and contents, whatever the times."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name].size}\0{files[name].sha256}\n".encode())
    return digest.hexdigest()


def difference(before: Mapping[str, SourceFile], now: Mapping[str, SourceFile]) -> str:
    """Returns what changed in words ("2 files added (the first is ...)"), or ""."""
    both = now.keys() & before.keys()
    groups = {
        "added": now.keys() - before.keys(),
        "removed": before.keys() - now.keys(),
        "changed": {name for name in both if now[name].sha256 != before[name].sha256},
    }
    return ", ".join(
        f"{len(names)} file{'s' if len(names) > 1 else ''} {what} (the first is "
        f"{shown(min(names))})"
        for what, names in groups.items()
        if names
    )
