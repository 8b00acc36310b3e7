"""Rows of instruction data, in files of any kind (`row_files`) and with any columns (`columns`).

Beside rows of one answer, Self-Instruct's of several instances (arXiv 2212.10560):

    {"instruction",                              seed_tasks.jsonl,
     "instances": [{"input", "output"}, ...]}    user_oriented_instructions.jsonl

`input` may be absent, null or empty; `output` may be a list of references. A system text comes
before the instruction; what was said earlier in a conversation is its input. Text is data: it is
parsed as JSON and never evaluated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ait_jax.errors import shown
from ait_jax.pool import row_files
from ait_jax.pool.chat_rows import NoConversation, exchange, pairs
from ait_jax.pool.columns import Columns, Parts, advice, may_hold_an_answer, parts_of
from ait_jax.pool.row_files import Broken
from ait_jax.pool.task import is_nan, kind_of
from ait_jax.runtime.files import text_name
from ait_jax.runtime.strict_json import without_lone_surrogates

# Read beside the parts, and fields of released files that tasks do not need.
_ALSO_USED = {"id", "instances", "is_classification", "motivation_app", "license", "website"}
_UNUSED = {"name", "taskname", "text", "prompt", "most_similar", "avg_similarity_score",
           "request_idx", "metadata", "instruction_metadata", "instance_metadata"}  # fmt: skip
# Alpaca's generator writes this for tasks without input (its `post_process` removes it).
_NO_INPUT = "<noinput>"
USUAL = Columns()


class Kind(TypedDict):
    """Rows of one kind: how many, and the place and details of the first."""

    count: int
    first: str


@dataclass
class Findings:
    """What was wrong with a pool's files, or left out.

    Attributes:
      bad: reason -> how many malformed rows, and the first.
      noted: likewise of what is in order but worth reporting: duplicates dropped, unused fields.
    """

    bad: dict[str, Kind] = field(default_factory=dict)
    noted: dict[str, Kind] = field(default_factory=dict)

    def add_bad(self, reason: str, first: str) -> None:
        """Counts a bad row; `first` is kept for the first of its kind."""
        self.bad.setdefault(reason, {"count": 0, "first": first})["count"] += 1

    def note(self, reason: str, first: str) -> None:
        """Counts something worth reporting."""
        self.noted.setdefault(reason, {"count": 0, "first": first})["count"] += 1

    @property
    def num_bad(self) -> int:
        """How many rows are bad."""
        return sum(entry["count"] for entry in self.bad.values())

    @staticmethod
    def describe(group: Mapping[str, Kind]) -> list[str]:
        """Returns a line for each reason of `bad` or `noted`."""
        return [
            f"{entry['count']:,} {reason}; the first: {entry['first']}"
            for reason, entry in group.items()
        ]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      where: file and line, or row.
      instruction: stripped, not empty.
      instances: (input, references) pairs, at least one; references may be empty.
      identity: the row's id, or "".
      is_classification: None if the row does not say.
      motivation_app, license, website: "" if absent.
    """

    where: str
    instruction: str
    instances: tuple[tuple[str, tuple[str, ...]], ...]
    identity: str = ""
    is_classification: bool | None = None
    motivation_app: str = ""
    license: str = ""
    website: str = ""


