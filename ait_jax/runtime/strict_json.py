"""JSON from outside: task files, run directories, checkpoints, replies.

Python's parser believes its input: it recurses as deep as that nests, makes integers of thousands
of digits, takes NaN and infinity, keeps the last of two values under one key, and returns halves of
surrogate pairs, which no file can hold. Here all of it is one kind of error, and `typed` checks
what was read against the types that the reader relies on.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Never, TypeVar

from ait_jax.errors import UserError, shown, shown_path

MOST_BYTES = 1 << 30
MOST_DEPTH = 64
_MOST_DIGITS = 20  # of an unsigned integer of 64 bits
# int(1e30), by which transformers says in most tokenizer_config.json that there is no limit.
_NO_LIMIT = "1000000000000000019884624838656"
_TOO_DEEP = f"nested more than {MOST_DEPTH} deep"
T = TypeVar("T")
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Unfit(ValueError):
    """Why a text is no JSON that this program takes; its message begins with the place.

    Attributes:
      problem: the message without the place.
      line, column: the place, from 1, as far as it is known.
    """

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        place = "" if line is None else f"line {line}"
        place += "" if column is None else f", column {column}"
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem, self.line, self.column = problem, line, column


def loads(
    data: bytes | str,
    source: object,
    line: int | None = None,
    most_bytes: int = MOST_BYTES,
    *,
    lenient: bool = False,
) -> Any:
    """Returns the value of a JSON text.

    Args:
      data: the text; bytes are UTF-8, with or without a byte-order mark.
      source: where it is from, for errors: a path or words.
      line: which line of `source` it is, if it is one.
      most_bytes: how long `data` may be.
      lenient: for data sets, which people write with pandas and models: NaN and infinity are read
        as floats, half a surrogate pair as U+FFFD, and texts may have line ends in them.

    Raises:
      UserError: malformed, or outside the bounds: longer than `most_bytes`, nested more than
        `MOST_DEPTH` deep, a number that 64 bits cannot hold, NaN or infinity, a key given twice,
        half a surrogate pair.
    """
    try:
        return parse(data, line, most_bytes, lenient=lenient)
    except Unfit as error:
        comma = ", " if error.line is not None else ": "
        raise UserError(f"{shown_path(source)}{comma}{error}.") from None


def parse(
    data: bytes | str,
    line: int | None = None,
    most_bytes: int = MOST_BYTES,
    *,
    lenient: bool = False,
) -> Any:
    """Returns the value of a JSON text as `loads`; raises Unfit."""
    if len(data) > most_bytes:
        problem = f"{len(data):,} bytes, more than the {most_bytes:,} that are read"
        raise Unfit(problem, line)
    try:
        text = decode(data)
        value, end = scan(text, _after_space(text, 0), lenient=lenient)
        end = _after_space(text, end)
        if end < len(text):
            raise _malformed(json.JSONDecodeError("Extra data", text, end))
        return value
    except UnicodeDecodeError as error:
        row = line or error.object.count(b"\n", 0, error.start) + 1
        raise Unfit(f"not UTF-8 text{other_encoding(error.object)}", row) from None
    except Unfit as error:
        if line is None:
            raise
        raise Unfit(error.problem, line, error.column) from None


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def scan(text: str, start: int, *, lenient: bool = False) -> tuple[Any, int]:
    """Returns the value that begins at `start`, and where it ends. Raises Unfit."""
    try:
        value, end = (_LENIENT if lenient else _STRICT).raw_decode(text, start)
        halves = _SURROGATE.search(text, start, end) is not None
        if halves and lenient:
            value = _mended(value, 0)
        elif halves or text.count("[", start, end) + text.count("{", start, end) > MOST_DEPTH:
            _check(value, halves)
        return value, end
    except json.JSONDecodeError as error:
        raise _malformed(error) from None
    except RecursionError:
        raise Unfit(_TOO_DEEP) from None


def _malformed(error: json.JSONDecodeError) -> Unfit:
    return Unfit(f"malformed JSON: {error.msg}", error.lineno, error.colno)


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
        count = Counter(key for key, _ in pairs)
        twice = next(key for key in value if count[key] > 1)
        raise Unfit(f"the key {shown(twice)} is given twice in one object")
    return value


def _constant(name: str) -> Never:
    raise Unfit(f"{name} is no JSON number; write null where there is no value")


def _integer(digits: str) -> int:
    size = len(digits.lstrip("-"))
    if size > _MOST_DIGITS and digits != _NO_LIMIT:
        raise Unfit(f"an integer of {size} digits")
    value = int(digits)
    if not -(1 << 63) <= value < 1 << 64 and digits != _NO_LIMIT:
        raise Unfit(f"{digits} is beyond what 64 bits hold")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unfit(f"{shown(digits[:40])} is beyond what a float holds")
    return value


_BOUNDS: dict[str, Any] = {
    "object_pairs_hook": _object, "parse_int": _integer, "parse_float": _float
}  # fmt: skip
_STRICT = json.JSONDecoder(**_BOUNDS, parse_constant=_constant)
_LENIENT = json.JSONDecoder(**_BOUNDS, parse_constant=float, strict=False)


def _mended(value: Any, depth: int) -> Any:
    """Returns a value with U+FFFD for half surrogate pairs."""
    if depth > MOST_DEPTH:
        raise Unfit(_TOO_DEEP)
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if isinstance(value, list):
        return [_mended(item, depth + 1) for item in value]
    if isinstance(value, dict):
        pairs = [(without_lone_surrogates(k), _mended(v, depth + 1)) for k, v in value.items()]
        return _object(pairs)
    return value


def without_lone_surrogates(text: str) -> str:
    """Returns `text` with U+FFFD for half surrogate pairs: JSON can escape them, UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


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
    converted(value, kind, source, remedy)
    return value


def converted(value: Any, kind: type[T], source: object, remedy: str = "") -> T:
    """Returns a value of JSON as `kind`, which may be made of dataclasses; else as `typed`."""
    try:
        return _convert(value, kind)
    except Unfit as error:
        advice = f"; {remedy}" if remedy else ""
        raise UserError(f"{shown_path(source)}: {error}{advice}.") from None


def checked(value: Any, kind: type[T]) -> T:
    """Returns a value of JSON as `typed`; raises Unfit."""
    _convert(value, kind)
    return value


def _convert(value: Any, kind: type[T]) -> T:
    import msgspec

    try:
        return msgspec.convert(value, kind)
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
