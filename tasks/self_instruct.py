"""Self-Instruct, Alpaca and their like: every distinct instruction is a task.

Prepared once (`ait-jax prepare self_instruct --source FILE[,FILE...] --test_source FILE`) into a
stored pool (`stored_pool`) below `data_dir`; what the files may hold, `instruction_rows` says.

- A task's name is made of its instruction alone: its first words and a hash of it. It has no
  examples; its definition is the instruction.
- Rows of one instruction are its instances. Rows of one instruction and input become one instance
  with several references; exact duplicates are dropped.
- Rows with an empty output are dropped, but in test files kept as instances without references.
- An instruction that is also a test instruction is a test task only.

Each of these is counted. White space around a text does not make it another text.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.tasks import stored_pool
from ait_jax.tasks.instruction_rows import Row, read_rows
from ait_jax.tasks.prepared_folder import PreparedFolder, check_on_bad_task
from ait_jax.tasks.progress import Progress
from ait_jax.tasks.source_files import SourceFile, read_source_files, text_name
from ait_jax.tasks.tally import Tally

from ait_jax.errors import UserError
from ait_jax.pool.cls_gen import labels_from_file
from ait_jax.pool.pool import Instance, Instruction, Splits, Task, TaskPool

NAME = "self_instruct"
_SLUG_LENGTH = 48
# 40 bits: among 52,000 instructions that begin alike two are the same with a chance of 1 in 800.
_HASH_LENGTH = 10


@dataclass(frozen=True)
class Prepared:
    """A prepared pool.

    Attributes:
      directory: where it is, `<data_dir>/<name>`.
      num_tasks, num_instances: of the whole pool, `num_test_tasks` among the first.
      tally: what was left out, and why.
      fresh: whether this call prepared it (False: there was nothing to do).
    """

    directory: Path
    num_tasks: int
    num_instances: int
    num_test_tasks: int
    tally: Tally
    fresh: bool = False

    def describe(self) -> list[str]:
        """Returns lines for the terminal."""
        done = "prepared" if self.fresh else "already prepared:"
        return [
            f"{done} {self.num_tasks:,} tasks with {self.num_instances:,} instances in "
            f"{self.directory}; "
            f"{self.num_test_tasks:,} of them are test tasks",
            *self.tally.describe_noted(),
            *(f"left out {line}" for line in self.tally.describe_bad()),
        ]


class _Sources:
    """The files of a pool: those to select from and those of the test tasks."""

    def __init__(self, source: str | Sequence[str], test: str | Sequence[str] | None) -> None:
        self.train = _paths(source, "source (--source, gin name SELF_INSTRUCT_FILES)")
        self.test = _paths(test, "test source (--test_source, gin name TEST_FILES)") if test else []
        if not self.train:
            raise UserError(
                "no source is given; needed: at least one file (gin name SELF_INSTRUCT_FILES)."
            )
        self._named = _named("source", self.train) | _named("test", self.test)

    @property
    def num_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._named.values())

    def files(self, known: Mapping[str, SourceFile]) -> dict[str, SourceFile]:
        return read_source_files(self._named, known)

    def __str__(self) -> str:
        return "the source " + ", ".join(path.name for path in [*self.train, *self.test])


def _paths(given: str | Sequence[str], what: str) -> list[Path]:
    names = given.split(",") if isinstance(given, str) else [os.fspath(name) for name in given]
    paths = [Path(name.strip()).expanduser() for name in names if name.strip()]
    for path in paths:
        if not path.is_file():
            kind = "is a folder, not a file" if path.is_dir() else "is not there"
            raise UserError(
                f"the {what} {str(path)!r} {kind}; give JSON or JSON-lines files, separated by "
                "commas."
            )
    return paths


def _named(group: str, paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the files by names that do not depend on where they lie."""
    named: dict[str, Path] = {}
    for path in paths:
        name = f"{group}/{text_name(Path(path.name))}"
        while name in named:
            name += "'"
        named[name] = path
    return named


def prepare(
    source: str | Sequence[str],
    data_dir: Any,
    *,
    test_source: str | Sequence[str] | None = None,
    name: str = NAME,
    on_bad_task: str = "error",
    overwrite: bool = False,
) -> Prepared:
    """Prepares a pool below `data_dir`, unless that was done before; whole or not at all.

    Args:
      source: files of instructions, a list or separated by commas (gin name SELF_INSTRUCT_FILES).
      data_dir: local or in a bucket; made if need be.
      test_source: likewise, of the test tasks (gin name TEST_FILES).
      name: of the pool and its folder, so that several may lie in one `data_dir`.
      on_bad_task: "error" refuses files with malformed rows, and says how many of which kind
        there are and where the first is; "skip" leaves them out.
      overwrite: prepare in any case, and replace what is there.

    Raises:
      UserError: a file is missing, malformed or has no rows, a changed source, an unwritable
        directory.
    """
    check_on_bad_task(on_bad_task)
    sources = _Sources(source, test_source)
    folder = _folder(data_dir, name)
    with folder.locked():
        prepared = None if overwrite else _unchanged(sources, folder, on_bad_task)
        return prepared or _prepare_anew(sources, folder, on_bad_task)


