"""How far a long preparation is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO


class Progress:
    """Shows how much of `total` is done; a context manager.

    Args:
      label: what is being done.
      total: amount of work, in any unit.
      stream: where to; standard error by default.
      seconds_per_line: where `stream` is no terminal, at most one line in this time.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None, seconds_per_line: float = 10.0):
        self._label = label
        self._total = max(1, total)
        self._done = 0
        self._stream = stream or sys.stderr
        self._seconds_per_line = seconds_per_line
        self._bar = None
        self._task = None
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task(self._label, total=self._total)
            self._bar.start()
        else:
            print(f"{self._label} ...", file=self._stream, flush=True)
        return self

    def __exit__(self, *unused) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Notes that `amount` more is done."""
        self._done += amount
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_line >= self._seconds_per_line:
            self._last_line = time.monotonic()
            percent = min(100, 100 * self._done // self._total)
            print(f"{self._label}: {percent}%", file=self._stream, flush=True)
