"""SIGTERM, the notice that a machine will be taken away: stop at the next good place."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ait_jax.runtime import distributed

_noticed = threading.Event()
_points = 0


class Preempted(Exception):
    """Stopped and saved; the same command continues."""


def heed() -> None:
    """From now on SIGTERM is noticed and no longer ends the process.

    Several processes rely on JAX's own notice, which makes them stop at the same place.
    """
    if distributed.process_count() == 1:
        signal.signal(signal.SIGTERM, lambda number, frame: _noticed.set())


@contextmanager
def caught(handle: Callable[[int], Any]) -> Generator[None, None, None]:
    """Calls `handle` with the number of each SIGTERM or SIGINT that arrives during the block."""
    former = {
        number: signal.signal(number, lambda number, _: handle(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def is_due() -> bool:
    """Says whether to stop here; every process must ask at the same places of the program."""
    global _points  # noqa: PLW0603 - counts the places of the process
    if distributed.process_count() == 1:
        return _noticed.is_set()
    from jax.experimental import multihost_utils

    _points += 1
    # JAX says so only once, maybe at a place where the program cannot stop.
    if not _noticed.is_set() and multihost_utils.reached_preemption_sync_point(_points):
        _noticed.set()
    return _noticed.is_set()


def check() -> None:
    """Raises Preempted if stopping is due; for places where nothing has to be saved first."""
    if is_due():
        raise Preempted
