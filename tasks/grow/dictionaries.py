"""A model's answer -> dictionaries. Generated text is data: parsed, never evaluated."""

import ast
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ait_jax.tasks.grow.proposal import names_a_task

from ait_jax.runtime import strict_json

MAX_ANSWER = 20_000
_MAX_DEPTH = 20
# Dictionaries around the tasks' own that are looked into if they are broken: {"tasks": {"task1": .
_MAX_FORM = 2
PROSE, BROKEN = "no dictionary in it", "a dictionary that is broken off or malformed"
TOO_LONG, TOO_DEEP = f"longer than {MAX_ANSWER:,} characters", "nested too deeply"
EMPTY = "empty"


def parse(text: str) -> tuple[list[dict[Any, Any]], list[str]]:
    """Finds the dictionaries of an answer, whatever surrounds them.

    Dynosaur's demonstrations show {'task1': {...}, 'task2': {...}}; models also write one
    dictionary a line, number them, put them in a list or a fenced block, and use either kind of
    quotes. Each is read as JSON or else as a Python literal. The authors drop an answer that is not
    one literal, as all are that were cut at the longest answer; here its whole dictionaries are
    kept.

    Returns:
      the tasks' dictionaries in order, and one reason for each part that cannot be read.
    """
    if not text.strip():
        return [], [EMPTY]
    if len(text) > MAX_ANSWER:
        return [], [TOO_LONG]
    found: list[dict[Any, Any]] = []
    reasons: list[str] = []
    for part in _braced(text):
        if _depth(part) > _MAX_DEPTH:
            reasons.append(TOO_DEEP)
        elif isinstance(value := _literal(part), dict):
            found += _tasks(value)
        else:
            reasons.append(BROKEN)
            found += _whole_within(part, _MAX_FORM)
    if not found and not reasons:
        reasons.append(PROSE)
    return found, reasons


def _tasks(value: Any) -> list[dict[Any, Any]]:
    """Returns the tasks of {"task1": {...}, ...}, {"tasks": [...]} and the like, else the value."""
    if isinstance(value, list):
        return [task for item in value for task in _tasks(item)]
    if not isinstance(value, dict):
        return []
    inner = [] if names_a_task(value) else [t for item in value.values() for t in _tasks(item)]
    return inner or [value]


def _whole_within(broken: str, levels: int) -> list[dict[Any, Any]]:
    """Returns the tasks inside a dictionary that is itself broken off or malformed."""
    found: list[dict[Any, Any]] = []
    for part in _braced(broken[1:]) if levels else ():
        value = _literal(part)
        if isinstance(value, dict):
            found += filter(names_a_task, _tasks(value))
        else:
            found += _whole_within(part, levels - 1)
    return found


def _braced(text: str) -> Iterator[str]:
    """Yields every outermost {...} of the text; the last one may never close."""
    start, depth, quote, skip = 0, 0, "", False
    for i, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            if character == "\\":
                skip = True
            elif character == quote and not _is_apostrophe(text, i, quote):
                quote = ""
        elif depth and character in "\"'":
            quote = character
        elif character == "{":
            start = start if depth else i
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if not depth:
                yield text[start : i + 1]
    if depth:
        yield text[start:]


def _is_apostrophe(text: str, i: int, quote: str) -> bool:
    # Models write 'the user's question': not a literal, but its end must be found.
    return quote == "'" and text[i - 1].isalpha() and text[i + 1 : i + 2].isalpha()


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _literal(text: str) -> Any:
    with contextlib.suppress(strict_json.Unfit):
        return strict_json.parse(text, lenient=True)
    if re.search(r"(?:[-+~]\s*){20}", re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "", text)):
        return None  # chains of signs nest, too, and no answer has them
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
