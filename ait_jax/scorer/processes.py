"""What several processes do as if they were one: the same batches, one table, one sum.

Each process reads, tokenizes and feeds its own rows only. All have to run the same batches in
the same order, so they agree on how many rows of each shape a process has at most; one that has
fewer feeds padding in their place.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from ait_jax.runtime import distributed
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import likelihoods
from ait_jax.scorer.batching import Shape
from ait_jax.scorer.work import PromptCounts, Work

Figures = TypeVar("Figures", Work, PromptCounts)


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
    own = json.dumps([(shape, len(rows)) for shape, rows in rows_of.items()])
    most: Counter[Shape] = Counter()
    for data in distributed.all_gather(own.encode()):
        most |= Counter({tuple(shape): count for shape, count in json.loads(data)})
    slots: list[tuple[Shape, int | None]] = []
    for shape, count in sorted(most.items()):
        rows = [*rows_of.get(shape, []), *[None] * count][:count]
        slots += [(shape, row) for row in rows]
    return slots


def fetch(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array that is sharded by rows."""
    if jax.process_count() == 1:
        return np.asarray(array)
    # The 'model' axis holds copies of the same rows.
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def total(figures: Figures, partitioner: Partitioner) -> Figures:
    """Returns figures summed over the processes, seconds averaged.

    Every process has to call it.
    """
    if distributed.process_count() == 1:
        return figures
    own = json.dumps(dataclasses.asdict(figures)).encode()
    all_values = [json.loads(v) for v in partitioner.first_of_groups(distributed.all_gather(own))]
    names = all_values[0]
    summed: dict[str, Any] = {name: sum(values[name] for values in all_values) for name in names}
    for name in summed.keys() & {"seconds", "compile_wait", "host_wait"}:
        summed[name] /= len(all_values)
    return type(figures)(**summed)


def gathered(
    columns: Mapping[str, Sequence[Any]], tasks: Sequence[str], partitioner: Partitioner
) -> Mapping[str, Sequence[Any]]:
    """Returns the rows of all processes, in the order of `tasks`; every process has to call it.

    Args:
      columns: this process's rows of a likelihood table.
      tasks: of the whole chunk.
    """
    if distributed.process_count() == 1:
        return columns
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, likelihoods.schema()) as writer:
        writer.write_table(pa.table(dict(columns), schema=likelihoods.schema()))
    everything = distributed.all_gather(sink.getvalue().to_pybytes())
    tables = []
    for data in partitioner.first_of_groups(everything):
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            tables.append(reader.read_all())
    whole = pa.concat_tables(tables)
    place = {name: index for index, name in enumerate(tasks)}
    places = np.array([place[name] for name in whole["task"].to_pylist()], np.int64)
    # Stable: the rows of a task come from one process and stay as they were.
    ordered = whole.take(np.argsort(places, kind="stable"))
    return {name: ordered[name].to_pylist() for name in columns}
