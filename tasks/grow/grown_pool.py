"""A grown pool on disk, which later growth extends and never rewrites.

instructions.jsonl   one task a line, in the order in which they were added: NIV2's schema without
                     the instances, how many there are, and where it all came from
tasks/NAME.json      NIV2's schema: the tasks that have instances
cache/               an endpoint's answers, one file a request
report.json          each growth: what was asked for, counts by reason
"""

import contextlib
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.proposal import Proposal
from ait_jax.tasks.grow.roles import language_name, language_of_column
from ait_jax.tasks.grow.screening import NOT_RECORDED, license_id
from ait_jax.tasks.prepared_folder import read_record

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.pool import Instance, Instruction, Task, task_digest, task_from_json, task_to_json
from ait_jax.runtime import disk, strict_json
from ait_jax.runtime.files import as_path, check_name, read_bytes, write_json, write_lines
from ait_jax.runtime.strict_json import without_lone_surrogates

INSTRUCTIONS, TASKS, REPORT = "instructions.jsonl", "tasks", "report.json"
_LOCK = ".lock"
_SCHEMA = 1
_REMEDY = "grow the pool again"


@dataclass(frozen=True)
class _Own:
    """What a line of the list has beside NIV2's schema; see `Entry`."""

    name: str
    num_instances: int
    digest: str
    is_cls: bool


@dataclass(frozen=True)
class Entry:
    """A line of instructions.jsonl.

    Attributes:
      task: without instances.
      num_instances: in tasks/NAME.json; 0 if there is no such file.
      digest: `task_digest` of the task with its instances, in hexadecimal.
      is_cls: whether its instruction names a closed set of answers.
    """

    task: Task
    num_instances: int
    digest: str
    is_cls: bool


def task_name(proposal: Proposal) -> str:
    """Returns a name that depends on the proposal alone, whatever else is in the pool."""
    digest = hashlib.sha256(json.dumps(proposal.key).encode()).hexdigest()[:10]
    words = re.sub(r"[^A-Za-z0-9]+", "_", f"{proposal.dataset}_{proposal.output_field[0]}")
    return f"dynosaur_{words.strip('_')[:100]}_{digest}"


def make_task(
    proposal: Proposal, dataset: Dataset, instances: Sequence[Instance], suffix: str = ""
) -> Task:
    """Returns the task with provenance and license; `suffix` ends the instruction (its labels)."""
    provenance = {
        "Contributors": ["ait-jax grow"],
        "Source": [dataset.name],
        "URL": [dataset.website] if dataset.website else [],
        "Instance License": [license_id(dataset.license) or NOT_RECORDED],
        "Metadata Source": [dataset.source],
        "Input Fields": list(proposal.input_fields),
        "Output Field": list(proposal.output_field),
        "Generator": [proposal.generator],
        "Model": [proposal.model] if proposal.model else [],
    }
    categories = (proposal.category,) if proposal.category else dataset.task_categories[:1]
    return Task(
        name=task_name(proposal),
        instruction=Instruction(without_lone_surrogates(proposal.instruction + suffix)),
        instances=tuple(instances),
        categories=categories,
        input_languages=_languages(proposal.input_fields, dataset),
        output_languages=_languages(proposal.output_field[:1], dataset),
        metadata={
            key: tuple(map(without_lone_surrogates, values)) for key, values in provenance.items()
        },
    )


def _languages(columns: Sequence[str], dataset: Dataset) -> tuple[str, ...]:
    """Returns the languages that columns are named by, or else the dataset's."""
    own = [language_of_column(name) for name in columns]
    named = own if own and all(own) else [language_name(code) for code in dataset.languages]
    return tuple(dict.fromkeys(name for name in named if name)) or ("English",)


