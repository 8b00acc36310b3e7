"""The terminal: lines redrawn in place at its bottom, quiet libraries.

The cursor is never hidden and rests on its own line below the area, so a killed process leaves a
working terminal.
"""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

MOST_COLUMNS = 110


def is_terminal() -> bool:
    """Says whether lines can be redrawn: on a terminal whose TERM is not dumb."""
    if sys.stdout is None or not sys.stdout.isatty():  # Python without a console has no streams
        return False
    return os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def size(stream: TextIO | None = None) -> tuple[int, int]:
    """Returns the columns and rows of the terminal."""
    with suppress(OSError, ValueError):
        found = os.get_terminal_size((stream or sys.stdout).fileno())
        if found.columns:
            return found
    return shutil.get_terminal_size()


def duration(seconds: float) -> str:
    """Returns a time as "45 s", "3 min 20 s", "2 h 05 min" or "3 d 4 h"."""
    seconds = round(seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hides what the block writes to the error stream, unless it raises.

    TensorFlow's C++ writes lines about CUDA and oneDNN on import, whatever its log level.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


class LiveArea:
    """Lines at the bottom of the terminal `stream`, and the streams that write above them.

    `render` takes columns and most rows; it returns lines, which may hold colors, and their widths,
    at most `columns`.
    """

    def __init__(
        self, render: Callable[[int, int], Sequence[tuple[str, int]]], stream: TextIO
    ) -> None:
        self._render, self._stream = render, stream
        self.lock = threading.RLock()
        self._widths: list[int] = []  # of the lines that are drawn
        self._drawn = ""
        self._streams: dict[str, Any] = {}

    def start(self) -> None:
        """Draws the area; from now on sys.stdout and sys.stderr write above it."""
        for name in ("stdout", "stderr"):
            original = getattr(sys, name)
            if original is self._stream or original.isatty():
                self._streams[name] = original
                setattr(sys, name, _Above(self, original))
        self.redraw()

    def stop(self) -> None:
        """Removes the area and restores the streams."""
        with self.lock:
            self._put(self._erased())
            self._widths, self._drawn = [], ""
            for name, original in self._streams.items():
                above = getattr(sys, name)
                if isinstance(above, _Above):
                    setattr(sys, name, original)
                    original.write(above.waiting)
                    original.flush()
            self._streams = {}

    def redraw(self) -> None:
        """Draws the area as it is now."""
        columns, rows = size(self._stream)
        # One column stays free, because some terminals wrap a full line.
        lines = self._render(min(columns - 1, MOST_COLUMNS), max(1, rows - 2))
        with self.lock:
            erased = self._erased()
            self._drawn = "".join(f"{text}\n" for text, _ in lines)
            self._widths = [width for _, width in lines]
            self._put(erased + self._drawn)

    def write_above(self, text: str) -> None:
        """Writes whole lines above the area."""
        with self.lock:
            self._put(self._erased() + text + self._drawn)

    def _erased(self) -> str:
        """Returns what erases the drawn lines, even those that a narrower terminal has wrapped."""
        columns = max(1, size(self._stream)[0])
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return f"\x1b[{rows}A\r\x1b[J" if rows else ""

    def _put(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


class _Above:
    """A stream whose lines appear above the area; an unfinished line waits."""

    def __init__(self, area: LiveArea, original: TextIO) -> None:
        self._area, self._original, self.waiting = area, original, ""

    def write(self, text: str) -> int:
        with self._area.lock:
            lines, newline, rest = (self.waiting + text).rpartition("\n")
            self.waiting = rest
            if newline:
                self._area.write_above(lines + newline)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
