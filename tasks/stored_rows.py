"""Rows of a stored pool: Arrow tables written in batches and read by memory map."""

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from ait_jax.tasks.prepared_folder import damaged

from ait_jax.pool import Example, Instance, Instruction, Task
from ait_jax.runtime import strict_json

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
    """One row per task; `first_instance` and `num_instances` are its rows of the other table.

    `metadata` is JSON; `is_cls` and `split` may be null; `digest` is `pool.task_digest`.
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
    """Returns a row of `instance_schema`."""
    return {"id": instance.id, "input": instance.input, "outputs": instance.outputs}


def task_to_row(task: Task, first_instance: int, num_instances: int) -> dict[str, Any]:
    """Returns a row of `task_schema` without label, split and digest."""
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
    """Returns the task that `task_to_row` made into `row`, with the instances given."""
    first, *further = row["definition"]
    # Most tasks share these; tuples of their own would take most of a large pool's memory.
    languages = {
        name: _ENGLISH if row[name] == ["English"] else tuple(row[name]) for name in _LANGUAGES
    }
    return Task(
        name=row["name"],
        instruction=Instruction(
            definition=first,
            positive_examples=tuple(Example(**e) for e in row["positive_examples"]),
            negative_examples=tuple(Example(**e) for e in row["negative_examples"]),
        ),
        instances=instances,
        categories=_shared(tuple(row["categories"])),
        metadata=_metadata(row["metadata"]) if row["metadata"] else {},
        further_definitions=tuple(further),
        **languages,
    )


@functools.lru_cache(maxsize=4096)
def _shared(texts: tuple[str, ...]) -> tuple[str, ...]:
    return texts


@functools.lru_cache(maxsize=4096)
def _metadata(text: str) -> Mapping[str, tuple[str, ...]]:
    place = "the metadata of a stored task"
    return strict_json.converted(strict_json.loads(text, place), dict[str, tuple[str, ...]], place)


class TableWriter:
    """Writes rows, of which it has a `count`, to an Arrow IPC file; a context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.count = 0
        self._schema = schema
        self._waiting: list[Mapping[str, Any]] = []
        self._writer = pa.ipc.new_file(str(path), schema)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: Any, *unused: Any) -> None:
        if kind is None and self._waiting:
            self._write()
        self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == ROWS_PER_BATCH:
            self._write()

    def _write(self) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


class Table:
    """An Arrow IPC file, memory-mapped; batches are checked when they are first read.

    Raises:
      UserError: it is missing, cut short, no such table, or does not have `num_rows`.
    """

    def __init__(self, path: str, num_rows: int) -> None:
        self._path, self._num_rows = path, num_rows
        self._batch = functools.cache(self._read_batch)
        with self._checked():
            self._reader = pa.ipc.open_file(pa.memory_map(path))
            self.schema: pa.Schema = self._reader.schema
            found, needed = self._reader.num_record_batches, -(-num_rows // ROWS_PER_BATCH)
            if found != needed:
                raise ValueError(f"{found} batches instead of {needed}")

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Turns Arrow's errors about a bad file into a UserError that names it."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(self._path, error, "prepare the pool again") from error

    def _read_batch(self, index: int) -> pa.RecordBatch:
        with self._checked():
            batch = self._reader.get_batch(index)
            # A wrong offset in a mapped file would be a wrong address in this process.
            batch.validate(full=True)
            rows = min(ROWS_PER_BATCH, self._num_rows - index * ROWS_PER_BATCH)
            if len(batch) != rows:
                raise ValueError(f"{len(batch)} rows in batch {index} instead of {rows}")
        return batch

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows as Python values."""
        for index in range(self._reader.num_record_batches):
            yield from self._batch(index).to_pylist()

    def row(self, position: int) -> tuple[Any, ...]:
        """Returns the values of one row, in the order of the columns."""
        index, offset = divmod(position, ROWS_PER_BATCH)
        return tuple(column[offset].as_py() for column in self._batch(index).columns)


@functools.lru_cache(maxsize=64)
def open_table(path: str, fingerprint: str, num_rows: int) -> Table:
    """Returns the `Table` at `path`, opened once in a process.

    `fingerprint` is the pool's: a table that was replaced is opened again, while pools that are
    open keep the one they have.
    """
    return Table(path, num_rows)


def read_instances(
    positions: Sequence[int], table: tuple[str, str, int], first: int
) -> tuple[Instance, ...]:
    """Returns instances of the task whose rows begin at `first` of the table.

    `table` is the arguments of `open_table`.
    """
    opened = open_table(*table)
    rows = (opened.row(first + position) for position in positions)
    return tuple(Instance(identity, text, tuple(outputs)) for identity, text, outputs in rows)