def _folder(data_dir: Any, name: str) -> PreparedFolder:
    return PreparedFolder(data_dir, name, f"ait-jax prepare {NAME}")


def _unchanged(sources: _Sources, folder: PreparedFolder, on_bad_task: str) -> Prepared | None:
    """Returns the pool that the sources were prepared to, None if nothing is prepared yet."""
    record = folder.read_record()
    if record is None:
        return None
    before = folder.files_before(record)
    now = sources.files(before)
    folder.refuse_changes(before, now, str(sources))
    prepared = _prepared(folder.path, record, fresh=False)
    if prepared.tally.num_bad and on_bad_task == "error":
        raise UserError(
            f"{str(folder.path)!r} was prepared without {prepared.tally.num_bad} bad rows "
            f"({'; '.join(prepared.tally.describe_bad())}). Mend them, or accept that with "
            "on_bad_task='skip'."
        )
    if now != before:  # The same contents under new times: remembered, so as not to be read again.
        folder.write_record(now, {k: v for k, v in record.items() if k not in ("schema", "files")})
    return prepared


def _prepared(directory: Path, record: Mapping[str, Any], fresh: bool) -> Prepared:
    try:
        numbers = (int(record[key]) for key in ("num_tasks", "num_instances", "num_test_tasks"))
        return Prepared(directory, *numbers, tally=Tally(record["tally"]), fresh=fresh)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{str(directory)!r} was not prepared by `ait-jax prepare {NAME}` ({error!r}); give "
            "another "
            "name or data_dir."
        ) from error


def _prepare_anew(sources: _Sources, folder: PreparedFolder, on_bad_task: str) -> Prepared:
    tally = Tally()
    with folder.rebuilt() as building:
        with Progress(f"Preparing {folder.name}", sources.num_bytes) as progress:
            files = sources.files(known={})
            made = collect(sources.train, sources.test, tally, progress)
        if tally.num_bad and on_bad_task == "error":
            raise UserError(
                f"{tally.num_bad:,} bad rows in {sources}: {'; '.join(tally.describe_bad())}. "
                "Mend them, or "
                "leave them out with on_bad_task='skip' (--on_bad_task=skip, "
                "--gin.ON_BAD_TASK=skip)."
            )
        if not any(not task.is_test for task in made):
            raise UserError(
                f"{sources} has no instruction to select from"
                + "".join(f"; {line}" for line in [*tally.describe_noted(), *tally.describe_bad()])
                + ". Needed: rows of {instruction, input, output}."
            )
        stored_pool.write(
            (task.build() for task in made),
            building / folder.name,
            folder.name,
            cls_labels={t.name: t.is_cls for t in made if t.is_cls is not None},
            splits=Splits(
                remain=[t.name for t in made if not t.is_test],
                test=[t.name for t in made if t.is_test],
            ),
        )
        if sources.files(known=files) != files:
            raise UserError(f"{sources} changed while it was read; prepare again.")
        values = {
            "num_tasks": len(made),
            "num_instances": sum(len(task.instances) for task in made),
            "num_test_tasks": sum(task.is_test for task in made),
            "tally": tally.to_json(),
        }
        record = folder.write_record(files, values, building)
    return _prepared(folder.path, record, fresh=True)


@dataclass
class CollectedTask:
    """The rows of one instruction.

    Attributes:
      instances: input without white space around it -> (id, input, its distinct references).
      is_cls: the first label given; None where no row has one.
      apps, licenses, websites, files: distinct, in order; the values are not used.
    """

    instruction: str
    is_test: bool
    instances: dict[str, tuple[str, str, dict[str, str]]] = field(default_factory=dict)
    is_cls: bool | None = None
    apps: dict[str, None] = field(default_factory=dict)
    licenses: dict[str, None] = field(default_factory=dict)
    websites: dict[str, None] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = task_name(self.instruction)

    def build(self) -> Task:
        instances: dict[str, Instance] = {}
        for index, (identity, text, references) in enumerate(self.instances.values()):
            identity = identity or f"{self.name}-{index}"
            while identity in instances:
                identity = f"{identity}-{index}"
            instances[identity] = Instance(identity, text, tuple(references.values()))
        metadata = {"Source": self.files, "URL": self.websites, "Instance License": self.licenses}
        return Task(
            name=self.name,
            instruction=Instruction(self.instruction),
            instances=tuple(instances.values()),
            categories=tuple(self.apps),
            metadata={key: tuple(values) for key, values in metadata.items() if values},
        )


