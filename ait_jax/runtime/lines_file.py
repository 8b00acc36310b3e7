"""Files that grow line by line, on a disk or in a bucket, which cannot append."""

import os
from typing import Any

from ait_jax.runtime import buckets, files


class LinesFile:
    """Lines of text, added one at a time.

    On a disk a line is safe once `add` returns. In a bucket lines wait for `flush`, which
    writes the whole object: call it where what follows must not be newer than the lines.

    Args:
      path: local or in a bucket; need not be there yet.

    Raises:
      UserError: the folder cannot be written to, or the bucket does not answer.
    """

    def __init__(self, path: Any) -> None:
        self.path = files.as_path(path)
        self._local = buckets.is_local(self.path)
        self._lines: list[str] | None = None
        self._waiting = False

    def read(self) -> list[str]:
        """Returns the lines so far; the last one may be cut short by a crash."""
        if self._lines is not None:
            return list(self._lines)
        try:
            return files.read_text(self.path).splitlines()
        except FileNotFoundError:
            return []

    def replace(self, lines: list[str]) -> None:
        """Makes these the lines, at once."""
        files.write_lines(self.path, lines)
        if not self._local:
            self._lines = list(lines)

    def add(self, line: str) -> None:
        if self._local:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            return
        self._lines = [*self.read(), line]
        self._waiting = True

    def flush(self) -> None:
        if self._waiting:
            files.write_lines(self.path, self._lines)
            self._waiting = False
