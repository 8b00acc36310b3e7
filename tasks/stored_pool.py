"""A pool on disk: two tables, read by memory map; any pool can be stored so, of any size.

    <directory>/pool.json              schema, name, fingerprint, the shards in their order
    <directory>/tasks-00000.arrow      one row per task: all of it but its instances
    <directory>/instances-00000.arrow  one row per instance, the instances of a task together

The tables are Arrow IPC files, uncompressed, in batches of a fixed number of rows, so that a row
is found by arithmetic and read without decoding its neighbours. Opening a pool reads the tasks'
table alone. A pool grows by a further pair of tables (`extend`): what is there is never written
again, and pool.json, replaced last, says which pairs count. TensorFlow is not needed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ait_jax.tasks import stored_rows
from ait_jax.tasks.pool_folder import local_copies
from ait_jax.tasks.stored_rows import StoredInstances, Table, TableWriter

from ait_jax.errors import UserError
from ait_jax.pool.pool import Splits, Task, TaskPool, fingerprint_of, task_digest
from ait_jax.pool.splits import SPLIT_NAMES
from ait_jax.runtime.files import absolute, as_path, new_folder, read_text, replace_with, write_json

SCHEMA_VERSION = 1
_RECORD = "pool.json"
_TABLES = ("tasks", "instances")


def write(tasks: TaskPool | Iterable[Task], directory: Any, name: str = "", **given: Any) -> None:
    """Stores a pool, whole or not at all. Tasks are taken one at a time and not kept.

    Args:
      tasks: a pool, or tasks with distinct names.
      directory: a local folder that is not there yet, or is empty.
      name: of the pool; by default that of `tasks`.
      given: `cls_labels` (task name -> True for CLS; tasks not in it stay without a label) and
        `splits` (`Splits`; None where the pool has none), by default those of `tasks`.

    Raises:
      UserError: no task, two of one name, an unsafe name, or a folder that cannot be written.
    """
    if isinstance(tasks, TaskPool):
        given = {"cls_labels": tasks.given_labels, "splits": tasks.splits, **given}
        name, tasks = name or tasks.name, tasks.values()
    with new_folder(directory) as building:
        _add_shard(building, {"name": name, "shards": []}, tasks, **given)


def extend(directory: Any, tasks: Iterable[Task], **given: Any) -> None:
    """Adds tasks to a stored pool; its other tasks stay as they are, byte for byte.

    Args:
      given: as for `write`; the splits of the tasks that are added.

    Raises:
      UserError: no stored pool, no task, or a name that the pool has already.
    """
    directory = as_path(directory)
    record = read_record(directory)
    if isinstance(tasks, TaskPool):
        given = {"cls_labels": tasks.given_labels, "splits": tasks.splits, **given}
        tasks = tasks.values()
    _add_shard(directory, record, tasks, **given)


def _add_shard(
    folder: Any,
    record: Mapping[str, Any],
    tasks: Iterable[Task],
    cls_labels: Mapping[str, bool] | None = None,
    splits: Splits | None = None,
) -> None:
    """Writes a pair of tables and then the record that counts it."""
    number = len(record["shards"])
    digests = _digests(folder, record)
    before = len(digests)
    split_of = {n: split for split in SPLIT_NAMES for n in getattr(splits or Splits(), split)}
    with (
        replace_with(_path(folder, "tasks", number), any_process=True) as tasks_path,
        replace_with(_path(folder, "instances", number), any_process=True) as instances_path,
        TableWriter(tasks_path, stored_rows.task_schema()) as task_rows,
        TableWriter(instances_path, stored_rows.instance_schema()) as instance_rows,
    ):
        for task in tasks:
            if task.name in digests:
                raise UserError(
                    f"{str(folder)!r}: there are two tasks named {task.name!r}; rename or remove "
                    "one."
                )
            digests[task.name] = task_digest(task)
            first = instance_rows.count
            for instance in task.instances:
                instance_rows.add(stored_rows.instance_to_row(instance))
            task_rows.add(
                stored_rows.task_to_row(task, first, instance_rows.count - first)
                | {
                    "is_cls": (cls_labels or {}).get(task.name),
                    "split": split_of.get(task.name),
                    "digest": digests[task.name],
                }
            )
    if len(digests) == before:
        raise UserError(f"{str(folder)!r}: there is no task to store; give at least one.")
    shard = {"tasks": task_rows.count, "instances": instance_rows.count}
    write_json(
        folder / _RECORD,
        {
            "schema": SCHEMA_VERSION,
            "name": record["name"],
            "fingerprint": fingerprint_of(digests),
            "shards": [*record["shards"], shard],
        },
        any_process=True,
    )


def _path(folder: Any, table: str, number: int) -> Any:
    return folder / f"{table}-{number:05d}.arrow"


def read_record(directory: Any) -> dict[str, Any]:
    """Returns pool.json of a stored pool.

    Raises:
      UserError: there is none, it is damaged, or of another version.
    """
    path = as_path(directory) / _RECORD
    try:
        record = json.loads(read_text(path))
        if record["schema"] != SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema {record['schema']!r}, this version of ait-jax reads "
                f"{SCHEMA_VERSION}; prepare the pool again."
            )
        shards = [(int(shard["tasks"]), int(shard["instances"])) for shard in record["shards"]]
        if (
            not shards
            or not isinstance(record["name"], str)
            or not isinstance(record["fingerprint"], str)
        ):
            raise ValueError("name, fingerprint or shards are missing")
    except FileNotFoundError as error:
        raise UserError(f"{str(directory)!r} is no stored pool: it has no {_RECORD}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); prepare the pool again.") from error
    return record


def load(directory: Any, cls_labels: Mapping[str, bool] | None = None) -> TaskPool:
    """Opens a stored pool: tasks' own texts in memory, instances read when asked for.

    Its splits name tasks in the order in which the pool has them.

    Args:
      cls_labels: task name -> True for CLS; they win over stored ones.

    Raises:
      UserError: no stored pool, or a damaged one.
    """
    directory = absolute(directory)
    record = read_record(directory)
    labels: dict[str, bool] = {}
    digests: dict[str, bytes] = {}
    groups: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}

    def tasks() -> Iterator[Task]:
        for row, instances in _rows(directory, record):
            task = stored_rows.task_from_row(row, instances)
            digests[task.name] = row["digest"]
            if row["is_cls"] is not None:
                labels[task.name] = row["is_cls"]
            if row["split"] is not None:
                if row["split"] not in groups:
                    raise _damaged(directory, f"the split {row['split']!r} of task {task.name!r}")
                groups[row["split"]].append(task.name)
            yield task

    made = list(tasks())
    splits = Splits(**groups) if any(groups.values()) else None
    return TaskPool(
        made,
        labels | dict(cls_labels or {}),
        name=record["name"],
        splits=splits,
        fingerprint=record["fingerprint"],
        digests=digests,
        reopen=lambda: load(directory, cls_labels),
    )


def _rows(
    directory: Any, record: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], StoredInstances]]:
    """Yields every task's row and its instances."""
    fingerprint = record["fingerprint"]
    tables = range(len(record["shards"]))
    names = [_path(directory, table, n).name for n in tables for table in _TABLES]
    directory = local_copies(directory, fingerprint, names)
    for number, shard in enumerate(record["shards"]):
        table = Table.open(_path(directory, "tasks", number), fingerprint, shard["tasks"])
        path = _path(directory, "instances", number)
        # Opened now: a missing or cut table is an error of the pool, not of the first task read.
        instances = Table.open(path, fingerprint, shard["instances"])
        if (table.schema, instances.schema) != (
            stored_rows.task_schema(),
            stored_rows.instance_schema(),
        ):
            raise _damaged(directory, f"other columns than needed in shard {number}")
        for row in table.rows():
            first, length = row["first_instance"], row["num_instances"]
            if first < 0 or length < 0 or first + length > shard["instances"]:
                raise _damaged(directory, f"task {row['name']!r} has instances beyond the table")
            yield row, StoredInstances(str(path), fingerprint, shard["instances"], first, length)


def _digests(folder: Any, record: Mapping[str, Any]) -> dict[str, bytes]:
    if not record["shards"]:
        return {}
    return {row["name"]: row["digest"] for row, _ in _rows(folder, record)}


def _damaged(directory: Any, what: str) -> UserError:
    return UserError(f"{str(directory)!r} is damaged ({what}); prepare the pool again.")
