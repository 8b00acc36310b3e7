"""Errors that a user can mend; the command line prints them without a traceback."""

import bisect
import difflib
from collections.abc import Iterable

_MOST_COMPARED = 2000


class UserError(Exception):
    """A mistake in what the user gave.

    The message says what was given, what was needed and which gin name, flag or
    file line to change. `ait-jax` prints it on one line and exits with 2;
    `--debug` adds the traceback.
    """


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the candidate closest to `name`, or "".

    Among thousands of candidates only those beside it in the alphabet are compared: 50,000
    comparisons take ten seconds.
    """
    names = list(candidates)
    if len(names) > _MOST_COMPARED:
        names.sort()
        place = bisect.bisect_left(names, name)
        names = names[max(0, place - _MOST_COMPARED // 2) : place + _MOST_COMPARED // 2]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