def task_name(instruction: str) -> str:
    """Returns a readable, safe name that depends on the instruction alone."""
    words = "_".join(re.findall("[a-z0-9]+", instruction.lower()))
    if len(words) > _SLUG_LENGTH:
        words = words[: _SLUG_LENGTH + 1].rpartition("_")[0] or words[:_SLUG_LENGTH]
    digest = hashlib.sha256(instruction.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{words or 'instruction'}_{digest}"


def collect(
    train: Sequence[Path], test: Sequence[Path], tally: Tally, progress: Progress | None = None
) -> list[CollectedTask]:
    """Reads files and returns their tasks as they first occur, test tasks last."""
    tasks: dict[str, CollectedTask] = {}
    # Test files first: what they have is not for training.
    for paths, is_test in ((test, True), (train, False)):
        for path in paths:
            for row in read_rows(path, tally):
                known = tasks.get(row.instruction)
                if known is None:
                    known = tasks[row.instruction] = CollectedTask(row.instruction, is_test)
                elif known.is_test and not is_test:
                    tally.note(
                        "rows left out: their instruction is a test instruction, too", row.where
                    )
                    continue
                _add(known, row, text_name(Path(path.name)), tally)
            if progress:
                progress.advance(path.stat().st_size)
    kept = [task for task in tasks.values() if task.instances]
    return sorted(kept, key=lambda task: task.is_test)


def _add(task: CollectedTask, row: Row, file: str, tally: Tally) -> None:
    several = len(row.instances) > 1
    for index, (text, outputs) in enumerate(row.instances):
        if not outputs and not task.is_test:
            tally.note("instances dropped: their output is empty", row.where)
            continue
        new = {output.strip(): output for output in outputs}
        known = task.instances.get(text.strip())
        if known is None:
            identity = f"{row.identity}-{index}" if row.identity and several else row.identity
            task.instances[text.strip()] = (identity, text, new)
            if not new:
                tally.note("test instances without a reference: answered, not measured", row.where)
        elif new.keys() - known[2].keys():
            known[2].update((key, output) for key, output in new.items() if key not in known[2])
            tally.note(
                "instances merged: the same instruction and input, another reference", row.where
            )
        else:
            tally.note("instances dropped: exact duplicates", row.where)
    if row.is_classification is not None:
        if task.is_cls not in (None, row.is_classification):
            tally.note("labels that contradict an earlier one, which counts", row.where)
        elif task.is_cls is None:
            task.is_cls = row.is_classification
    task.files[file] = None
    for values, value in (
        (task.apps, row.motivation_app), (task.licenses, row.license), (task.websites, row.website),
    ):  # fmt: skip
        if value:
            values[value] = None


def load_pool(
    data_dir: Any,
    source: str | Sequence[str] | None = None,
    test_source: str | Sequence[str] | None = None,
    *,
    name: str = NAME,
    cls_gen_labels: Mapping[str, bool] | str | os.PathLike | None = None,
    on_bad_task: str = "error",
) -> TaskPool:
    """Opens the prepared pool; prepares it first if `source` is given and that is not done.

    Instances are read when asked for. `TaskPool.splits` has the test tasks; all others remain to
    be chosen from.

    Args:
      data_dir, source, test_source, name, on_bad_task: as for `prepare`. With `source` a pool
        made of something else is refused.
      cls_gen_labels: task name -> True for CLS, or the path of a file of labels; they win over the
        files' `is_classification`.

    Raises:
      UserError: nothing is prepared and no source given, and as `prepare`.
    """
    if source:
        directory = prepare(
            source, data_dir, test_source=test_source, name=name, on_bad_task=on_bad_task
        ).directory
    else:
        folder = _folder(data_dir, name)
        if folder.read_record() is None:
            raise UserError(
                f"the pool {name!r} is not prepared in {str(data_dir)!r}: set the gin name "
                "SELF_INSTRUCT_FILES "
                f"to its files, or run `ait-jax prepare {NAME} --source FILE` first."
            )
        directory = folder.path
    if isinstance(cls_gen_labels, (str, os.PathLike)):
        cls_gen_labels = labels_from_file(cls_gen_labels)
    return stored_pool.load(directory, cls_gen_labels)
