"""JSON from outside: task files, run directories, checkpoints, replies.

Python's parser believes its input: it recurses as deep as that nests, makes integers of thousands
of digits, takes NaN and infinity, keeps the last of two values under one key, and returns halves of
surrogate pairs, which no file can hold. Here all of it is one kind of error, and `typed` turns what
was read into values of the types that the reader states.
"""

import json
import math
import re
from typing import Any, Never, TypeVar

from ait_jax.errors import UserError, shown, shown_path

MOST_BYTES = 1 << 30
MOST_DEPTH = 64
_MOST_DIGITS = 20  # of an unsigned integer of 64 bits
_TOO_DEEP = f"nested more than {MOST_DEPTH} deep"
T = TypeVar("T")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Unfit(ValueError):
    """JSON by the grammar, but no data that this program takes."""


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
    if len(data) > most_bytes:
        _refuse(source, line, f"{len(data):,} bytes, more than the {most_bytes:,} that are read")
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
        if line is None:
            _refuse(source, error.lineno, f"malformed JSON: {error.msg}", error.colno)
        _refuse(source, line, f"malformed JSON: {error.msg}", error.pos + 1)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].count(b"\n") + 1
        _refuse(source, line or before, f"not UTF-8 text{other_encoding(error.object)}")
    except RecursionError:
        _refuse(source, line, _TOO_DEEP)
    except _Unfit as error:
        _refuse(source, line, str(error))


def decode(data: bytes | str) -> str:
    """Returns UTF-8 text without its byte-order mark. Raises UnicodeDecodeError."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return data.decode("utf-8-sig")


def other_encoding(data: bytes) -> str:
    """Says what text that is not UTF-8 may be, in brackets, or nothing."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return " (UTF-16, by its first bytes)" if wide else ""


def _refuse(source: object, line: int | None, problem: str, column: int | None = None) -> Never:
    place = shown_path(source)
    place += f", line {line}" if line is not None else ""
    place += f", column {column}" if column is not None else ""
    raise UserError(f"{place}: {problem}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise _Unfit(f"the key {shown(twice)} is given twice in one object")
    return value


def _constant(name: str) -> Never:
    raise _Unfit(f"{name} is no JSON number; write null where there is no value")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS + 1:
        raise _Unfit(f"an integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Unfit(f"{shown(digits[:40])} is beyond what a float holds")
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
                raise _Unfit(_TOO_DEEP)
            below.extend(child for child in children if isinstance(child, kinds))
        level, depth = below, depth + 1


def _check_text(text: Any) -> None:
    try:
        str(text).encode()
    except UnicodeEncodeError as error:
        raise _Unfit(f"half a surrogate pair in {shown(text[:80])}") from error


def typed(value: Any, kind: type[T], source: object, remedy: str = "") -> T:
    """Returns a value of JSON as `kind`.

    Args:
      value: as `loads` returns it.
      kind: a dataclass, TypedDict, or a type of containers; objects may have more keys than it.
      source: where it is from, for errors.
      remedy: what to do, for errors.

    Raises:
      UserError: a missing key or a wrong type, with its place.
    """
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        problem = problem.replace("`", "")
        where = f" ({place})" if place else ""
        advice = f"; {remedy}" if remedy else ""
        raise UserError(f"{shown_path(source)}{where}: {problem}{advice}.") from None
