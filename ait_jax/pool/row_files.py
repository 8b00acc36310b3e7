"""Rows of files as people have them: JSON lists, JSON lines, objects one after the other, Parquet.

What a file holds is known by its first bytes, whatever its name; the JSON kinds may be in gzip.
JSON lines and Parquet are read in parts; a JSON list is read whole.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ait_jax.errors import UserError, first_line, shown_path
from ait_jax.runtime import files, strict_json
from ait_jax.runtime.strict_json import Unfit

BROKEN_JSON, NOT_UTF8 = "places of broken JSON", "rows that are not UTF-8"
_BOM = b"\xef\xbb\xbf"
_MOST_LINE = 1 << 28
_ROWS_AT_ONCE = 256
# Keys of an object around a list of rows.
_AROUND = ("data", "rows", "examples", "train", "items", "records")
_SPACE = re.compile(r"[ \t\r\n]*")
# `surrogateescape` decodes bytes that are not UTF-8 to these.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class Broken(NamedTuple):
    """A row that cannot be read: the kind of mistake, and its details."""

    reason: str
    detail: str


def rows(path: Any) -> Iterator[tuple[str, Any]]:
    """Yields (place, value) of every row: ("line 3", {...}), in Parquet ("row 3", {...}).

    Values are those of JSON, NaN included, or `Broken`. A JSON list that breaks off gives the rows
    before the break.

    Raises:
      UserError: the file cannot be read, is of another kind or not UTF-8, or is damaged (with the
        file's name).
    """
    try:
        with files.local_copy(path) as local, files.open_regular(local) as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PAR1":
                found = _parquet(local)
            elif start[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as inside:
                    yield from _unwrapped(_json(inside, path))
                return
            else:
                found = _json(file, path)
            yield from _unwrapped(found)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        problem = f"damaged gzip ({first_line(error)}); copy it again"
        raise UserError(f"{shown_path(path)}: {problem}.") from error
    except OSError as error:
        raise UserError(
            f"{shown_path(path)}: cannot read the file: {error.strerror or error}."
        ) from error


def _json(stream: Any, path: Path) -> Iterator[tuple[str, Any]]:
    head = stream.read(1 << 16)
    stream.seek(0)
    known = strict_json.other_encoding(head)
    if known or b"\0" in head[:4]:
        known = known or " (UTF-16 or UTF-32, by its zero bytes)"
        problem = f"not UTF-8 text{known}; save the file as UTF-8"
        raise UserError(f"{shown_path(path)}, line 1: {problem}.")
    if head[:4] == b"PK\x03\x04":
        raise UserError(f"{shown_path(path)}: a zip archive; unpack it and give the file inside.")
    if head.removeprefix(_BOM).lstrip()[:1] == b"[":
        text = _text(stream)
        if text is None:
            raise UserError(
                f"{shown_path(path)}: a JSON list of more than {strict_json.MOST_BYTES:,} bytes; "
                "save it as JSON lines."
            )
        return _elements(text, text.index("[") + 1, is_list=True)
    return _lines(stream)


def _text(stream: BinaryIO) -> str | None:
    """Returns a file's text, None if it is longer than what is read at once."""
    data = stream.read(strict_json.MOST_BYTES + 1)
    if len(data) > strict_json.MOST_BYTES:
        return None
    return data.removeprefix(_BOM).decode("utf-8", "surrogateescape")


def _lines(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    number, is_first = 0, True
    while line := stream.readline(_MOST_LINE + 1):
        number += 1
        value: Any = None
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > _MOST_LINE:
            value = Broken(BROKEN_JSON, f"a line of more than {_MOST_LINE:,} bytes")
            while not line.endswith(b"\n") and (line := stream.readline(_MOST_LINE)):
                pass
        elif not line.strip():
            continue
        else:
            value = _line(line)
        if is_first and isinstance(value, Broken) and value.reason == BROKEN_JSON:
            # Perhaps an object over several lines, or many of them.
            after = stream.tell()
            stream.seek(0)
            text = _text(stream) or ""
            start = _after_space(text, 0)
            if _is_value(text, start):
                yield from _elements(text, start, is_list=False)
                return
            stream.seek(after)
        is_first = False
        yield f"line {number}", value


def _line(line: bytes) -> Any:
    try:
        return strict_json.parse(line, lenient=True)
    except Unfit as error:
        if error.problem.startswith("not UTF-8"):
            return Broken(NOT_UTF8, "save the file as UTF-8")
        return Broken(BROKEN_JSON, error.problem.removeprefix("malformed JSON: "))


def _is_value(text: str, start: int) -> bool:
    try:
        strict_json.scan(text, start, lenient=True)
    except Unfit:
        return False
    return True


def _elements(text: str, position: int, is_list: bool) -> Iterator[tuple[str, Any]]:
    """Yields the values from `position` on, up to the end or to where they break off.

    Those of a list have commas between them; objects one after the other may.
    """
    is_utf8 = _ESCAPED_BYTE.search(text) is None
    line, counted, is_first = 1, 0, True
    while True:
        position = _after_space(text, position)
        line, counted = line + text.count("\n", counted, position), position
        next_character = text[position : position + 1]
        if next_character == ("]" if is_list else ""):
            break
        if not is_first and next_character == ",":
            position = _after_space(text, position + 1)
            line, counted = line + text.count("\n", counted, position), position
        elif not is_first and is_list:
            yield f"line {line}", _lost("expected ',' or ']'")
            return
        is_first = False
        try:
            value, end = strict_json.scan(text, position, lenient=True)
        except Unfit as error:
            yield f"line {line}", _lost(error.problem.removeprefix("malformed JSON: "))
            return
        if not is_utf8 and _ESCAPED_BYTE.search(text, position, end):
            value = Broken(NOT_UTF8, "save the file as UTF-8")
        yield f"line {line}", value
        position = end
    if is_list and text[position + 1 :].strip():
        yield f"line {line}", Broken(BROKEN_JSON, "text after the end of the list")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _lost(detail: str) -> Broken:
    return Broken(BROKEN_JSON, f"{detail}; the rest of the list is lost")


def _unwrapped(found: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yields the rows of {"data": [...]} and the like in the place of such an object."""
    for place, value in found:
        inner = _wrapped(value) if isinstance(value, Mapping) else None
        if inner is None:
            yield place, value
        else:
            yield from ((f"row {number}", item) for number, item in enumerate(inner, start=1))


def _wrapped(value: Mapping[str, Any]) -> list[Any] | None:
    lists = [
        value[key]
        for key in _AROUND
        if isinstance(value.get(key), list) and value[key] and isinstance(value[key][0], Mapping)
    ]
    is_row = any(isinstance(value.get(key), str) for key in ("instruction", "prompt"))
    return lists[0] if len(lists) == 1 and not is_row else None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False):
                for value in batch.to_pylist():
                    number += 1
                    yield f"row {number}", value
    except (pa.ArrowException, ValueError) as error:
        problem = f"damaged Parquet ({first_line(error)}); copy it again"
        raise UserError(f"{shown_path(path)}: {problem}.") from error
