"""A model's answer -> dictionaries. Generated text is data: parsed, never evaluated."""

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

MAX_ANSWER = 20_000
_MAX_DEPTH = 20
PROSE, BROKEN = "no dictionary in it", "a dictionary that is broken off or malformed"
TOO_LONG, TOO_DEEP = f"longer than {MAX_ANSWER:,} characters", "nested too deeply"
EMPTY = "empty"


def parse(text: str) -> tuple[list[dict[Any, Any]], list[str]]:
    """Finds the dictionaries of an answer, whatever surrounds them.

    One dictionary a line is asked for; models also number them, put them in a list or a fenced
    block, or use single quotes. Each is read as JSON or else as a Python literal. The authors drop
    an answer if one line cannot be read; here its other dictionaries are kept.

    Returns:
      the dictionaries in order, and one reason for each part that cannot be read.
    """
    if not text.strip():
        return [], [EMPTY]
    if len(text) > MAX_ANSWER:
        return [], [TOO_LONG]
    found: list[dict[Any, Any]] = []
    reasons: list[str] = []
    for part in _braced(text):
        if part is not None and _depth(part) > _MAX_DEPTH:
            reasons.append(TOO_DEEP)
        elif part is not None and isinstance(value := _literal(part), dict):
            found += _unwrapped(value)
        else:
            reasons.append(BROKEN)
    if not found and not reasons:
        reasons.append(PROSE)
    return found, reasons


def _unwrapped(value: dict[Any, Any]) -> list[dict[Any, Any]]:
    """Returns the dictionaries of {"tasks": [...]}, else the one given."""
    if len(value) == 1:
        (inner,) = value.values()
        if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
            return inner
    return [value]


def _braced(text: str) -> Iterator[str | None]:
    """Yields every outermost {...} of the text; None for one that never closes."""
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
        yield None


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
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    if re.search(r"(?:[-+~]\s*){20}", re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "", text)):
        return None  # chains of signs nest, too, and no answer has them
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
