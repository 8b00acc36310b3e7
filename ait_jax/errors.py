"""Errors that a user can fix, printed without a traceback, and how `ait-jax` exits."""

import bisect
import difflib
import enum
from collections.abc import Iterable

_MOST_COMPARED = 2000


class ExitCode(enum.IntEnum):
    """How `ait-jax` exits, for launchers; `launch/worker.py` decides what follows from each."""

    OK = 0
    FAILED = 1
    USER_ERROR = 2  # retrying changes nothing
    UNFINISHED = 3  # an endpoint failed or the budget ran out; what is there is kept
    HOST_LOST = 69  # another process died or did not arrive in time: sysexits.h's EX_UNAVAILABLE
    PREEMPTED = 75  # told to stop, and saved: EX_TEMPFAIL
    PREFLIGHT = 78  # a host is not what was asked for: EX_CONFIG
    INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """A mistake in what the user gave.

    The message says what was given, what was needed and which gin name, flag or file line to
    change. `ait-jax` prints it on one line and exits with 2; `--debug` adds the traceback.
    """


def first_line(error: Exception) -> str:
    """Returns the first line of what a library said, or the kind of an error without words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the candidate closest to `name`, or "".

    Among thousands of candidates it compares only alphabetical neighbors: 50,000 comparisons take
    ten seconds.
    """
    names = list(candidates)
    if len(names) > _MOST_COMPARED:
        names.sort()
        place = bisect.bisect_left(names, name)
        names = names[max(0, place - _MOST_COMPARED // 2) : place + _MOST_COMPARED // 2]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
