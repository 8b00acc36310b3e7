"""What a GGUF file says of itself: metadata and where its tensors lie. No tensor is read.

The format is that of ggml's docs/gguf.md, versions 2 and 3. Files come from anywhere: every
length is compared with what is left of the file before anything is made of it.
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
    """Where a tensor lies.

    Attributes:
        kind: ggml's number of its type.
        shape: in torch's order, rows first.
        start: in bytes from the beginning of the file.
    """

    kind: int
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Header:
    """A GGUF file.

    Attributes:
        path: of the file; metadata: numbers, truth values, strings and lists of them.
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
            UserError: it is missing, where `default` is None, or of another type.
        """
        value = self.metadata.get(name, default)
        if value is None:
            raise UserError(f"{self.path} has no metadata {name!r}, which a model needs.")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in _all(kinds)):
            raise UserError(f"{self.path} has {name} = {_short(value)}, of another type.")
        return value


def _all(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_gguf(path: Any) -> bool:
    """Whether an existing file begins as GGUF files do, or is named as they are."""
    path = files.as_path(path)
    if path.name.endswith(SUFFIX):
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Any) -> Header:
    """Returns what the GGUF file at `path` says of itself; a local file is mapped, not read.

    Raises:
        UserError: no such file, another format or version, a damaged or truncated file.
    """
    path = files.as_path(path)
    try:
        if not is_local(path):
            return _parse(str(path), files.read_bytes(path))
        status = os.stat(path)
        return _read_local(str(path), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"No GGUF file to read at {path}: {error.strerror or error}.") from error


# One file is asked for its sizes, its vocabulary and its tensors in turn.
@lru_cache(maxsize=2)
def _read_local(path: str, changed: int, size: int) -> Header:
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    return _parse(path, data)


def _parse(path: str, data: Any) -> Header:
    if data[:4] != MAGIC:
        raise UserError(f"{path} is no GGUF file: it does not begin with 'GGUF'.")
    reader = _Reader(data)
    try:
        version = reader.number("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{path} is GGUF of version {version}, or of the other byte order; versions 2 and "
                "3 in little-endian order are read."
            )
        num_tensors, num_values = reader.count(24), reader.count(13)
        metadata = {}
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
            f"{path} is no complete GGUF file ({error}); copy or download it again."
        ) from error
    begin = -(-reader.position // alignment) * alignment
    tensors = {n: TensorPlace(kind, shape, begin + start) for n, kind, shape, start in places}
    if len(tensors) < len(places):
        raise UserError(f"{path} is no complete GGUF file (a tensor twice); copy it again.")
    return Header(path, metadata, tensors, data)


def _tensor(reader: "_Reader") -> tuple[str, int, tuple[int, ...], int]:
    name, dimensions = reader.string(), reader.number("I")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"tensor {_short(name)} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    return name, reader.number("I"), shape, reader.number("Q")


class _Reader:
    """Takes one value after the other from the bytes of a file; ValueError where they end."""

    def __init__(self, data: Any) -> None:
        self._data, self._size = data, len(data)
        self.position = len(MAGIC)

    def number(self, code: str) -> Any:
        layout = f"<{code}"
        (value,) = struct.unpack_from(layout, self._data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def count(self, least_bytes: int) -> int:
        """Returns a number of items that take at least so many bytes each."""
        count = self.number("Q")
        if count * least_bytes > self._size - self.position:
            raise ValueError(f"{count:,} items announced, more than the file can hold")
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
