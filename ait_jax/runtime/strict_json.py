"""JSON from outside: task files, run directories, checkpoints, replies.

Python's parser believes its input: it recurses as deep as that nests, makes integers of thousands
of digits, takes NaN and infinity, keeps the last of two values under one key, and returns halves of
surrogate pairs, which no file can hold. Here all of it is one kind of error, and `typed` checks
what was read against the types that the reader relies on.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Never, TypeVar

from ait_jax.errors import UserError, shown, shown_path

MOST_BYTES = 1 << 30
MOST_DEPTH = 64
_MOST_DIGITS = 20  # of an unsigned integer of 64 bits
_TOO_DEEP = f"nested more than {MOST_DEPTH} deep"
T = TypeVar("T")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Unfit(ValueError):
    """Why a text is no JSON that this program takes, beginning with the place."""


def loads(
    data: bytes | str, source: object, line: int | None = None, most_bytes: int = MOST_BYTES
) -> Any:
    """Returns the value of a JSON text.

    Args:
      data: the text; bytes are UTF-8, with or without a byte-order mark.
      source: where it is from, for errors: a path or words.
      line: which line of `source` it is, if it is one.
      most_bytes: how long `data` may be.

    Raises:
      UserError: malformed, or outside the bounds: longer than `most_bytes`, nested more than
        `MOST_DEPTH` deep, a number that 64 bits cannot hold, NaN or infinity, a key given twice,
        half a surrogate pair.
    """
    try:
        return parse(data, line, most_bytes)
    except Unfit as error:
        problem = str(error)
        comma = ", " if problem.startswith("line ") else ": "
        raise UserError(f"{shown_path(source)}{comma}{problem}.") from None


def parse(data: bytes | str, line: int | None = None, most_bytes: int = MOST_BYTES) -> Any:
    """Returns the value of a JSON text as `loads`; raises Unfit."""
    place = "" if line is None else f"line {line}: "
    if len(data) > most_bytes:
        raise Unfit(f"{place}{len(data):,} bytes, more than the {most_bytes:,} that are read")
    try:
        text = decode(data)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        halves = _SURROGATE.search(text) is not None
        if halves or text.count("[") + text.count("{") > MOST_DEPTH:
            _check(value, halves)
        return value
    except json.JSONDecodeError as error:
        row, column = (line, error.pos + 1) if line is not None else (error.lineno, error.colno)
        raise Unfit(f"line {row}, column {column}: malformed JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        row = line or error.object.count(b"\n", 0, error.start) + 1
        raise Unfit(f"line {row}: not UTF-8 text{other_encoding(error.object)}") from None
    except RecursionError:
        raise Unfit(place + _TOO_DEEP) from None
    except Unfit as error:
        raise Unfit(place + str(error)) from None


def decode(data: bytes | str) -> str:
    """Returns UTF-8 text without its byte-order mark. Raises UnicodeDecodeError."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return data.decode("utf-8-sig")


def other_encoding(data: bytes) -> str:
    """Says what text that is not UTF-8 may be, in brackets, or nothing."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return " (UTF-16, by its first bytes)" if wide else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise Unfit(f"the key {shown(twice)} is given twice in one object")
    return value


def _constant(name: str) -> Never:
    raise Unfit(f"{name} is no JSON number; write null where there is no value")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS + 1:
        raise Unfit(f"an integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unfit(f"{shown(digits[:40])} is beyond what a float holds")
    return value


def _check(value: Any, halves: bool) -> None:
    """Refuses what nests too deep, and half surrogate pairs if there may be any."""
    kinds = (dict, list, str) if halves else (dict, list)
    level, depth = [value], 0
    while level:
        below = []
        for item in level:
            if isinstance(item, dict):
                children = [*item, *item.values()] if halves else item.values()
            elif isinstance(item, list):
                children = item
            else:
                _check_text(item)
                continue
            if depth == MOST_DEPTH:
                raise Unfit(_TOO_DEEP)
            below.extend(child for child in children if isinstance(child, kinds))
        level, depth = below, depth + 1


def _check_text(text: Any) -> None:
    try:
        str(text).encode()
    except UnicodeEncodeError as error:
        raise Unfit(f"half a surrogate pair in {shown(text[:80])}") from error


def typed(value: Any, kind: type[T], source: object, remedy: str = "") -> T:
    """Returns a value of JSON as it is, if it is of `kind`.

    Args:
      value: as `loads` returns it.
      kind: a TypedDict or a type of containers; objects may have more keys than it.
      source: where it is from, for errors.
      remedy: what to do, for errors.

    Raises:
      UserError: a missing key or a wrong type, with its place.
    """
    try:
        return checked(value, kind)
    except Unfit as error:
        advice = f"; {remedy}" if remedy else ""
        raise UserError(f"{shown_path(source)}: {error}{advice}.") from None


def checked(value: Any, kind: type[T]) -> T:
    """Returns a value of JSON as `typed`; raises Unfit."""
    import msgspec

    try:
        msgspec.convert(value, kind)
        return value
    except msgspec.ValidationError as error:
        problem, _, place = str(error).replace("`", "").partition(" - at ")
        place = place.removeprefix("$").removeprefix(".")
        problem = problem[0].lower() + problem[1:]
        raise Unfit(f"{place}: {problem}" if place else problem) from None


def lines(data: bytes, kind: type[T], source: object, remedy: str = "") -> Iterator[T]:
    """Yields the objects of a file that grows by lines, without those that a crash cut short.

    Raises:
      UserError: a line is whole but not `kind`, as `typed` says it.
    """
    for number, text in enumerate(data.split(b"\n"), 1):
        try:
            value = parse(text)
        except Unfit:
            continue
        yield typed(value, kind, f"{shown_path(source)}, line {number}", remedy)
