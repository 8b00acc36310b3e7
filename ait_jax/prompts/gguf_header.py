"""The header of a GGUF file: metadata and the places of its tensors, which are not read.

The format is that of ggml's docs/gguf.md, versions 2 and 3. Files are untrusted: every length is
compared with the rest of the file before anything is allocated. A model in several files, as
`gguf-split` writes, has one header: metadata of the first, tensors of all.
"""

import mmap
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime import files, untrusted
from ait_jax.runtime.buckets import is_local

MAGIC = b"GGUF"
SUFFIX = ".gguf"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
# The largest vocabularies have 256,000 tokens, chat templates 20 kB, models some 1,000 tensors.
_MOST_ITEMS = 2**22
_MOST_STRING_BYTES = 2**24
_MOST_TENSORS = 2**20
# `gguf-split` names its parts so.
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# Value types of metadata as struct codes; strings and arrays apart.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class TensorPlace:
    """The place of a tensor.

    Attributes:
        kind: ggml's number of its type.
        shape: in torch's order, rows first.
        start: its offset in the file, in bytes.
        data: all bytes of the file.
    """

    kind: int
    shape: tuple[int, ...]
    start: int
    data: Any


@dataclass(frozen=True)
class Header:
    """A GGUF file.

    Attributes:
        path: of the file.
        metadata: numbers, booleans, strings and lists of them, by name.
        tensors: by name.
    """

    path: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]

    def value(self, name: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """Returns a metadata value of one of the types `kinds`.

        Raises:
            UserError: it is missing and `default` is None, or it has another type.
        """
        value = self.metadata.get(name, default)
        if value is None:
            raise UserError(
                f"{shown_path(self.path)} has no metadata {shown(name)}, which a model needs."
            )
        known = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
            raise UserError(
                f"{shown_path(self.path)} has {name} = {shown(value)}, which has the wrong type."
            )
        return value


def is_gguf(path: Any) -> bool:
    """Whether an existing file begins or is named like a GGUF file."""
    path = files.as_path(path)
    if path.name.endswith(SUFFIX):
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Any) -> Header:
    """Returns the header of the GGUF file at `path`; a local file is mapped, not read.

    Any part of a model in several files stands for all of them, which lie beside it.

    Raises:
        UserError: no such file, another format or version, a damaged or truncated file, a part
            that is missing.
    """
    path = files.as_path(path)
    match = _PART.fullmatch(path.name)
    if match is None:
        return _one_file(path)
    stem, count = match[1], int(match[3])
    names = [f"{stem}-{part:05d}-of-{match[3]}.gguf" for part in range(1, count + 1)]
    parts: list[Header] = []
    for part, name in enumerate(names, start=1):
        place = path if name == path.name else untrusted.inside(path.parent, name, "part")
        if not place.is_file():
            raise UserError(
                f"{shown_path(path)} is one of {count} parts of a model, but part {part}, {name}, "
                "is not beside it; copy it there."
            )
        parts.append(_one_file(place))
    return _joined(parts)


def _joined(parts: list[Header]) -> Header:
    """Returns one header of the parts of a model, in order."""
    tensors: dict[str, TensorPlace] = {}
    for number, part in enumerate(parts):
        stated = part.metadata.get("split.no", number), part.metadata.get("split.count", len(parts))
        if stated != (number, len(parts)):
            raise UserError(
                f"{shown_path(part.path)} says that it is part {shown(stated[0])} (from 0) of "
                f"{shown(stated[1])}, against its name; copy the parts again."
            )
        both = next((name for name in part.tensors if name in tensors), None)
        if both is not None:
            raise UserError(f"{shown_path(part.path)} repeats {shown(both)} of another part.")
        tensors |= part.tensors
    first = parts[0]
    total = first.metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise UserError(
            f"{shown_path(first.path)} and its other parts hold {len(tensors)} tensors, not the "
            f"{shown(total)} that it states; copy them again."
        )
    return replace(first, tensors=tensors)


