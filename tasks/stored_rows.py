"""Rows of a stored pool: Arrow tables written in batches and read by memory map."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from ait_jax.tasks.lazy_instances import LazyInstances

from ait_jax.errors import UserError
from ait_jax.pool.pool import Example, Instance, Instruction, Task

# Rows of every batch but a table's last: part of the format, for a row is found by division.
ROWS_PER_BATCH = 4096
_LANGUAGES = ("input_languages", "output_languages", "instruction_languages")
_ENGLISH = ("English",)


def instance_schema() -> pa.Schema:
    """One row per instance; `outputs` are all its references."""
    return pa.schema(
        [("id", pa.string()), ("input", pa.string()), ("outputs", pa.list_(pa.string()))]
    )


def task_schema() -> pa.Schema:
    """One row per task.

    `first_instance` and `num_instances` say which rows of the table of instances are the
    task's; `metadata` is JSON; `is_cls` and `split` may be null; `digest` is `pool.task_digest`.
    """
    texts = pa.list_(pa.string())
    example = pa.struct([(key, pa.string()) for key in ("input", "output", "explanation")])
    return pa.schema(
        [
            ("name", pa.string()),
            ("definition", texts),
            ("positive_examples", pa.list_(example)),
            ("negative_examples", pa.list_(example)),
            ("categories", texts),
            *((name, texts) for name in _LANGUAGES),
            ("metadata", pa.string()),
            ("is_cls", pa.bool_()),
            ("split", pa.string()),
            ("first_instance", pa.int64()),
            ("num_instances", pa.int64()),
            ("digest", pa.binary(32)),
        ]
    )


def instance_to_row(instance: Instance) -> dict[str, Any]:
    return {"id": instance.id, "input": instance.input, "outputs": instance.outputs}


def task_to_row(task: Task, first_instance: int, num_instances: int) -> dict[str, Any]:
    """Returns the columns of `task_schema` that the task itself gives."""
    instruction = task.instruction
    metadata = {key: list(values) for key, values in task.metadata.items()}
    return {
        "name": task.name,
        "definition": [instruction.definition, *task.further_definitions],
        "positive_examples": [vars(example) for example in instruction.positive_examples],
        "negative_examples": [vars(example) for example in instruction.negative_examples],
        "categories": task.categories,
        **{name: getattr(task, name) for name in _LANGUAGES},
        "metadata": json.dumps(metadata, ensure_ascii=False) if metadata else "",
        "first_instance": first_instance,
        "num_instances": num_instances,
    }


def task_from_row(row: Mapping[str, Any], instances: Sequence[Instance]) -> Task:
    """Returns the task of which `task_to_row` made `row`, with the instances given."""
    first, *further = row["definition"]
    # Most tasks share these; a tuple of its own for each would be most of a large pool's memory.
    languages = {
        name: _ENGLISH if row[name] == ["English"] else tuple(row[name]) for name in _LANGUAGES
    }
    metadata = _metadata(row["metadata"]) if row["metadata"] else {}
    return Task(
        name=row["name"],
        instruction=Instruction(
            definition=first,
            positive_examples=tuple(Example(**e) for e in row["positive_examples"]),
            negative_examples=tuple(Example(**e) for e in row["negative_examples"]),
        ),
        instances=instances,
        categories=_shared(tuple(row["categories"])),
        metadata=metadata,
        further_definitions=tuple(further),
        **languages,
    )


@functools.lru_cache(maxsize=4096)
def _shared(texts: tuple[str, ...]) -> tuple[str, ...]:
    return texts


@functools.lru_cache(maxsize=4096)
def _metadata(text: str) -> Mapping[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in json.loads(text).items()}


class TableWriter:
    """Writes rows to an Arrow IPC file, a batch at a time; a context manager.

    Attributes:
      count: rows so far.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.count = 0
        self._schema, self._waiting = schema, []
        self._writer = pa.ipc.new_file(str(path), schema)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: Any, *unused: Any) -> None:
        if kind is None and self._waiting:
            self._write()
        self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == ROWS_PER_BATCH:
            self._write()

    def _write(self) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


class Table:
    """An Arrow IPC file, memory-mapped; batches are checked when they are first read."""

    def __init__(self, path: str, num_rows: int) -> None:
        self._path = path
        self._batches: dict[int, pa.RecordBatch] = {}
        with self._damage():
            self._reader = pa.ipc.open_file(pa.memory_map(path))
            num_batches = -(-num_rows // ROWS_PER_BATCH)
            if self._reader.num_record_batches != num_batches:
                raise ValueError(
                    f"{self._reader.num_record_batches} batches instead of {num_batches}"
                )
        self._num_rows = num_rows

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    @staticmethod
    def open(path: Any, fingerprint: str, num_rows: int) -> "Table":
        """Returns the table, opened once in a process.

        Args:
          fingerprint: of the pool: a table that was replaced is opened anew, while pools that
            are open keep the one they have.
          num_rows: that it must have.

        Raises:
          UserError: it is missing, cut short or no such table.
        """
        return _open(str(path), fingerprint, num_rows)

    def _damage(self) -> "_Damage":
        return _Damage(self._path)

    def batch(self, index: int) -> pa.RecordBatch:
        batch = self._batches.get(index)
        if batch is None:
            with self._damage():
                batch = self._reader.get_batch(index)
                # A wrong offset in a mapped file would be a wrong address in this process.
                batch.validate(full=True)
                rows = min(ROWS_PER_BATCH, self._num_rows - index * ROWS_PER_BATCH)
                if len(batch) != rows:
                    raise ValueError(f"{len(batch)} rows in batch {index} instead of {rows}")
            self._batches[index] = batch
        return batch

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows as Python values."""
        for index in range(-(-self._num_rows // ROWS_PER_BATCH)):
            yield from self.batch(index).to_pylist()

    def row(self, position: int) -> tuple[Any, ...]:
        """Returns the values of one row, in the order of the columns."""
        index, offset = divmod(position, ROWS_PER_BATCH)
        return tuple(column[offset].as_py() for column in self.batch(index).columns)


class _Damage:
    """Turns what Arrow says of a bad file into a UserError that names it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (pa.ArrowException, OSError, ValueError)):
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{self._path} is damaged ({reason}); prepare the pool again."
            ) from error


@functools.lru_cache(maxsize=64)
def _open(path: str, fingerprint: str, num_rows: int) -> Table:
    return Table(path, num_rows)


class StoredInstances(LazyInstances):
    """A task's rows of a table of instances. Small, and safe to pickle."""

    __slots__ = ("_first", "_length", "_table")

    def __init__(self, path: str, fingerprint: str, num_rows: int, first: int, length: int) -> None:
        self._table = _shared_key(path, fingerprint, num_rows)
        self._first, self._length = first, length

    def _read(self, positions: Sequence[int]) -> tuple[Instance, ...]:
        table = Table.open(*self._table)
        rows = (table.row(self._first + position) for position in positions)
        return tuple(Instance(identity, text, tuple(outputs)) for identity, text, outputs in rows)

    def __repr__(self) -> str:
        return f"StoredInstances({self._table[0]!r}, {self._first}, {self._length})"


@functools.lru_cache(maxsize=64)
def _shared_key(path: str, fingerprint: str, num_rows: int) -> tuple[str, str, int]:
    return path, fingerprint, num_rows
