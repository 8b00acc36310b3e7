"""A pool grown by `ait-jax grow`: tasks in memory, instances read from disk on demand."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ait_jax.tasks.grow.grown_pool import TASKS, Entry, read_entries
from ait_jax.tasks.lazy_instances import LazyInstances

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool import Instance, Splits, Task, TaskPool, read_task, task_digest
from ait_jax.pool.cls_gen import labels_from_file
from ait_jax.runtime.files import as_path

NAME = "dynosaur"
# Tasks whose instances are kept in memory, at most 100 each.
_MAX_OPEN_TASKS = 256


@functools.lru_cache(maxsize=_MAX_OPEN_TASKS)
def _read_instances(path: str, digest: str) -> Sequence[Instance]:
    task = read_task(path)
    if task_digest(task).hex() != digest:
        raise UserError(
            f"{shown(path)} is not what was grown; restore it, or remove it and grow the pool "
            "again."
        )
    return task.instances


def _instances_at(positions: Sequence[int], path: str, digest: str) -> tuple[Instance, ...]:
    instances = _read_instances(path, digest)
    return tuple(instances[position] for position in positions)


def load_pool(
    directory: Any,
    cls_gen_labels: Mapping[str, bool] | str | None = None,
    *,
    include_without_instances: bool = False,
    test_fraction: float = 0.0,
) -> TaskPool:
    """Opens a grown pool.

    Tasks without instances cannot be trained on or scored, so they are left out by default.
    Tasks that came with a closed set of answers are CLS, the others GEN.

    Args:
      directory: as given to `ait-jax grow --pool`, or a copy of it in a bucket (gin name
        DYNOSAUR_DIR).
      cls_gen_labels: task name -> True for CLS, or the path of a file of labels; the pool's own
        labels hold for other tasks.
      include_without_instances: keep tasks that have none, for example to count instructions.
      test_fraction: share of the datasets whose tasks are all test tasks, since the tasks of a
        dataset share its rows. The choice depends only on the datasets' names.

    Raises:
      UserError: there is no grown pool, it is damaged, no task is left, or the fraction is not
        between 0 and 1.
    """
    if not 0 <= test_fraction < 1:
        raise UserError(f"TEST_FRACTION is {test_fraction}; it must be at least 0 and below 1.")
    entries = list(read_entries(directory))
    if not entries:
        raise UserError(
            f"{shown(str(directory))} holds no grown pool: set the gin name DYNOSAUR_DIR to the "
            "folder given to `ait-jax grow --pool`."
        )
    usable = [e for e in entries if e.num_instances or include_without_instances]
    if not usable:
        raise UserError(
            f"none of the {len(entries):,} tasks in {shown(str(directory))} has instances, so "
            "there is nothing to train on or score; grow it with rows (`ait-jax grow --rows=FILE`)."
        )
    if isinstance(cls_gen_labels, str):
        cls_gen_labels = labels_from_file(cls_gen_labels)
    folder = as_path(directory) / TASKS
    tasks = [_task(entry, folder) for entry in usable]
    digests = {entry.task.name: bytes.fromhex(entry.digest) for entry in usable}
    return TaskPool(
        tasks,
        {e.task.name: e.is_cls for e in usable} | dict(cls_gen_labels or {}),
        name=NAME,
        splits=_splits(tasks, test_fraction),
        digests=digests,
        reopen=functools.partial(
            load_pool,
            directory,
            cls_gen_labels,
            include_without_instances=include_without_instances,
            test_fraction=test_fraction,
        ),
    )


def _task(entry: Entry, folder: Any) -> Task:
    if not entry.num_instances:
        return entry.task
    path = str(folder / f"{entry.task.name}.json")
    instances = LazyInstances(entry.num_instances, _instances_at, path, entry.digest)
    return dataclasses.replace(entry.task, instances=instances)


def _splits(tasks: Sequence[Task], test_fraction: float) -> Splits | None:
    if not test_fraction:
        return None
    test, remain = [], []
    for task in tasks:
        source = task.metadata.get("Source", ("",))[0]
        held_out = randomness.uniform("dynosaur test datasets", source) < test_fraction
        (test if held_out else remain).append(task.name)
    return Splits(remain=tuple(remain), test=tuple(test))
