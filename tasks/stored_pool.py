"""A pool on disk as two tables, read by memory map; any pool of any size can be stored.

    <directory>/pool.json              schema, name, fingerprint, the shards in their order
    <directory>/tasks-00000.arrow      one row per task: all but its instances
    <directory>/instances-00000.arrow  one row per instance, those of a task together

The tables are uncompressed Arrow IPC files in batches of a fixed number of rows, so that a row is
found by arithmetic and read without decoding its neighbors. Opening a pool reads only the tasks'
table. A pool grows by another pair of tables (`extend`): earlier ones are never rewritten, and
pool.json, replaced last, says which pairs count. TensorFlow is not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from ait_jax.tasks import prepared_folder, stored_rows
from ait_jax.tasks.lazy_instances import LazyInstances
from ait_jax.tasks.stored_rows import TableWriter, open_table, read_instances

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.pool import Splits, Task, TaskPool, fingerprint_of, task_digest
from ait_jax.pool.splits import SPLIT_NAMES
from ait_jax.runtime import strict_json
from ait_jax.runtime.files import absolute, as_path, new_folder, replace_with, write_json

SCHEMA_VERSION = 1
_RECORD = "pool.json"
_TABLES = ("tasks", "instances")
_REMEDY = "prepare the pool again"


class _Record(TypedDict):
    name: str
    fingerprint: str
    shards: list["_Shard"]


class _Shard(TypedDict):
    tasks: int
    instances: int


def write(tasks: TaskPool | Iterable[Task], directory: Any, name: str = "", **given: Any) -> None:
    """Stores a pool, whole or not at all. Tasks are taken one at a time and not kept.

    Args:
      tasks: a pool, or tasks with distinct names.
      directory: a local folder that is empty or does not exist.
      name: of the pool; by default that of `tasks`.
      **given: `cls_labels` (task name -> True for CLS) and `splits`; by default those of `tasks`.

    Raises:
      UserError: no task, two of one name, an unsafe name, or a folder that cannot be written.
    """
    if isinstance(tasks, TaskPool):
        name = name or tasks.name
    with new_folder(directory) as building:
        _add_shard(building, {"name": name, "shards": []}, tasks, **given)


def extend(directory: Any, tasks: TaskPool | Iterable[Task], **given: Any) -> None:
    """Adds tasks to a stored pool; its other tasks stay as they are, byte for byte.

    Labels and splits of the added tasks are `given` as for `write`.

    Raises:
      UserError: no stored pool, no task, or a name that the pool already has.
    """
    directory = as_path(directory)
    _add_shard(directory, read_record(directory), tasks, **given)


def _add_shard(
    folder: Any, record: Mapping[str, Any], tasks: TaskPool | Iterable[Task], **given: Any
) -> None:
    """Writes a pair of tables and then the record that counts it."""
    if isinstance(tasks, TaskPool):
        given = {"cls_labels": tasks.given_labels, "splits": tasks.splits, **given}
        tasks = tasks.values()
    labels, splits = given.get("cls_labels") or {}, given.get("splits") or Splits()
    split_of = {name: split for split in SPLIT_NAMES for name in getattr(splits, split)}
    number = len(record["shards"])
    digests = {row["name"]: row["digest"] for row, _ in _rows(folder, record)} if number else {}
    before = len(digests)
    with (
        replace_with(_path(folder, "tasks", number), any_process=True) as tasks_path,
        replace_with(_path(folder, "instances", number), any_process=True) as instances_path,
        TableWriter(tasks_path, stored_rows.task_schema()) as task_rows,
        TableWriter(instances_path, stored_rows.instance_schema()) as instance_rows,
    ):
        for task in tasks:
            if task.name in digests:
                raise UserError(
                    f"{shown(str(folder))}: there are two tasks named {shown(task.name)}; rename "
                    "or remove one."
                )
            digests[task.name] = task_digest(task)
            first = instance_rows.count
            for instance in task.instances:
                instance_rows.add(stored_rows.instance_to_row(instance))
            task_rows.add(
                stored_rows.task_to_row(task, first, instance_rows.count - first)
                | {
                    "is_cls": labels.get(task.name),
                    "split": split_of.get(task.name),
                    "digest": digests[task.name],
                }
            )
    if len(digests) == before:
        raise UserError(f"{shown(str(folder))}: there is no task to store; give at least one.")
    shard = {"tasks": task_rows.count, "instances": instance_rows.count}
    record = {
        "schema": SCHEMA_VERSION,
        "name": record["name"],
        "fingerprint": fingerprint_of(digests),
        "shards": [*record["shards"], shard],
    }
    write_json(folder / _RECORD, record, any_process=True)


def _path(folder: Any, table: str, number: int) -> Any:
    return folder / f"{table}-{number:05d}.arrow"


def read_record(directory: Any) -> dict[str, Any]:
    """Returns pool.json of a stored pool.

    Raises:
      UserError: it is missing, damaged or of another version.
    """
    path = as_path(directory) / _RECORD
    record = prepared_folder.read_record(path, SCHEMA_VERSION, _REMEDY)
    if record is None:
        raise UserError(f"{shown(str(directory))} is not a stored pool: it has no {_RECORD}.")
    typed = strict_json.typed(record, _Record, path, _REMEDY)
    sizes = [n for shard in typed["shards"] for n in (shard["tasks"], shard["instances"])]
    if not sizes or min(sizes) < 0:
        raise UserError(f"{shown_path(path)} is damaged (no shards of tasks); {_REMEDY}.")
    return dict(typed)


def load(directory: Any, cls_labels: Mapping[str, bool] | None = None) -> TaskPool:
    """Opens a stored pool: tasks' own texts in memory, instances read on demand.

    Its splits name tasks in the pool's order; `cls_labels` (task name -> True for CLS) override
    stored ones.

    Raises:
      UserError: there is no stored pool, or it is damaged.
    """
    directory = absolute(directory)
    record = read_record(directory)
    labels: dict[str, bool] = {}
    digests: dict[str, bytes] = {}
    groups: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}

    def tasks() -> Iterator[Task]:
        for row, instances in _rows(directory, record):
            name, split = row["name"], row["split"]
            digests[name] = row["digest"]
            if row["is_cls"] is not None:
                labels[name] = row["is_cls"]
            if split is not None:
                if split not in groups:
                    raise _damaged(directory, f"the split {shown(split)} of task {shown(name)}")
                groups[split].append(name)
            yield stored_rows.task_from_row(row, instances)

    made = list(tasks())
    splits = Splits(**{split: tuple(names) for split, names in groups.items()})
    return TaskPool(
        made,
        labels | dict(cls_labels or {}),
        name=record["name"],
        splits=splits if splits.names else None,
        fingerprint=record["fingerprint"],
        digests=digests,
        reopen=lambda: load(directory, cls_labels),
    )


def _rows(
    directory: Any, record: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], LazyInstances]]:
    """Yields every task's row and its instances."""
    fingerprint = record["fingerprint"]
    tables = range(len(record["shards"]))
    names = [_path(directory, table, n).name for n in tables for table in _TABLES]
    directory = prepared_folder.local_copies(directory, fingerprint, names)
    for number, shard in enumerate(record["shards"]):
        place = (str(_path(directory, "instances", number)), fingerprint, shard["instances"])
        table = open_table(str(_path(directory, "tasks", number)), fingerprint, shard["tasks"])
        # Opened now: a missing or cut table is an error of the pool, not of the first task read.
        instances = open_table(*place)
        needed = (stored_rows.task_schema(), stored_rows.instance_schema())
        if (table.schema, instances.schema) != needed:
            raise _damaged(directory, f"other columns than needed in shard {number}")
        for row in table.rows():
            first, length = row["first_instance"], row["num_instances"]
            if first < 0 or length < 0 or first + length > shard["instances"]:
                raise _damaged(
                    directory, f"task {shown(row['name'])} has instances beyond the table"
                )
            yield row, LazyInstances(length, read_instances, place, first)


def _damaged(directory: Any, what: str) -> UserError:
    return UserError(f"{shown(str(directory))} is damaged ({what}); prepare the pool again.")
