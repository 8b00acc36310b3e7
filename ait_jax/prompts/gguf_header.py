"""The header of a GGUF file: metadata and the places of its tensors, which are not read.

The format is that of ggml's docs/gguf.md, versions 2 and 3. Files are untrusted: every length is
compared with the rest of the file before anything is allocated.
"""

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.runtime import files
from ait_jax.runtime.buckets import is_local

MAGIC = b"GGUF"
SUFFIX = ".gguf"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
# Value types of metadata as struct codes; strings and arrays apart.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class TensorPlace:
    """The place of a tensor.

    Attributes:
        kind: ggml's number of its type.
        shape: in torch's order, rows first.
        start: its offset in the file, in bytes.
    """

    kind: int
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Header:
    """A GGUF file.

    Attributes:
        path: of the file.
        metadata: numbers, booleans, strings and lists of them, by name.
        tensors: by name.
        data: all bytes of the file.
    """

    path: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]
    data: Any

    def value(self, name: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """Returns a metadata value of one of the types `kinds`.

        Raises:
            UserError: it is missing and `default` is None, or it has another type.
        """
        value = self.metadata.get(name, default)
        if value is None:
            raise UserError(f"{self.path} has no metadata {name!r}, which a model needs.")
        known = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
            raise UserError(f"{self.path} has {name} = {_short(value)}, which has the wrong type.")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_gguf(path: Any) -> bool:
    """Whether an existing file begins or is named like a GGUF file."""
    path = files.as_path(path)
    if path.name.endswith(SUFFIX):
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Any) -> Header:
    """Returns the header of the GGUF file at `path`; a local file is mapped, not read.

    Raises:
        UserError: no such file, another format or version, or a damaged or truncated file.
    """
    path = files.as_path(path)
    try:
        if not is_local(path):
            return _parse(str(path), files.read_bytes(path))
        status = os.stat(path)
        return _read_local(str(path), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"cannot read the GGUF file {path}: {error.strerror or error}.") from error


# Sizes, vocabulary and tensors of one file are read in turn.
@lru_cache(maxsize=2)
def _read_local(path: str, changed: int, size: int) -> Header:
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    return _parse(path, data)


def _parse(path: str, data: Any) -> Header:
    if data[:4] != MAGIC:
        raise UserError(f"{path} is not a GGUF file: it does not begin with 'GGUF'.")
    reader = _Reader(data)
    try:
        version = reader.number("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{path} is GGUF version {version} or big-endian; needed: version 2 or 3, "
                "little-endian."
            )
        num_tensors, num_values = reader.count(24), reader.count(13)
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            name = reader.string()
            if name in metadata:
                raise ValueError(f"metadata {name!r} twice")
            metadata[name] = reader.value(reader.number("I"))
        places = [_tensor(reader) for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
            raise ValueError(f"general.alignment = {_short(alignment)}")
    except (ValueError, struct.error) as error:
        raise UserError(
            f"{path} is not a complete GGUF file ({error}); copy or download it again."
        ) from error
    begin = -(-reader.position // alignment) * alignment
    tensors = {n: TensorPlace(kind, shape, begin + start) for n, kind, shape, start in places}
    if len(tensors) < len(places):
        raise UserError(f"{path} is damaged: it names a tensor twice; copy it again.")
    return Header(path, metadata, tensors, data)


def _tensor(reader: "_Reader") -> tuple[str, int, tuple[int, ...], int]:
    name, dimensions = reader.string(), reader.number("I")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"tensor {_short(name)} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    return name, reader.number("I"), shape, reader.number("Q")


class _Reader:
    """Reads values in sequence from the bytes of a file; raises ValueError at their end."""

    def __init__(self, data: Any) -> None:
        self._data, self._size = data, len(data)
        self.position = len(MAGIC)

    def number(self, code: str) -> Any:
        layout = f"<{code}"
        (value,) = struct.unpack_from(layout, self._data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def count(self, least_bytes: int) -> int:
        """Returns a number of items that take at least `least_bytes` each."""
        count = self.number("Q")
        if count * least_bytes > self._size - self.position:
            raise ValueError(f"{count:,} items, more than the file can hold")
        return count

    def string(self) -> str:
        start = self.position + 8
        end = start + self.count(1)
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
            return [self.string() for _ in range(self.count(8))]
        if item not in _SCALARS:
            raise ValueError(f"a list of type {item}")
        dtype = np.dtype(f"<{_SCALARS[item]}")
        values = np.frombuffer(self._data, dtype, self.count(dtype.itemsize), self.position)
        self.position += values.nbytes
        return values.tolist()