class GrownPool:
    """A grown pool's folder. Tasks are added one at a time; `commit` makes them part of it.

    Args:
      directory: created when it is locked or written to.

    Raises:
      UserError: the folder is not local, is a file, or holds a damaged pool.
    """

    def __init__(self, directory: Any) -> None:
        if "://" in str(directory):
            raise UserError(f"--pool={directory} is not on a local disk; grow into a local folder.")
        self.directory = disk.local_path(directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"--pool={directory} is a file; give a folder.")
        self._read()

    def _read(self) -> None:
        self._entries = {entry.task.name: entry for entry in read_entries(self.directory)}
        self._fresh: dict[str, Entry] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other growths out until the block or the process ends; reads the pool again.

        A commit writes the whole list: what another growth committed since must be in it.

        Raises:
          UserError: another growth is at work, the folder is not writable, its report is damaged.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = disk.lock_file(self.directory / _LOCK)
        except OSError as error:
            raise UserError(
                f"cannot write {shown(str(self.directory))}: {error.strerror}; give another --pool."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"another `ait-jax grow` is at work in {shown(str(self.directory))}."
                ) from error
            disk.tidy(self.directory)
            self._read()
            read_report(self.directory)  # fails now if it is damaged, not after the work
            yield

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The tasks that are part of the pool, in its order."""
        return tuple(self._entries.values())

    def has(self, name: str, with_instances: bool) -> bool:
        """Whether the pool has the task, `with_instances` or in any case."""
        entry = self._entries.get(name) or self._fresh.get(name)
        return bool(entry and (entry.num_instances or not with_instances))

    def add(self, task: Task, is_cls: bool) -> None:
        """Adds a task, or its instances to a task of the pool that had none."""
        check_name(task.name, "task name")
        if task.instances:
            write_json(self.directory / TASKS / f"{task.name}.json", task_to_json(task))
        without = replace(task, instances=())
        digest = task_digest(task).hex()
        self._fresh[task.name] = Entry(without, len(task.instances), digest, is_cls)

    def commit(self, growth: Mapping[str, Any]) -> None:
        """Writes the list of tasks, with those added, and adds `growth` (JSON) to the report.

        Earlier tasks keep their lines and places. The list is written first: it alone says what
        the pool is. A growth that added nothing is reported once, by what its "growth" asked for.
        """
        report = read_report(self.directory)
        if self._fresh:
            merged = {**self._entries, **self._fresh}
            write_lines(self.directory / INSTRUCTIONS, map(_line, merged.values()))
            self._entries, self._fresh = merged, {}
        elif growth["growth"] in [earlier.get("growth") for earlier in report["growths"]]:
            return
        report["growths"].append(dict(growth))
        write_json(self.directory / REPORT, report)


def _line(entry: Entry) -> str:
    data = task_to_json(entry.task)
    del data["Instances"]
    own = {
        "name": entry.task.name,
        "num_instances": entry.num_instances,
        "digest": entry.digest,
        "is_cls": entry.is_cls,
    }
    return json.dumps({**own, **data}, ensure_ascii=False)


def read_entries(directory: Any) -> Iterator[Entry]:
    """Yields the tasks of a grown pool; none if there is no pool yet.

    Raises:
      UserError: a line is damaged.
    """
    path = as_path(directory) / INSTRUCTIONS
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{shown_path(path)}: cannot read the pool: {problem}.") from error
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=1):
        source = f"{shown_path(path)}, line {number}"
        values = strict_json.loads(line, path, number)
        own = strict_json.converted(values, _Own, source, _REMEDY)
        if own.num_instances < 0 or not re.fullmatch(r"[0-9a-f]{64}", own.digest):
            raise UserError(f"{source}: num_instances or digest is damaged; {_REMEDY}.")
        values = {key: value for key, value in values.items() if key not in _Own.__annotations__}
        # `task_from_json` wants an instance.
        values["Instances"] = [{"input": "", "output": ""}]
        task = replace(task_from_json(values, own.name, source), instances=())
        yield Entry(task, own.num_instances, own.digest, own.is_cls)


def read_report(directory: Any) -> dict[str, Any]:
    """Returns the report of a grown pool, an empty one if there is none.

    Raises:
      UserError: it is damaged or of another version.
    """
    path = as_path(directory) / REPORT
    remedy = "move it elsewhere: the pool does not need it"
    report = read_record(path, _SCHEMA, remedy) or {"schema": _SCHEMA, "growths": []}
    strict_json.typed(report, _Report, path, remedy)
    return report


class _Report(TypedDict):
    growths: list[dict[str, Any]]
