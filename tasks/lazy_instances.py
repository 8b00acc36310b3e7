"""Instances that are read on demand: what every stored pool's sequences share."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

from ait_jax.pool import Instance

# Instances fetched at a time when a task is read from end to end.
_CHUNK = 256


class LazyInstances(Sequence[Instance]):
    """A task's instances, stored elsewhere. Subclasses have `_length` and `_read`."""

    __slots__ = ()
    _length: int

    def _read(self, positions: Sequence[int]) -> tuple[Instance, ...]:
        """Returns the instances at positions of this task."""
        raise NotImplementedError

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
