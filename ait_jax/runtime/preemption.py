"""SIGTERM, the notice that a machine will be taken away, and Ctrl-C: stop at the next good place.

Neither raises an exception where it arrives: one inside a callback of XLA's would be lost, and one
in the middle of a save would leave half of it.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ait_jax.errors import ExitCode
from ait_jax.runtime import distributed

_noticed = threading.Event()
_interrupted = threading.Event()
# How long Ctrl-C waits for the program to reach a place where it can save.
PATIENCE_SECONDS = 10.0
_heard = threading.Event()
_points = 0
_heeded = contextlib.ExitStack()
# What leaves the terminal in order when the process ends at once.
before_ending: list[Callable[[], Any]] = []


class Preempted(Exception):
    """Stopped and saved; the same command continues."""


def heed_interrupts() -> None:
    """From now on the first Ctrl-C is noticed as SIGTERM is, and a second one ends the process.

    A thread takes them, since Python's own handlers wait while the main thread is in C++, for a
    compilation, say. A program that was started to ignore Ctrl-C (`nohup`, a script's `&`) does.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    _heeded.callback(pythons.close)  # which ends the thread
    former = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    _heeded.callback(signal.set_wakeup_fd, former)
    handler = signal.signal(signal.SIGINT, lambda number, frame: None)
    _heeded.callback(signal.signal, signal.SIGINT, handler)
    threading.Thread(target=_take, args=(ours,), daemon=True, name="interrupts").start()


def release_interrupts() -> None:
    """Leaves Ctrl-C as it was before `heed_interrupts`: the caller of a command may go on."""
    _heeded.close()
    for event in (_interrupted, _noticed, _heard):
        event.clear()


def _take(arriving: socket.socket) -> None:
    while numbers := arriving.recv(64):
        for _ in range(numbers.count(signal.SIGINT)):
            if _interrupted.is_set():
                _end()
            _interrupted.set()
            distributed.say("stopping at the next step; Ctrl-C again ends at once.")
            if distributed.process_count() == 1:
                _noticed.set()
                threading.Thread(target=_end_if_unheard, daemon=True).start()
            else:  # JAX's notice makes all processes stop at the same place
                os.kill(os.getpid(), signal.SIGTERM)
    arriving.close()


def _end_if_unheard() -> None:
    """Ends the process if it does not come to a place to stop at: a compilation takes minutes.

    Nothing is half-written then, as files appear whole; a save that has begun is waited for.
    """
    if not _heard.wait(PATIENCE_SECONDS) and _interrupted.is_set():
        _end()


def _end() -> None:
    for callback in before_ending:
        with contextlib.suppress(Exception):
            callback()
    distributed.say("interrupted; the same command continues from what was saved before.")
    os._exit(ExitCode.INTERRUPTED)


def is_interrupted() -> bool:
    """Says whether Ctrl-C is why the process stops."""
    return _interrupted.is_set()


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
        if _noticed.is_set():
            _heard.set()
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
