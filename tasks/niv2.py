"""Natural Instructions v2: a TFDS builder with the full schema, and the pool read from it.

TFDS's own `natural_instructions` drops the positive examples and all references but the first,
which the paper's prompts and metrics need. Here a dataset has two configurations:

- `niv2/instances` (the default): one TFDS split per NIV2 task with its instances, id, input and
  all outputs, in the file's order (for test tasks the first 100 are the official test
  instances). `split="task190_snli_classification[:100]"` reads only that task's file.
- `niv2/tasks`: one row per task with everything else: definitions, examples, categories,
  languages, sources, licenses, and the name of the split that holds its instances.

Files are ArrayRecord: random access, and no TensorFlow to read them. Below `data_dir`:

    niv2/instances/1.0.0/  niv2/tasks/1.0.0/     what TFDS writes
    niv2/source.json                              the clone it was made from, and its splits
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import tensorflow_datasets as tfds
from ait_jax.tasks import niv2_rows
from ait_jax.tasks.lazy_instances import LazyInstances
from ait_jax.tasks.niv2_builder import NAME, TASKS_SPLIT, Clone, Niv2
from ait_jax.tasks.prepared_folder import PreparedFolder, check_on_bad_task
from ait_jax.tasks.source_files import SourceFile, fingerprint, size_of
from tensorflow_datasets.core.utils import tqdm_utils

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.pool import Task, TaskPool, read_task
from ait_jax.pool.cls_gen import labels_from_file
from ait_jax.pool.splits import Splits
from ait_jax.runtime.files import text_name


@dataclass(frozen=True)
class Prepared:
    """A prepared pool.

    Attributes:
      directory: `<data_dir>/niv2`.
      fingerprint: SHA-256 over the names and contents of the clone's files.
      num_tasks: tasks prepared.
      skipped: task file -> why it was left out (`on_bad_task="skip"`).
      splits: the clone's split files: {"default": {"train_tasks": [names], ...}}.
      fresh: whether this call prepared it.
    """

    directory: Path
    fingerprint: str
    num_tasks: int
    skipped: Mapping[str, str]
    splits: Mapping[str, Mapping[str, Sequence[str]]]
    fresh: bool = False

    def describe(self) -> list[str]:
        """Returns lines for the terminal."""
        done = "prepared" if self.fresh else "already prepared:"
        lines = [f"{done} {self.num_tasks} tasks in {self.directory}"]
        for name, files in sorted(self.splits.items()):
            counts = ", ".join(f"{len(names)} {stem}" for stem, names in sorted(files.items()))
            lines.append(f"splits/{name}: {counts}")
        lines += [f"left out {name}: {reason}" for name, reason in sorted(self.skipped.items())]
        return lines


def prepare(
    source: Any, data_dir: Any, *, on_bad_task: str = "error", overwrite: bool = False
) -> Prepared:
    """Prepares a clone of NIV2 below `data_dir`, unless that was done before.

    One task file is in memory at a time; `PreparedFolder.prepare` says what else holds.

    Args:
      source: the clone, with tasks/*.json and splits/*/*_tasks.txt (gin name NIV2_DIR).
      data_dir: TFDS data directory, created if need be.
      on_bad_task: "error" stops at a malformed task file; "skip" leaves such files out, and
        `Prepared.skipped` says which and why.
      overwrite: prepare in any case, and replace what is there.

    Raises:
      UserError: the clone is missing, has a malformed file (with line or field) or has changed
        since; the directory cannot be written to.
    """
    check_on_bad_task(on_bad_task)
    clone = Clone(source, skips_unreadable=on_bad_task == "skip")

    def build(
        building: Path, files: Mapping[str, SourceFile], advance: Callable[[int], None]
    ) -> dict[str, Any]:
        splits = clone.read_splits()
        reader = _Reader(on_bad_task, advance)
        with _quiet():
            _write_config("tasks", clone, clone.task_paths, reader, building.parent)
            good = [path for path in clone.task_paths if _name(path) not in reader.skipped]
            _write_config("instances", clone, good, reader, building.parent)
        return {
            "source": str(clone.directory.resolve()),
            "fingerprint": fingerprint(files),
            "num_tasks": len(good),
            "skipped": reader.skipped,
            "splits": splits,
        }

    folder = _folder(data_dir)
    label = f"Preparing {len(clone.task_paths)} NIV2 tasks"
    record, fresh = folder.prepare(clone.files, build, label, passes=2, overwrite=overwrite)
    if fresh:
        niv2_rows.close_all()
    prepared = _prepared(folder, record, fresh)
    if not fresh and prepared.skipped and on_bad_task == "error":
        name, reason = next(iter(prepared.skipped.items()))
        raise UserError(
            f"{shown_path(folder.path)} was prepared without {len(prepared.skipped)} bad task "
            f"files (the first is {shown(name)}: {reason}). Fix them, or accept that with "
            "on_bad_task='skip'."
        )
    return prepared


def _folder(data_dir: Any) -> PreparedFolder:
    return PreparedFolder(data_dir, NAME, "ait-jax prepare niv2")


def _name(path: Path) -> str:
    return text_name(Path(path.name))


class _Record(TypedDict):
    """What `Prepared` keeps in source.json."""

    fingerprint: str
    num_tasks: int
    skipped: dict[str, str]
    splits: dict[str, dict[str, list[str]]]


def _prepared(folder: PreparedFolder, record: Mapping[str, Any], fresh: bool = False) -> Prepared:
    return Prepared(folder.path, fresh=fresh, **folder.fields_of(record, _Record))


class _Reader:
    """Reads task files, remembers the bad ones and reports progress."""

    def __init__(self, on_bad_task: str, advance: Callable[[int], None]) -> None:
        self.skipped: dict[str, str] = {}
        self._on_bad_task = on_bad_task
        self._advance = advance

    def __call__(self, path: Path) -> Task | None:
        try:
            return read_task(path)
        except UserError as error:
            if self._on_bad_task == "error":
                raise
            self.skipped[_name(path)] = str(error)
            return None
        finally:
            self._advance(size_of(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS's own progress bars, two for every task."""
    active = tqdm_utils._active
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.display_progress_bar(active)


