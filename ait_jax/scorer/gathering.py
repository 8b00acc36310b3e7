"""What several processes scored, as if one had: rows in their order, figures added up."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ait_jax.runtime import distributed
from ait_jax.runtime.partitioning import Partitioner

Figures = TypeVar("Figures")


def total(figures: Figures, partitioner: Partitioner) -> Figures:
    """Returns a dataclass of numbers summed over the processes, seconds averaged.

    Every process has to call it.
    """
    if distributed.process_count() == 1:
        return figures
    values = json.dumps(dataclasses.asdict(figures)).encode()
    all_values = [
        json.loads(v) for v in partitioner.first_of_groups(distributed.all_gather(values))
    ]
    summed = {
        name: sum(values[name] or 0 for values in all_values)
        / (len(all_values) if isinstance(value, float) and name != "flops" else 1)
        for name, value in all_values[0].items()
    }
    kinds = {name: type(value or 0) for name, value in all_values[0].items()}
    return type(figures)(**{name: kinds[name](value) for name, value in summed.items()})


def gathered(
    columns: dict[str, Sequence[Any]], tasks: Sequence[str], partitioner: Partitioner
) -> dict[str, Sequence[Any]]:
    """Returns the rows of all processes, in the order of `tasks`; every process has to call it.

    Args:
      columns: this process's rows, with a column `task`.
      tasks: of the whole chunk.
    """
    if distributed.process_count() == 1:
        return columns
    import pyarrow as pa

    of_groups = partitioner.first_of_groups(distributed.all_gather(_to_bytes(columns)))
    whole = pa.concat_tables([_from_bytes(data) for data in of_groups])
    place = {name: index for index, name in enumerate(tasks)}
    places = np.array([place[name] for name in whole["task"].to_pylist()], np.int64)
    # Stable: the rows of a task come from one process and stay as they were.
    ordered = whole.take(np.argsort(places, kind="stable"))
    return {name: ordered[name].to_pylist() for name in columns}


def _to_bytes(columns: dict[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa

    from ait_jax.scorer.likelihoods import schema

    table = pa.table(columns, schema=schema())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(data: bytes):
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
