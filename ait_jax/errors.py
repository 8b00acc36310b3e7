"""Errors that a user can mend; the command line prints them without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave.

    The message says what was given, what was needed and which gin name, flag or
    file line to change. `ait-jax` prints it on one line and exits with 2;
    `--debug` adds the traceback.
    """


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the candidate closest to `name`, or ""."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