def _write_config(
    config: str, clone: Clone, paths: Sequence[Path], reader: _Reader, root: Path
) -> None:
    builder = Niv2(config=config, data_dir=str(root), task_paths=paths, read=reader)
    # Statistics of every column would cost more than writing it.
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=clone.directory, compute_stats=tfds.download.ComputeStatsMode.SKIP
        )
    )


def load_pool(
    data_dir: Any,
    source: Any = None,
    cls_gen_labels: Mapping[str, bool] | str | os.PathLike | None = None,
    *,
    splits: str = "default",
    on_bad_task: str = "error",
) -> TaskPool:
    """Opens the prepared pool; prepares it first if `source` is given and that is not done.

    Instances are read on demand, by random access and without TensorFlow. `TaskPool.splits` are the
    clone's: its training tasks remain to be chosen from, and there are no dev tasks. They may name
    tasks that the pool lacks; `Splits.restrict_to` refuses or drops those.

    Args:
      data_dir: as given to `prepare`.
      source: the clone, if at hand: a pool made from anything else is refused.
      cls_gen_labels: task name -> True for CLS, or the path of a file of labels
        (`cls_gen.labels_from_file`).
      splits: which of the clone's splits/ folders.
      on_bad_task: as for `prepare`.

    Raises:
      UserError: nothing is prepared and no source is given, or as `prepare`.
    """
    if source:
        prepared = prepare(source, data_dir, on_bad_task=on_bad_task)
    else:
        folder = _folder(data_dir)
        record = folder.read_record()
        if record is None:
            raise UserError(
                f"NIV2 is not prepared in {shown(str(data_dir))}: set the gin name NIV2_DIR to a "
                "clone of Natural Instructions, or run `ait-jax prepare niv2 --source CLONE` first."
            )
        prepared = _prepared(folder, record)
    tasks = list(_tasks(prepared))
    if isinstance(cls_gen_labels, (str, os.PathLike)):
        cls_gen_labels = labels_from_file(cls_gen_labels, [task.name for task in tasks])
    return TaskPool(
        tasks,
        cls_gen_labels,
        name=NAME,
        splits=_splits(prepared, splits),
        fingerprint=prepared.fingerprint,
    )


def _splits(prepared: Prepared, name: str) -> Splits | None:
    if name not in prepared.splits:
        if name == "default":  # a folder of tasks without splits is a pool, too
            return None
        raise UserError(
            f"the clone of {shown(str(prepared.directory))} has no splits/{name}."
            + nearest(name, prepared.splits)
        )
    files = prepared.splits[name]
    return Splits(
        remain=tuple(files.get("train_tasks", ())),
        test=tuple(files.get("test_tasks", ())),
    )


def _tasks(prepared: Prepared) -> Iterator[Task]:
    place = (str(prepared.directory), prepared.fingerprint)
    for row in niv2_rows.read_rows(*place, "tasks", TASKS_SPLIT):
        split, length = row["split"].decode(), int(row["num_instances"])
        instances = LazyInstances(length, niv2_rows.read_instances, *place, split)
        yield niv2_rows.task_from_row(row, instances)
