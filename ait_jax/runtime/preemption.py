"""SIGTERM, the notice of a machine that will be taken away: stop at the next good place."""

import signal
import threading

from ait_jax.runtime import distributed

_noticed = threading.Event()
_points = 0


class Preempted(Exception):
    """What was done is saved; the same command continues."""


def heed() -> None:
    """From now on SIGTERM is noticed and no longer ends the process.

    Several processes have JAX's own notice, which makes them stop at the same place.
    """
    if distributed.process_count() == 1:
        signal.signal(signal.SIGTERM, lambda *_: _noticed.set())


def is_due() -> bool:
    """Says whether to stop here; every process has to ask at the same places of the program."""
    global _points
    if distributed.process_count() == 1:
        return _noticed.is_set()
    from jax.experimental import multihost_utils

    _points += 1
    # JAX says so at one point only, where it may not have been a good one to stop at.
    if not _noticed.is_set() and multihost_utils.reached_preemption_sync_point(_points):
        _noticed.set()
    return _noticed.is_set()


def check() -> None:
    """Raises Preempted where stopping is due and nothing has to be saved first."""
    if is_due():
        raise Preempted
