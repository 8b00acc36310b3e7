"""Self-Instruct, Alpaca and the like: every distinct instruction is a task.

Prepared once (`ait-jax prepare self_instruct --source FILE[,FILE...] --test_source FILE`) into a
stored pool (`stored_pool`) below `data_dir`; `instruction_rows` says what the files may hold.

- A task's definition is the instruction, its name that one's first words and hash; no examples.
- Rows of one instruction are its instances. Rows of one instruction and input become one instance
  with several references; exact duplicates are dropped.
- Rows with an empty output are dropped, in test files they are instances without references.
- An instruction that is also a test instruction is only a test task.

Each of these is counted. White space around a text makes no difference.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ait_jax.tasks import stored_pool
from ait_jax.tasks.collected_task import CollectedTask, Reading, collect
from ait_jax.tasks.prepared_folder import PreparedFolder, check_on_bad_task
from ait_jax.tasks.source_files import SourceFile, SourceFiles

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.pool import Splits, TaskPool
from ait_jax.pool.cls_gen import labels_from_file
from ait_jax.pool.columns import Columns, columns_of
from ait_jax.pool.instruction_rows import Findings
from ait_jax.runtime import disk
from ait_jax.runtime.files import text_name

NAME = "self_instruct"
Given = Columns | Mapping[str, str] | str | None
Files = str | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Prepared:
    """A prepared pool.

    Attributes:
      directory: `<data_dir>/<name>`.
      num_tasks, num_instances: of the whole pool.
      num_test_tasks: of these tasks.
      findings: what was left out, and why.
      fresh: whether this call prepared it.
    """

    directory: Path
    num_tasks: int
    num_instances: int
    num_test_tasks: int
    findings: Findings
    fresh: bool = False

    def describe(self) -> list[str]:
        """Returns lines for the terminal."""
        done = "prepared" if self.fresh else "already prepared:"
        return [
            f"{done} {self.num_tasks:,} tasks with {self.num_instances:,} instances in "
            f"{self.directory}; {self.num_test_tasks:,} of them are test tasks",
            *Findings.describe(self.findings.noted),
            *(f"left out {line}" for line in Findings.describe(self.findings.bad)),
        ]


def _paths(given: Files | None, what: str) -> list[Path]:
    names = given.split(",") if isinstance(given, str) else [os.fspath(f) for f in given or ()]
    paths = [disk.local_path(name.strip()) for name in names if name.strip()]
    for path in paths:
        if not path.is_file():
            kind = "is no regular file" if path.exists() else "does not exist"
            kind = "is a folder, not a file" if path.is_dir() else kind
            raise UserError(
                f"{shown_path(path)} {kind}; the {what} is files of rows, separated by commas."
            )
    return paths


def _named(group: str, paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the files by names that do not depend on their folders."""
    named: dict[str, Path] = {}
    for path in paths:
        name = f"{group}/{text_name(Path(path.name))}"
        while name in named:
            name += "'"
        named[name] = path
    return named


def prepare(
    source: Files,
    data_dir: Any,
    *,
    test_source: Files | None = None,
    name: str = NAME,
    on_bad_task: str = "error",
    overwrite: bool = False,
    columns: Given = None,
    filter_instances: bool = False,
) -> Prepared:
    """Prepares a pool below `data_dir`, unless that was done before; whole or not at all.

    Args:
      source: instruction files, a list or separated by commas (gin name SELF_INSTRUCT_FILES).
      data_dir: local or in a bucket; created if need be.
      test_source: likewise, for the test tasks (gin name TEST_FILES).
      name: of the pool and its folder, to keep several in one `data_dir`.
      on_bad_task: "error" refuses malformed rows and says how many of each kind there are and
        where the first is; "skip" leaves them out.
      overwrite: prepare in any case, and replace what is there.
      columns: where a row's parts are, if not under usual names: "instruction=question,
        output=answer" (`columns.Columns`; gin name COLUMNS).
      filter_instances: leave out what Self-Instruct's code leaves out of training (gin name
        FILTER_INSTANCES): instances whose output repeats the input, or in which either ends in a
        colon, and instructions that have one input with different outputs.

    Raises:
      UserError: a file is missing, malformed or has no rows; the source has changed since; the
        directory cannot be written to.
    """
    check_on_bad_task(on_bad_task)
    reading = Reading(columns_of(columns), filter_instances)
    train = _paths(source, "source (--source, gin name SELF_INSTRUCT_FILES)")
    test = _paths(test_source, "test source (--test_source, gin name TEST_FILES)")
    if not train:
        raise UserError(
            "no source is given; give at least one file (--source, gin name SELF_INSTRUCT_FILES)."
        )
    label = "the source " + ", ".join(path.name for path in [*train, *test])
    files = SourceFiles(label, _named("source", train) | _named("test", test))
    folder = _folder(data_dir, name)

    def build(
        building: Path, files: Mapping[str, SourceFile], advance: Callable[[int], None]
    ) -> dict[str, Any]:
        findings = Findings()
        made = collect(train, test, findings, advance, reading)
        _check(made, findings, label, on_bad_task)
        return _store(made, building, name) | {
            "tally": vars(findings),
            "reading": reading.to_json(),
        }

    record, fresh = folder.prepare(files, build, f"Preparing {name}", passes=1, overwrite=overwrite)
    prepared = _prepared(folder, record, fresh)
    _check_reading(folder, record, reading)
    if on_bad_task == "error":
        _refuse_skipped(prepared)
    return prepared


