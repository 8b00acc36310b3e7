"""A chunk's rows in several processes: each scores its own tasks, the first one writes them all."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ait_jax import distributed


def gathered(columns: dict[str, Sequence[Any]], tasks: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Returns the rows of all processes, in the order of `tasks`; every process has to call it.

    Args:
      columns: this process's rows, with a column `task`.
      tasks: of the whole chunk.
    """
    if distributed.process_count() == 1:
        return columns
    import pyarrow as pa

    whole = pa.concat_tables([_from_bytes(data) for data in distributed.all_gather(_to_bytes(columns))])
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
