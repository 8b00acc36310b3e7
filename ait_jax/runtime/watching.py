"""Shows what a program is doing, and writes it to live.json: one thread, twice a second."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ait_jax.runtime import buckets, distributed, files, preemption, terminal
from ait_jax.runtime.preemption import Preempted
from ait_jax.runtime.reporter import FINISHED, Reporter, using

LIVE_FILE = "live.json"
# How often live.json is written, on a disk and in a bucket.
PERIOD_SECONDS, BUCKET_PERIOD_SECONDS = 3.0, 30.0
_DRAW_SECONDS = 0.5

# Reporter, columns, most rows -> lines and their widths, as `terminal.LiveArea` takes them.
View = Callable[[Reporter, int, int], Sequence[tuple[str, int]]]


def plain_view(reporter: Reporter, columns: int, rows: int) -> list[tuple[str, int]]:
    """Returns a line for every activity; `report.run_view` shows more."""
    activities = list(reporter.activities)[:rows]
    lines = [f"{a.what} {a.done:,}/{a.total:,}  {a.note}".rstrip() for a in activities]
    return [(line[:columns], min(columns, len(line))) for line in lines]


_view: View = plain_view


def show_with(view: View) -> None:
    """Sets what draws reporters on this process's terminal."""
    global _view  # noqa: PLW0603 - one for the process's terminal
    _view = view


@contextlib.contextmanager
def watch(
    reporter: Reporter, path: Any = None, timings: Sequence[tuple[str, float]] = ()
) -> Iterator[Reporter]:
    """Makes `reporter` the process's for the block: on the terminal, and in live.json.

    It draws if standard output is a terminal whose TERM is not dumb. It writes live.json once the
    run directory is known to be this program's (`Reporter.is_owner`), then every few seconds, in a
    bucket every half minute, and at the end. Only the process that writes files does either. A
    failure to write does not stop the program.

    Args:
      path: the run directory; None writes no live.json.
      timings: (stage, seconds) of earlier calls.
    """
    with using(reporter):
        if not distributed.is_writer():
            yield reporter
            return
        reporter.timings = list(timings)
        watcher = _Watcher(reporter, path)
        watcher.start()
        try:
            yield reporter
            reporter.state = FINISHED
        except BaseException as error:
            reporter.state, reporter.problem = _ending(error)
            raise
        finally:
            watcher.stop()


def _ending(error: BaseException) -> tuple[str, str]:
    interrupted = isinstance(error, Preempted) and preemption.is_interrupted()
    if isinstance(error, KeyboardInterrupt) or interrupted:
        return "interrupted", "Ctrl-C"
    if isinstance(error, Preempted):
        return "preempted", "told to stop (SIGTERM), and saved"
    return "failed", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Watcher:
    """The thread, its file and its area of the terminal."""

    def __init__(self, reporter: Reporter, path: Any) -> None:
        self.reporter, self.path = reporter, path
        local = path is None or buckets.is_local(path)
        self.period = PERIOD_SECONDS if local else BUCKET_PERIOD_SECONDS
        self.area = None
        if terminal.is_terminal():
            view = _view
            self.area = terminal.LiveArea(
                lambda columns, rows: view(reporter, columns, rows), sys.stdout
            )
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True, name="live")
        self._written = 0.0
        self._former_handler: Any = None

    def start(self) -> None:
        if self.area:
            self._clean_up_when_terminated(self.area)
            preemption.before_ending.append(self.area.stop)
            self.area.start()
        if self.area or self.path is not None:
            self.thread.start()

    def stop(self) -> None:
        self.done.set()
        if self.thread.is_alive():
            self.thread.join()
        if self.area:
            self.area.stop()
            preemption.before_ending.remove(self.area.stop)
            if self._former_handler is not None:
                signal.signal(signal.SIGTERM, self._former_handler)
        self._write()

    def _work(self) -> None:
        while not self.done.wait(_DRAW_SECONDS):
            if time.monotonic() - self._written >= self.period:
                self._write()
            if self.area:
                with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                    self.area.redraw()

    def _write(self) -> None:
        if self.path is None or not self.reporter.is_owner:
            return
        self._written = time.monotonic()
        with contextlib.suppress(Exception):
            files.write_json(self.path / LIVE_FILE, self.reporter.to_json())

    def _clean_up_when_terminated(self, area: terminal.LiveArea) -> None:
        """Removes the area first if SIGTERM would end the process at once."""
        alone = threading.current_thread() is threading.main_thread()
        if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def end(number: int, frame: Any) -> None:
            area.stop()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        self._former_handler = signal.signal(signal.SIGTERM, end)
