"""How far a long preparation is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from typing import TextIO

from ait_jax.runtime import terminal
from ait_jax.runtime.reporter import progress


class Progress:
    """Shows how much of `total` is done; a context manager.

    Args:
      label: what is being done.
      total: amount of work, in any unit.
      stream: for lines; standard error by default.
      seconds_per_line: where there is no terminal, at most one line in this time.
    """

    def __init__(
        self, label: str, total: int, stream: TextIO | None = None, seconds_per_line: float = 10.0
    ) -> None:
        self._label = label
        self._total = max(1, total)
        self._done = 0
        self._stream = stream or sys.stderr
        self._seconds_per_line = seconds_per_line
        self._shown = contextlib.ExitStack()
        self._show = None
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        if terminal.is_terminal():
            self._show = self._shown.enter_context(progress(self._label, self._total))
        else:
            print(f"{self._label} ...", file=self._stream, flush=True)
        return self

    def __exit__(self, *error) -> None:
        self._shown.__exit__(*error)

    def advance(self, amount: int) -> None:
        """Notes that `amount` more is done."""
        self._done += amount
        if self._show:
            self._show(self._done)
        elif time.monotonic() - self._last_line >= self._seconds_per_line:
            self._last_line = time.monotonic()
            percent = min(100, 100 * self._done // self._total)
            print(f"{self._label}: {percent}%", file=self._stream, flush=True)
