"""Tasks made of rows: every distinct instruction is one, and its rows are its instances."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.pool import Instance, Instruction, Task
from ait_jax.pool.columns import Columns
from ait_jax.pool.instruction_rows import Findings, Row, read_rows
from ait_jax.runtime.files import text_name

_SLUG_LENGTH = 48
# 40 bits: among 52,000 instructions that begin alike two are the same with a chance of 1 in 800.
_HASH_LENGTH = 10


@dataclass(frozen=True)
class Reading:
    """How files are read: `columns` and `filter_instances` of `prepare`."""

    columns: Columns = field(default_factory=Columns)
    filter_instances: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns what the pool's record says of it."""
        names = dict(sorted(self.columns.names.items()))
        return {"columns": names, "filter_instances": self.filter_instances}


_USUAL = Reading()


@dataclass
class CollectedTask:
    """The rows of one instruction.

    Attributes:
      instances: stripped input -> (id, input, stripped reference -> reference).
      is_cls: the first label given; None if no row has one.
      is_ambiguous: whether rows give one input different outputs.
      said: "App", "Source", "URL", "Instance License" -> distinct values, in order (as keys).
    """

    instruction: str
    is_test: bool
    instances: dict[str, tuple[str, str, dict[str, str]]] = field(default_factory=dict)
    is_cls: bool | None = None
    said: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    is_ambiguous: bool = False

    def __post_init__(self) -> None:
        self.name = task_name(self.instruction)

    def build(self) -> Task:
        """Returns the task."""
        instances: dict[str, Instance] = {}
        for index, (identity, text, references) in enumerate(self.instances.values()):
            identity = identity or f"{self.name}-{index}"  # noqa: PLW2901 - the rows' id, completed
            while identity in instances:
                identity = f"{identity}-{index}"  # noqa: PLW2901 - likewise
            instances[identity] = Instance(identity, text, tuple(references.values()))
        keys = ("Source", "URL", "Instance License")
        return Task(
            name=self.name,
            instruction=Instruction(self.instruction),
            instances=tuple(instances.values()),
            categories=tuple(self.said["App"]),
            metadata={key: tuple(self.said[key]) for key in keys if self.said[key]},
        )


def task_name(instruction: str) -> str:
    """Returns a readable, safe name that depends on the instruction alone."""
    words = ""
    for word in re.finditer("[a-z0-9]+", instruction.lower()):
        words += f"_{word[0]}" if words else word[0]
        if len(words) > _SLUG_LENGTH:
            break
    if len(words) > _SLUG_LENGTH:
        words = words[: _SLUG_LENGTH + 1].rpartition("_")[0] or words[:_SLUG_LENGTH]
    digest = hashlib.sha256(instruction.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{words or 'instruction'}_{digest}"


def collect(
    train: Sequence[Path],
    test: Sequence[Path],
    findings: Findings,
    advance: Callable[[int], None] = lambda num_bytes: None,
    reading: Reading = _USUAL,
) -> list[CollectedTask]:
    """Returns the tasks of files as they first occur, test tasks last."""
    tasks: dict[str, CollectedTask] = {}
    # Test files first: their instructions are not for training.
    for path, is_test in [*((path, True) for path in test), *((path, False) for path in train)]:
        file, filters = text_name(Path(path.name)), reading.filter_instances and not is_test
        for row in read_rows(path, findings, reading.columns, needs_answer=not is_test):
            known = tasks.setdefault(row.instruction, CollectedTask(row.instruction, is_test))
            if known.is_test and not is_test:
                left_out = "rows left out: their instruction is a test instruction, too"
                findings.note(left_out, row.where)
            else:
                _add(known, row, file, findings, filters)
        advance(path.stat().st_size)
    if reading.filter_instances:
        for task in tasks.values():
            if task.is_ambiguous and not task.is_test:
                task.instances.clear()
                findings.note("instructions dropped: one input, different outputs", task.name)
    kept = [task for task in tasks.values() if task.instances]
    return sorted(kept, key=lambda task: task.is_test)


def _is_invalid(text: str, output: str) -> bool:
    """Whether Self-Instruct's code leaves an instance out; both texts are stripped."""
    return text == output or text.endswith(":") or output.endswith(":")


def _add(
    task: CollectedTask, row: Row, file: str, findings: Findings, filters: bool = False
) -> None:
    for index, (text, given) in enumerate(row.instances):
        outputs = given
        if filters:
            outputs = tuple(o for o in given if not _is_invalid(text.strip(), o.strip()))
            if given and not outputs:
                findings.note("instances dropped: invalid by Self-Instruct's filter", row.where)
                continue
        if not outputs and not task.is_test:
            findings.note("instances dropped: their output is empty", row.where)
            continue
        new = {output.strip(): output for output in outputs}
        known = task.instances.get(text.strip())
        if known is None:
            several = row.identity and len(row.instances) > 1
            identity = f"{row.identity}-{index}" if several else row.identity
            task.instances[text.strip()] = (identity, text, new)
            if not new:
                without = "test instances without a reference: answered, not measured"
                findings.note(without, row.where)
        elif any(key not in known[2] for key in new):
            task.is_ambiguous = task.is_ambiguous or bool(text.strip())
            known[2].update((key, output) for key, output in new.items() if key not in known[2])
            merged = "instances merged: the same instruction and input, another reference"
            findings.note(merged, row.where)
        else:
            findings.note("instances dropped: exact duplicates", row.where)
    if task.is_cls is None:
        task.is_cls = row.is_classification
    elif row.is_classification not in (None, task.is_cls):
        findings.note("labels that contradict an earlier one, which counts", row.where)
    said = {"App": row.motivation_app, "Source": file, "URL": row.website}
    for key, value in {**said, "Instance License": row.license}.items():
        if value:
            task.said[key][value] = None
