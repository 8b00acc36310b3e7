"""Arrays on disk: their shapes are known, their values are read by parts, where they are needed."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ait_jax.errors import UserError, shown, shown_path

Index = tuple[slice, ...]
# Reading waits for disks and networks: several arrays at a time.
_THREADS = 8
_BATCH_BYTES, _MOST_IN_BATCH = 64 * 2**20, 1024
# Compressed zeros expand about so much; anything beyond is no model.
_MOST_EXPANSION = 1100
_ALWAYS_ALLOWED = 64 * 2**20
# Of T5X's names the longest has 7 parts.
_MOST_PARTS = 32


@dataclass(frozen=True)
class StoredArray:
    """One array.

    Attributes:
        shape, dtype: as stored.
        read: takes a slice without step for each axis, returns the values there.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]

    def whole(self) -> np.ndarray:
        """Returns all values."""
        return self.read(tuple(slice(0, size) for size in self.shape))

    @property
    def T(self) -> "StoredArray":
        """The array with its axes reversed."""
        return StoredArray(self.shape[::-1], self.dtype, lambda index: self.read(index[::-1]).T)


@dataclass(frozen=True)
class StoredParams:
    """A checkpoint's parameters, none of which is read yet.

    Attributes:
        shapes: jax.ShapeDtypeStruct by dotted name.
        num_others: arrays beside them that are never read: an optimizer's state.
        load: (names, dtype or None for their own, shardings by name or None for host arrays) ->
            arrays by name. With shardings, a process reads only what its own devices hold.
        config: of the model (a `ModelConfig`), where the files state it.
    """

    shapes: Mapping[str, jax.ShapeDtypeStruct]
    num_others: int
    load: Callable[..., dict[str, Any]]
    config: Any = None


def stored_params(
    arrays: Mapping[str, StoredArray], place: Any, num_others: int = 0, config: Any = None
) -> StoredParams:
    """Returns `arrays`, by dotted name, as a checkpoint's parameters.

    Args:
        place: where they came from, for errors.

    Raises:
        UserError: integers, or names that are no tree.
    """
    check_tree(arrays, place)
    wrong = next((n for n, a in arrays.items() if not jnp.issubdtype(a.dtype, jnp.floating)), None)
    if wrong is not None:
        raise UserError(
            f"{shown_path(place)} holds {shown(wrong)} of dtype {arrays[wrong].dtype}; weights are "
            "floating-point."
        )

    def load(
        names: Iterable[str], dtype: Any = None, shardings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        names, loaded = list(names), {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for some in _batches(names, arrays):
                wanted = [shardings[name] if shardings else None for name in some]
                read = pool.map(partial(_read, dtype=dtype), (arrays[n] for n in some), wanted)
                # Placed by one thread and in order: processes wait for each other here.
                for name, sharding, parts in zip(some, wanted, read, strict=True):
                    loaded[name] = _placed(arrays[name].shape, sharding, parts)
        return loaded

    shapes = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in sorted(arrays.items())}
    return StoredParams(shapes, num_others, load, config)


def _batches(names: list[str], arrays: Mapping[str, StoredArray]) -> Iterator[list[str]]:
    """Yields a few names at a time, so that the host never holds much more than it places."""
    some, num_bytes = [], 0
    for name in names:
        some.append(name)
        num_bytes += math.prod(arrays[name].shape) * arrays[name].dtype.itemsize
        if len(some) >= _THREADS and (num_bytes >= _BATCH_BYTES or len(some) >= _MOST_IN_BATCH):
            yield some
            some, num_bytes = [], 0
    if some:
        yield some


def check_tree(names: Iterable[str], place: Any) -> None:
    """Refuses dotted names that are no tree of arrays, or too deep a one (UserError)."""
    before: tuple[str, ...] = ()
    for path in sorted(tuple(name.split(".", _MOST_PARTS)) for name in names):
        if before and path[: len(before)] == before:
            name = shown(".".join(before))
            raise UserError(
                f"{shown_path(place)} has {name} both as an array and as a group of arrays."
            )
        if len(path) > _MOST_PARTS or not all(path):
            name = shown(".".join(path))
            raise UserError(f"{shown_path(place)} has {name}, which is no name of a parameter.")
        before = path


def check_expansion(what: str, num_bytes: int, stored_bytes: int) -> None:
    """Refuses arrays that compression cannot explain, before they are made (UserError).

    Args:
        what: of which arrays, for errors.
        num_bytes: that they take by the shapes that files state.
        stored_bytes: of these files.
    """
    if num_bytes > stored_bytes * _MOST_EXPANSION + _ALWAYS_ALLOWED:
        raise UserError(
            f"{shown_path(what)} would take {num_bytes:,} bytes, but its files have only "
            f"{stored_bytes:,}; they are damaged. Copy the checkpoint again."
        )


def _bounds(index: Index, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))


def _read(stored: StoredArray, sharding: Any, dtype: Any) -> dict[tuple, np.ndarray]:
    """Returns the parts that this process's devices hold, each of them once, by their bounds."""
    shape = stored.shape
    whole = [(slice(None),) * len(shape)]
    indices = sharding.addressable_devices_indices_map(shape).values() if sharding else whole
    with np.errstate(over="ignore"):  # what overflows shows in the logits
        return {
            bounds: stored.read(tuple(slice(*b) for b in bounds)).astype(
                dtype or stored.dtype, copy=False
            )
            for bounds in dict.fromkeys(_bounds(index, shape) for index in indices)
        }


def _placed(shape: tuple[int, ...], sharding: Any, parts: dict[tuple, np.ndarray]) -> Any:
    if sharding is None:
        return next(iter(parts.values()))
    return jax.make_array_from_callback(shape, sharding, lambda i: parts[_bounds(i or (), shape)])
