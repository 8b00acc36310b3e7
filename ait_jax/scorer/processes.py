"""A chunk's rows in several processes: each scores its own tasks, the first one writes them all.

With one process everything here passes its argument on.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def own(tasks: Sequence[str]) -> list[str]:
    """Returns the tasks of a chunk that this process tokenizes and feeds."""
    return list(tasks[jax.process_index() :: jax.process_count()])


def is_writer() -> bool:
    """Says whether this process writes the files that all share."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until every process has come here: what the writer wrote before is there."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def as_the_writer_sees(numbers: Sequence[int]) -> list[int]:
    """Returns the first process's list of non-negative numbers, in every process.

    What files it finds decides what is left to do: others may see the disk a moment later.
    """
    if jax.process_count() == 1:
        return list(numbers)
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(numbers))))
    padded = np.zeros(length, np.int64)
    if is_writer():
        padded[:] = numbers
    return multihost_utils.broadcast_one_to_all(padded).tolist()


def gathered(columns: dict[str, Sequence[Any]], tasks: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Returns the rows of all processes, in the order of `tasks`; every process has to call it.

    Args:
      columns: this process's rows, with a column `task`.
      tasks: of the whole chunk.
    """
    if jax.process_count() == 1:
        return columns
    import pyarrow as pa

    whole = pa.concat_tables([_from_bytes(data) for data in _all_bytes(_to_bytes(columns))])
    place = {name: index for index, name in enumerate(tasks)}
    places = np.array([place[name] for name in whole["task"].to_pylist()], np.int64)
    # Stable: the rows of a task come from one process and stay as they were.
    ordered = whole.take(np.argsort(places, kind="stable"))
    return {name: ordered[name].to_pylist() for name in columns}


def _to_bytes(columns: dict[str, Sequence[Any]]) -> np.ndarray:
    import pyarrow as pa

    from ait_jax.scorer.likelihoods import schema

    table = pa.table(columns, schema=schema())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _from_bytes(data: np.ndarray):
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(data.tobytes())) as reader:
        return reader.read_all()


def _all_bytes(data: np.ndarray) -> list[np.ndarray]:
    """Returns every process's bytes, in the order of the processes."""
    from jax.experimental import multihost_utils

    lengths = multihost_utils.process_allgather(np.array([data.size], np.int64)).ravel().tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: data.size] = data
    everything = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [row[:length] for row, length in zip(everything, lengths)]