class BadRow(Exception):
    """A malformed row: the kind of mistake, and its details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


def read_rows(
    path: Path, findings: Findings, columns: Columns = USUAL, needs_answer: bool = False
) -> Iterator[Row]:
    """Yields the rows of a file; malformed ones are counted in `findings` and left out.

    Args:
      path: of a local file, as `row_files.rows` reads it.
      findings: where what is wrong or worth reporting is counted.
      columns: where a row's parts are.
      needs_answer: whether a row without a column for the answer is malformed.

    Raises:
      UserError: the file cannot be read.
    """
    name = text_name(Path(path.name))
    for place, value in row_files.rows(path):
        where = f"{name}, {place}"
        try:
            yield read_row(value, where, findings, columns, needs_answer)
        except BadRow as bad:
            findings.add_bad(bad.reason, f"{where}: {bad.detail}")


def read_row(
    value: Any, where: str, findings: Findings, columns: Columns = USUAL, needs_answer: bool = False
) -> Row:
    """Returns a row of `row_files.rows`; arguments as of `read_rows`. Raises BadRow."""
    if isinstance(value, Broken):
        raise BadRow(*value)
    try:
        return _Reader(where, findings, columns, needs_answer).row(value)
    except NoConversation as error:
        raise BadRow("conversations that are not read", str(error)) from error


@dataclass(slots=True)
class _Reader:
    """Reads one row; arguments as of `read_rows`."""

    where: str
    findings: Findings
    columns: Columns
    needs_answer: bool

    def row(self, value: Any) -> Row:
        """Returns the row. Raises BadRow, or NoConversation."""
        if not isinstance(value, Mapping):
            raise BadRow("rows of a wrong type", f"a row is an object, found {kind_of(value)}")
        parts = parts_of(value, self.columns)
        if parts is None:
            raise BadRow("rows of another schema", f"no instruction; {advice(value)}")
        several = "instances" in value and not self.columns.names
        instruction, before, answer = self._asked(parts)
        if not several:
            self._check_answer(value, parts)
        for key in value:
            if key not in parts.used and key not in _ALSO_USED and key not in _UNUSED:
                self.findings.note("fields that are not used", f"{self.where}: {shown(key)}")
        label = value.get("is_classification")
        if label is not None:
            _check_type(label, bool, "'is_classification'", "a boolean")
        identity = parts.identity
        return Row(
            where=self.where,
            instruction=instruction,
            instances=(
                self._instances(value, parts)
                if several
                else (self._instance(parts.input, parts.output, before, answer),)
            ),
            # A number will do as an id.
            identity=str(identity) if type(identity) is int else self._text(identity, "id"),
            is_classification=label,
            motivation_app=self._text(value.get("motivation_app"), "motivation_app").strip(),
            license=self._text(value.get("license"), "license").strip(),
            website=self._text(value.get("website"), "website").strip(),
        )

    def _asked(self, parts: Parts) -> tuple[str, str, str | None]:
        """Returns the instruction, what was said before it, and a conversation's answer."""
        system = self._text(parts.system, "system").strip()
        before, answer = "", None
        if parts.messages is not None:
            said = exchange(parts.messages)
            instruction, before, answer = said.instruction, said.before, said.answer
            system = "\n\n".join(filter(None, (system, said.system)))
        else:
            instruction = self._text(parts.instruction, "instruction").strip()
        if not instruction:
            raise BadRow("empty instructions", "field 'instruction' is empty")
        if parts.history and not is_nan(parts.history):
            before = "\n\n".join(filter(None, (pairs(parts.history), before)))
        if before:
            earlier = "conversations of several turns: the last answer counts, the others are input"
            self.findings.note(earlier, self.where)
        mended = without_lone_surrogates
        whole = f"{system}\n\n{instruction}" if system else instruction
        return mended(whole), mended(before), None if answer is None else mended(answer)

    def _check_answer(self, value: Mapping[str, Any], parts: Parts) -> None:
        if parts.has_output:
            return
        if self.needs_answer or may_hold_an_answer(value, parts.used):
            raise BadRow("rows without a column for the answer", advice(value))

    def _instances(
        self, value: Mapping[str, Any], parts: Parts
    ) -> tuple[tuple[str, tuple[str, ...]], ...]:
        if parts.has_output or "input" in value:
            raise BadRow("rows of mixed schemas", "both 'instances' and 'input' or 'output'")
        instances = value["instances"]
        _check_type(instances, list, "'instances'", "a list")
        if not instances:
            raise BadRow("rows without an instance", "'instances' is empty")
        for instance in instances:
            _check_type(instance, Mapping, "an instance", "an object")
        return tuple(self._instance(item.get("input"), item.get("output")) for item in instances)

    def _instance(
        self, given: Any, output: Any, before: str = "", answer: str | None = None
    ) -> tuple[str, tuple[str, ...]]:
        text = self._text(given, "input")
        if text.strip().lower() == _NO_INPUT:
            self.findings.note(f"inputs {shown(_NO_INPUT)} read as none", self.where)
            text = ""
        if before:
            text = f"{before}\n\n{text}" if text.strip() else before
        if answer is not None:
            outputs: tuple[str, ...] = (answer,)
        elif isinstance(output, list):
            outputs = tuple(self._text(item, "output") for item in output)
        else:
            outputs = (self._text(output, "output"),)
        return text if text.strip() else "", tuple(o for o in outputs if o.strip())

    def _text(self, text: Any, part: str) -> str:
        """Returns a part's text, "" where it is absent, null or NaN."""
        if text is None:
            return ""
        if is_nan(text):
            self.findings.note("empty cells (NaN) read as no text", f"{self.where}: {shown(part)}")
            return ""
        _check_type(text, str, repr(part), "a string")
        return without_lone_surrogates(text)


def _check_type(value: Any, kind: type, what: str, needed: str) -> None:
    if not isinstance(value, kind):
        raise BadRow("fields of a wrong type", f"{what} is {kind_of(value)}, not {needed}")
