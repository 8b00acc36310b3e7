"""Instances of stored pools, which are read on demand."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ait_jax.pool import Instance

# Instances fetched at a time when a task is read from end to end.
_CHUNK = 256


class LazyInstances(Sequence[Instance]):
    """A task's instances, stored elsewhere. Small, and safe to pickle.

    Args:
      length: how many there are.
      read: a module's function; takes positions in this task and `where`, returns the instances.
      *where: they are.
    """

    __slots__ = ("_length", "_read_at", "_where")

    def __init__(self, length: int, read: Callable[..., tuple[Instance, ...]], *where: Any) -> None:
        self._length, self._read_at, self._where = length, read, where

    def _read(self, positions: Sequence[int]) -> tuple[Instance, ...]:
        return self._read_at(positions, *self._where)

    def __repr__(self) -> str:
        return f"LazyInstances({self._length}, {', '.join(map(str, self._where))})"

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self._read([range(self._length)[index]])[0]
        return self._read(range(self._length)[index])

    def __iter__(self) -> Iterator[Instance]:
        for start in range(0, self._length, _CHUNK):
            yield from self[start : start + _CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment] - Python's way to say unhashable