def _store(made: Sequence[CollectedTask], building: Path, name: str) -> dict[str, int]:
    """Writes the tasks; returns their numbers."""
    stored_pool.write(
        (task.build() for task in made),
        building,
        name,
        cls_labels={t.name: t.is_cls for t in made if t.is_cls is not None},
        splits=_splits(made),
    )
    return {
        "num_tasks": len(made),
        "num_instances": sum(len(task.instances) for task in made),
        "num_test_tasks": sum(task.is_test for task in made),
    }


class _Record(TypedDict):
    """What `Prepared` keeps in source.json."""

    num_tasks: int
    num_instances: int
    num_test_tasks: int
    tally: Findings


def _prepared(folder: PreparedFolder, record: Mapping[str, Any], fresh: bool) -> Prepared:
    values: dict[str, Any] = dict(folder.fields_of(record, _Record))
    return Prepared(folder.path, findings=values.pop("tally"), fresh=fresh, **values)


def _check_reading(folder: PreparedFolder, record: Mapping[str, Any], reading: Reading) -> None:
    """Refuses a pool that was read in another way."""
    before = record.get("reading", Reading().to_json())
    if before != reading.to_json():
        raise UserError(
            f"{shown_path(folder.path)} was prepared with {shown(before)}, not with "
            f"{shown(reading.to_json())}: give another name, or prepare it again with overwrite "
            f"(`ait-jax prepare {NAME} --overwrite`)."
        )


def _refuse_skipped(prepared: Prepared) -> None:
    """Refuses a pool that was prepared without bad rows."""
    bad = prepared.findings
    if bad.num_bad:
        raise UserError(
            f"{shown(str(prepared.directory))} was prepared without {bad.num_bad} bad rows "
            f"({'; '.join(Findings.describe(bad.bad))}). Fix them, or accept that with "
            "on_bad_task='skip'."
        )


def _splits(made: Sequence[CollectedTask]) -> Splits:
    return Splits(
        remain=tuple(task.name for task in made if not task.is_test),
        test=tuple(task.name for task in made if task.is_test),
    )


def _folder(data_dir: Any, name: str) -> PreparedFolder:
    return PreparedFolder(data_dir, name, f"ait-jax prepare {NAME}")


def _check(made: Iterable[CollectedTask], findings: Findings, label: str, on_bad_task: str) -> None:
    bad = Findings.describe(findings.bad)
    if bad and on_bad_task == "error":
        raise UserError(
            f"{findings.num_bad:,} bad rows in {label}: {'; '.join(bad)}. Fix them, or leave them "
            "out with on_bad_task='skip' (--on_bad_task=skip, --gin.ON_BAD_TASK=skip)."
        )
    if all(task.is_test for task in made):
        left_out = "".join(f"; {line}" for line in [*Findings.describe(findings.noted), *bad])
        raise UserError(
            f"{label} has no instruction to select from{left_out}. Give files with rows of "
            "{instruction, input, output}."
        )


def load_pool(
    data_dir: Any,
    source: Files | None = None,
    test_source: Files | None = None,
    *,
    name: str = NAME,
    cls_gen_labels: Mapping[str, bool] | str | os.PathLike | None = None,
    on_bad_task: str = "error",
    columns: Given = None,
    filter_instances: bool = False,
) -> TaskPool:
    """Opens the prepared pool; prepares it first if `source` is given and that is not done.

    Instances are read on demand. `TaskPool.splits` has the test tasks; all others remain to be
    chosen from.

    Args:
      data_dir, source, test_source, name, on_bad_task, columns, filter_instances: as for
        `prepare`. With `source`, a pool made from anything else is refused.
      cls_gen_labels: task name -> True for CLS, or the path of a file of labels; they override the
        files' `is_classification`.

    Raises:
      UserError: nothing is prepared and no source is given, or as `prepare`.
    """
    if source:
        directory = prepare(
            source,
            data_dir,
            test_source=test_source,
            name=name,
            on_bad_task=on_bad_task,
            columns=columns,
            filter_instances=filter_instances,
        ).directory
    else:
        folder = _folder(data_dir, name)
        if folder.read_record() is None:
            raise UserError(
                f"the pool {shown(name)} is not prepared in {shown(str(data_dir))}: set the gin "
                f"name SELF_INSTRUCT_FILES to its files, or run `ait-jax prepare {NAME} --source "
                "FILE`."
            )
        directory = folder.path
    if isinstance(cls_gen_labels, (str, os.PathLike)):
        cls_gen_labels = labels_from_file(cls_gen_labels)
    return stored_pool.load(directory, cls_gen_labels)
