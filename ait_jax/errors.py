"""Errors that a user can fix, how they repeat what was given, and how `ait-jax` exits."""

import enum
import re
import reprlib
import unicodedata
from collections.abc import Iterable

_MOST_COMPARED = 2000
_MOST_SHOWN = 200
_LONGEST_MESSAGE = 4000
_LONG_WORD = re.compile(rf"\S{{{_MOST_SHOWN + 1},}}")
# Joiners that some scripts and emoji need.
_HARMLESS_FORMATS = "\u200c\u200d"
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


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
    Whatever it repeats, a terminal can take it, and no line of it can be mistaken for another's.

    Args:
      lines: almost always one; further ones list what the first one announces.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(_cut(_shortened(visible(line))) for line in lines))


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Returns `text` with escapes (`\x1b`, `\u202e`) for control and direction characters.

    With `keep_lines` line ends stay and tabs become four spaces; otherwise both are escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character, keep_lines) for character in text)


def _escaped(character: str, keep_lines: bool) -> str:
    if keep_lines and character in "\n\t":
        return "    " if character == "\t" else character
    if unicodedata.category(character) in _UNSAFE and character not in _HARMLESS_FORMATS:
        return character.encode("unicode_escape").decode()
    return character


def shown(value: object) -> str:
    """Returns what was given as a message repeats it: quoted, on one line, escaped, cut.

    Args:
      value: a string, or a value of JSON or gin.
    """
    try:
        text = repr(value[:_MOST_SHOWN]) if isinstance(value, str) else _SHORT.repr(value)
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return "an integer of thousands of digits"
    whole = not isinstance(value, str) or len(value) <= _MOST_SHOWN
    return _cut(text if whole else text + "...", _MOST_SHOWN)


def shown_path(path: object) -> str:
    """Returns a path as a message repeats it: on one line, escaped, cut in its middle."""
    text = visible(str(path))
    return text if len(text) <= _MOST_SHOWN else _without_middle(text)


def _without_middle(text: str) -> str:
    half = _MOST_SHOWN // 2
    return f"{text[: half - 3]}...{text[-half:]}"


def _shortened(line: str) -> str:
    """Returns a line whose longest words, paths for example, are cut in their middle."""
    return _LONG_WORD.sub(lambda match: _without_middle(match[0]), line)


def _cut(text: str, most: int = _LONGEST_MESSAGE) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def first_line(error: Exception) -> str:
    """Returns the first line of what a library said, or the kind of an error without words."""
    return _cut((visible(str(error).strip().split("\n")[0])) or type(error).__name__, 500)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the candidate closest to `name`, or "".

    Among thousands of candidates it compares only alphabetical neighbors: 50,000 comparisons take
    ten seconds.
    """
    import bisect  # imported late: most commands have no mistake
    import difflib

    names = list(candidates)
    if len(names) > _MOST_COMPARED:
        names.sort()
        place = bisect.bisect_left(names, name)
        names = names[max(0, place - _MOST_COMPARED // 2) : place + _MOST_COMPARED // 2]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
