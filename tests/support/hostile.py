"""Damage for property tests: JSON values replaced, bytes flipped, files cut; folders watched."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

# What a program that believes its input trips over.
ODD = st.sampled_from([
    None, True, -1, 0, 10**18, 2**64 - 1, 1e308, -0.0, "", "x", "../../etc/passwd", "/", ".",
    "\x1b[2J\nforged", "=1+1", "x" * 5000, "e\u0301\u202e", "9" * 30, [], {}, [[]], {"": {}},
    [None], {"rougeL": "x"}, {"rougeL": None, "cls": [], "gen": {}},
])  # fmt: skip
RAW = st.sampled_from([
    b"", b"{", b"[" * 3000, b"[]", b"null", b"NaN", b'{"a": 1e999}', b'"\\ud800"', b"\xff\xfe{}",
    b"1" * 5000, b'{"stages": 1, "stages": 2}', b"\x00", b"\x1b[31m", b'{"a":\n',
])  # fmt: skip


@st.composite
def damaged(draw: Any, data: bytes) -> bytes:
    """Returns a file's bytes after one or several pieces of damage."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["value", "value", "value", "key", "bytes", "cut", "raw"]))
        if kind == "raw":
            data = draw(RAW)
        elif kind == "cut":
            data = data[: draw(st.integers(0, len(data)))]
        elif kind == "bytes":
            place = draw(st.integers(0, len(data)))
            data = (
                data[:place] + draw(st.binary(max_size=6)) + data[place + draw(st.integers(0, 6)) :]
            )
        else:
            data = _with_another(draw, data, kind)
    return data


def _with_another(draw: Any, data: bytes, kind: str) -> bytes:
    """Replaces a value of JSON, or of one of its lines; leaves other bytes as they are."""
    lines = data.split(b"\n")
    try:
        values, joined = [json.loads(data)], False
    except ValueError:
        row = draw(st.integers(0, len(lines) - 1))
        try:
            values, joined = [json.loads(lines[row])], True
        except (ValueError, RecursionError):
            return data
    except RecursionError:
        return data
    places = list(_places(values))
    holder, key = draw(st.sampled_from(places))
    if kind == "key" and isinstance(holder, dict):
        holder[str(draw(ODD))[:300]] = holder.pop(key)
    else:
        holder[key] = draw(ODD)
    text = json.dumps(values[0]).encode()
    if not joined:
        return text
    return b"\n".join([*lines[:row], text, *lines[row + 1 :]])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


@contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    """Fails if the block makes, removes or changes a file below the folders."""
    before = [_snapshot(folder) for folder in folders]
    yield
    assert [_snapshot(folder) for folder in folders] == before


def _snapshot(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