def _one_file(path: Any) -> Header:
    try:
        if not is_local(path):
            header = _parse(str(path), files.read_bytes(path))
        else:
            status = os.stat(path)
            header = _read_local(str(path), status.st_mtime_ns, status.st_size)
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{shown_path(path)}: cannot read the GGUF file: {problem}.") from error
    count = header.metadata.get("split.count", 1)
    if count not in (0, 1) and _PART.fullmatch(files.as_path(path).name) is None:
        number = header.metadata.get("split.no", 0)
        part = number + 1 if isinstance(number, int) else number
        raise UserError(
            f"{shown_path(path)} is part {shown(part)} of {shown(count)} of a model; name the "
            "parts NAME-00001-of-00002.gguf and so on, as they were, and put them side by side."
        )
    return header


# Sizes, vocabulary and tensors of one file are read in turn.
@lru_cache(maxsize=2)
def _read_local(path: str, changed: int, size: int) -> Header:
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    return _parse(path, data)


def _parse(path: str, data: Any) -> Header:
    untrusted.check_whole(files.as_path(path), data)
    if data[:4] != MAGIC:
        raise UserError(f"{shown_path(path)} is not a GGUF file: it does not begin with 'GGUF'.")
    reader = _Reader(data)
    try:
        version = reader.number("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{shown_path(path)} is GGUF version {version} or big-endian; needed: version 2 or "
                "3, little-endian."
            )
        num_tensors, num_values = reader.count(24, _MOST_TENSORS), reader.count(13, _MOST_ITEMS)
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            name = reader.string()
            if name in metadata:
                raise ValueError(f"metadata {shown(name)} twice")
            metadata[name] = reader.value(reader.number("I"))
        places = [_tensor(reader) for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
            raise ValueError(f"general.alignment = {shown(alignment)}")
    except (ValueError, struct.error) as error:
        raise UserError(
            f"{shown_path(path)} is not a complete GGUF file ({error}); copy or download it again."
        ) from error
    begin = -(-reader.position // alignment) * alignment
    tensors = {n: TensorPlace(kind, shape, begin + start, data) for n, kind, shape, start in places}
    if len(tensors) < len(places):
        raise UserError(f"{shown_path(path)} is damaged: it names a tensor twice; copy it again.")
    return Header(path, metadata, tensors)


def _tensor(reader: "_Reader") -> tuple[str, int, tuple[int, ...], int]:
    name, dimensions = reader.string(), reader.number("I")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"tensor {shown(name)} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    return name, reader.number("I"), shape, reader.number("Q")


class _Reader:
    """Reads values in sequence from the bytes of a file; raises ValueError at their end."""

    def __init__(self, data: Any) -> None:
        self._data, self._size = data, len(data)
        self.position = len(MAGIC)
        # Of all lists together: a number of one byte becomes an object of eight and more.
        self._room = _MOST_ITEMS

    def number(self, code: str) -> Any:
        layout = f"<{code}"
        (value,) = struct.unpack_from(layout, self._data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def count(self, least_bytes: int, most: int) -> int:
        """Returns a number of items that take at least `least_bytes` each."""
        count = self.number("Q")
        if count * least_bytes > self._size - self.position:
            raise ValueError(f"{count:,} items, more than the file can hold")
        if count > most:
            raise ValueError(f"{count:,} items, more than any model has")
        return count

    def items(self, least_bytes: int) -> int:
        """Returns the number of items of a list."""
        count = self.count(least_bytes, self._room)
        self._room -= count
        return count

    def string(self) -> str:
        start = self.position + 8
        end = start + self.count(1, _MOST_STRING_BYTES)
        self.position = end
        return self._data[start:end].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise ValueError(f"metadata of type {kind}")
        item = self.number("I")
        if item == _STRING:
            return [self.string() for _ in range(self.items(8))]
        if item not in _SCALARS:
            raise ValueError(f"a list of type {item}")
        dtype = np.dtype(f"<{_SCALARS[item]}")
        values = np.frombuffer(self._data, dtype, self.items(dtype.itemsize), self.position)
        self.position += values.nbytes
        return values.tolist()
