"""Rows of every process to one batch on the mesh, and back.

Each process reads, tokenizes and feeds its own rows only. All have to run the same batches in
the same order, so they agree on how many rows of each shape a process has at most; who has
fewer feeds padding in their place.
"""

from collections.abc import Sequence

import jax
import numpy as np

Shape = tuple[int, ...]


def slots_of_all_processes(shapes: Sequence[Shape]) -> list[tuple[Shape, int | None]]:
    """Returns (shape, row of this process or None) of every slot, the same shapes everywhere.

    Args:
      shapes: the padded shape of every row of this process.
    """
    if jax.process_count() == 1:
        return [(shape, row) for row, shape in enumerate(shapes)]
    rows_of: dict[Shape, list[int]] = {}
    for row, shape in enumerate(shapes):
        rows_of.setdefault(shape, []).append(row)
    slots: list[tuple[Shape, int | None]] = []
    counts = _largest_counts({shape: len(rows) for shape, rows in rows_of.items()})
    for shape, count in sorted(counts.items()):
        own = rows_of.get(shape, [])
        slots += [(shape, own[i] if i < len(own) else None) for i in range(count)]
    return slots


def _largest_counts(counts: dict[Shape, int]) -> dict[Shape, int]:
    """Returns the largest count of every shape over all processes."""
    from jax.experimental import multihost_utils

    width = max((len(shape) for shape in counts), default=0)
    most = multihost_utils.process_allgather(np.array([len(counts), width], np.int64))
    num_shapes, width = most.reshape(-1, 2).max(axis=0).tolist()
    if not num_shapes:
        return {}
    table = np.zeros((num_shapes, width + 1), np.int64)
    for i, (shape, count) in enumerate(sorted(counts.items())):
        table[i] = [*shape, count]
    largest: dict[Shape, int] = {}
    for *shape, count in multihost_utils.process_allgather(table).reshape(-1, width + 1).tolist():
        if count:
            largest[tuple(shape)] = max(count, largest.get(tuple(shape), 0))
    return largest


def fetch(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array that is sharded by rows."""
    if jax.process_count() == 1:
        return np.asarray(array)
    # The 'model' axis holds copies of the same rows.
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
