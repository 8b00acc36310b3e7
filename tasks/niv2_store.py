"""Instances of a prepared NIV2, read from disk when asked for, without TensorFlow."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from ait_jax.tasks import niv2_schema
from ait_jax.tasks.lazy_instances import LazyInstances
from ait_jax.tasks.niv2_builder import Niv2
from ait_jax.tasks.pool_folder import local_copies

from ait_jax.errors import UserError
from ait_jax.pool.pool import Instance
from ait_jax.runtime import buckets
from ait_jax.runtime.files import as_path

# Files held open; a pool has more tasks than a process may have open files.
_MAX_OPEN_TASKS = 128


# The fingerprint is part of both keys: a pool that was replaced is opened anew.
@functools.lru_cache(maxsize=4)
def _open_builder(directory: str, fingerprint: str, config: str) -> tfds.core.DatasetBuilder:
    folder = as_path(directory) / config / str(Niv2.VERSION)
    if not buckets.is_local(folder):
        folder = local_copies(folder, fingerprint, [p.name for p in folder.glob("*.json")])
    return tfds.builder_from_directory(folder)


@functools.lru_cache(maxsize=_MAX_OPEN_TASKS)
def _open_split(
    directory: str, fingerprint: str, config: str, split: str
) -> Sequence[Mapping[str, Any]]:
    builder = _open_builder(directory, fingerprint, config)
    folder = as_path(directory) / config / str(Niv2.VERSION)
    # ArrayRecord reads local files only. A task's file is fetched when the task is first read.
    local_copies(folder, fingerprint, sorted(builder.info.splits[split].filenames))
    return builder.as_data_source(split=split)


def close_all() -> None:
    """Forgets what is open: files have been replaced under the same fingerprint."""
    _open_builder.cache_clear()
    _open_split.cache_clear()


def read_rows(
    directory: str,
    fingerprint: str,
    config: str,
    split: str,
    positions: Sequence[int] | None = None,
) -> Sequence[Mapping[str, Any]]:
    """Returns rows of a split, all or those at `positions`, as TFDS decodes them (bytes, arrays).

    Args:
      directory: of the prepared pool, `<data_dir>/niv2`.
      fingerprint: of its source.
      config: "instances" or "tasks".
      split: which.
      positions: within the split.

    Raises:
      UserError: the files are damaged.
    """
    try:
        rows = _open_split(directory, fingerprint, config, split)
        # Not rows.__getitems__: it starts threads, which costs more than reading a few rows.
        return [
            rows[position] for position in (range(len(rows)) if positions is None else positions)
        ]
    except UserError:
        raise
    except Exception as error:  # TFDS, ArrayRecord and protobuf have no class in common
        raise UserError(
            f"{str(as_path(directory) / config)!r} is damaged ({error}); prepare NIV2 again with overwrite."
        ) from error


class StoredInstances(LazyInstances):
    """A task's instances on disk, read when asked for. Small, and safe to pickle."""

    def __init__(self, directory: str, fingerprint: str, split: str, length: int) -> None:
        self._key = (directory, fingerprint, split)
        self._length = length

    def _read(self, positions: Sequence[int]) -> tuple[Instance, ...]:
        directory, fingerprint, split = self._key
        rows = read_rows(directory, fingerprint, "instances", split, positions)
        return tuple(niv2_schema.instance_from_row(row) for row in rows)

    def __repr__(self) -> str:
        return f"StoredInstances({self._key[2]!r}, {self._length})"
