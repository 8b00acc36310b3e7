"""The files a pool was prepared from: what is remembered of them, and whether they changed."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ait_jax.errors import UserError


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
    """

    label: str
    paths: Mapping[str, Path]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths.values())

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
                status = path.stat()
                before = known.get(name)
                stamp = (status.st_size, status.st_mtime_ns)
                if before and (before.size, before.modified_ns) == stamp:
                    files[name] = before
                else:
                    with open(path, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    files[name] = SourceFile(*stamp, digest)
            except OSError as error:
                raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
            advance(status.st_size)
        return files


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
        f"{len(names)} file{'s' if len(names) > 1 else ''} {what} (the first is {min(names)!r})"
        for what, names in groups.items()
        if names
    )
