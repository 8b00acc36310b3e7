"""Shows what a program is doing, and writes it to live.json: one thread, twice a second."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ait_jax.rounds import run_status
from ait_jax.runtime import buckets, distributed, files, live_area
from ait_jax.runtime.live import FINISHED, Live, using
from ait_jax.runtime.preemption import Preempted

_DRAW_SECONDS = 0.5


@contextlib.contextmanager
def watch(live: Live, directory: Any = None) -> Iterator[Live]:
    """Makes `live` the process's state for the block: on the terminal, and in live.json.

    The terminal is drawn on where standard output is one (and TERM is not dumb). live.json is
    written once the run directory is known to be this program's (`Live.is_owner`), then every few
    seconds, in a bucket every half a minute, and at the end with how it ended. Only the process
    that writes files does either. Failing to write it is no reason to stop.

    Args:
      directory: a `RunDirectory`; None writes no live.json.
    """
    with using(live):
        if not distributed.is_writer():
            yield live
            return
        watcher = _Watcher(live, directory)
        watcher.start()
        try:
            yield live
            live.state = FINISHED
        except BaseException as error:
            live.state, live.problem = _ending(error)
            raise
        finally:
            watcher.stop()


def _ending(error: BaseException) -> tuple[str, str]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "Ctrl-C"
    if isinstance(error, Preempted):
        return "preempted", "told to stop (SIGTERM), and saved"
    return "failed", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Watcher:
    """The thread, its file and its area."""

    def __init__(self, live: Live, directory: Any) -> None:
        self.live, self.directory = live, directory
        self.period = run_status.PERIOD_SECONDS
        if directory is not None:
            live.timings = run_status.read_timings(directory.path)
            if not buckets.is_local(directory.path):
                self.period = run_status.BUCKET_PERIOD_SECONDS
        self.area = None
        if live_area.is_terminal():
            self.area = live_area.LiveArea(self._lines, sys.stdout)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True, name="live")
        self._written = 0.0
        self._former_handler: Any = None

    def start(self) -> None:
        if self.area:
            self._clean_up_when_terminated()
            self.area.start()
        if self.area or self.directory is not None:
            self.thread.start()

    def stop(self) -> None:
        self.done.set()
        if self.thread.is_alive():
            self.thread.join()
        if self.area:
            self.area.stop()
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
        if self.directory is None or not self.live.is_owner:
            return
        self._written = time.monotonic()
        with contextlib.suppress(Exception):
            files.write_json(self.directory.path / run_status.LIVE_FILE, self.live.to_json())

    def _lines(self, columns: int, rows: int) -> list[tuple[str, int]]:
        from ait_jax.report import run_view

        stages = self.directory.state.get("stages", {}) if self.directory is not None else {}
        status = run_status.compose(self.live.to_json(), dict(stages), list(self.live.timings))
        return run_view.drawn(run_view.live_lines(status, columns)[:rows], columns, sys.stdout)

    def _clean_up_when_terminated(self) -> None:
        """Where SIGTERM would end the process at once, lets it take the area away before."""
        alone = threading.current_thread() is threading.main_thread()
        if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def end(number: int, frame: Any) -> None:
            self.area.stop()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        self._former_handler = signal.signal(signal.SIGTERM, end)
