"""Rows of instruction data, as JSON lists or JSON lines: Self-Instruct's, Alpaca's and the like.

Two schemas, which may even be mixed in a file (Self-Instruct, arXiv 2212.10560):

    {"instruction", "input", "output"}           all_instances_82K.jsonl, alpaca_data.json
    {"instruction",                              seed_tasks.jsonl,
     "instances": [{"input", "output"}, ...]}    user_oriented_instructions.jsonl

`input` may be absent, null or empty; `output` may be a list of references. Text is data: it is
parsed as JSON and never evaluated.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.tasks.source_files import text_name

from ait_jax.errors import UserError
from ait_jax.pool.task import kind_of, without_lone_surrogates

_USED = {
    "id", "instruction", "input", "output", "instances", "is_classification", "motivation_app",
    "license", "website",
}  # fmt: skip
# Fields of released files that tasks do not need.
_UNUSED = {"name", "taskname", "text", "prompt", "most_similar", "avg_similarity_score",
           "request_idx", "metadata", "instruction_metadata", "instance_metadata"}  # fmt: skip
# `surrogateescape` decodes bytes that are not UTF-8 to these.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_SPACE = (" ", "\t", "\r", "\n")
# Alpaca's generator writes this for tasks without input (its `post_process` removes it).
_NO_INPUT = "<noinput>"


@dataclass
class Findings:
    """What was wrong with a pool's files, or left out.

    Attributes:
      bad: reason -> {"count", "first": place and details of the first case}, of malformed rows.
      noted: likewise of what is in order but worth reporting: duplicates dropped, unused fields.
    """

    bad: dict[str, dict[str, Any]] = field(default_factory=dict)
    noted: dict[str, dict[str, Any]] = field(default_factory=dict)

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
    def describe(group: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Returns a line for each reason of `bad` or `noted`."""
        return [
            f"{entry['count']:,} {reason}; the first: {entry['first']}"
            for reason, entry in group.items()
        ]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      where: file and line.
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


class _Bad(Exception):
    """A malformed row: the kind of mistake, and its details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


def read_rows(path: Path, findings: Findings) -> Iterator[Row]:
    """Yields the rows of a file; malformed ones are counted in `findings` and left out.

    A JSON list that breaks off gives the rows before the break.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix(_BOM)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
    is_utf8 = _NOT_UTF8.search(text) is None
    name = text_name(Path(path.name))
    elements = _list_elements if text.lstrip()[:1] == "[" else _line_elements
    for line, written, value in elements(text):
        where = f"{name}, line {line}"
        try:
            if not is_utf8 and _NOT_UTF8.search(written):
                raise _Bad("rows that are not UTF-8", "save the file as UTF-8")
            if isinstance(value, _Bad):
                raise value
            yield _row(value, where, findings)
        except _Bad as bad:
            findings.add_bad(bad.reason, f"{where}: {bad.detail}")


def _line_elements(text: str) -> Iterator[tuple[int, str, Any]]:
    """Yields (line number, text, value or _Bad) for every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                value = _broken(error)
            yield number, line, value


def _list_elements(text: str) -> Iterator[tuple[int, str, Any]]:
    """Yields the same for every element of a JSON list, up to where it breaks off, if it does."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0

    def skip_space(position: int) -> int:
        nonlocal line, counted
        while text[position : position + 1] in _SPACE:
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        return position

    position = skip_space(text.index("[") + 1)
    is_first = True
    while text[position : position + 1] != "]":
        if not is_first:
            if text[position : position + 1] != ",":
                yield line, text[position:], _lost("expected ',' or ']'")
                return
            position = skip_space(position + 1)
        is_first = False
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, text[position:], _lost(_broken(error).detail)
            return
        yield line, text[position:end], value
        position = skip_space(end)
    rest = text[position + 1 :]
    if rest.strip():
        yield line, rest, _Bad("places of broken JSON", "text after the end of the list")


def _broken(error: Exception) -> _Bad:
    detail = getattr(error, "msg", None) or (
        "nested too deeply" if isinstance(error, RecursionError) else str(error)
    )
    return _Bad("places of broken JSON", detail)


def _lost(detail: str) -> _Bad:
    return _Bad("places of broken JSON", f"{detail}; the rest of the list is lost")


def _row(value: Any, where: str, findings: Findings) -> Row:
    if not isinstance(value, Mapping):
        raise _Bad("rows of a wrong type", f"a row is an object, found {kind_of(value)}")
    if "instruction" not in value:
        fields = ", ".join(map(repr, list(value)[:5])) or "no field"
        raise _Bad("rows of another schema", f"no field 'instruction', but {fields}")
    for key in value:
        if key not in _USED and key not in _UNUSED:
            findings.note("fields that are not used", f"{where}: {key!r}")
    instruction = _text(value, "instruction").strip()
    if not instruction:
        raise _Bad("empty instructions", "field 'instruction' is empty")
    label = value.get("is_classification")
    if label is not None:
        _check_type(label, bool, "'is_classification'", "a boolean")
    identity = value.get("id", "")
    return Row(
        where=where,
        instruction=instruction,
        instances=_instances(value, where, findings),
        # A number will do as an id.
        identity=str(identity) if type(identity) is int else _text(value, "id"),
        is_classification=label,
        motivation_app=_text(value, "motivation_app").strip(),
        license=_text(value, "license").strip(),
        website=_text(value, "website").strip(),
    )


def _instances(
    value: Mapping[str, Any], where: str, findings: Findings
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if "instances" not in value:
        return (_instance(value, where, findings),)
    if "output" in value or "input" in value:
        raise _Bad("rows of mixed schemas", "both 'instances' and 'input' or 'output'")
    instances = value["instances"]
    _check_type(instances, list, "'instances'", "a list")
    if not instances:
        raise _Bad("rows without an instance", "'instances' is empty")
    for instance in instances:
        _check_type(instance, Mapping, "an instance", "an object")
    return tuple(_instance(instance, where, findings) for instance in instances)


def _instance(
    value: Mapping[str, Any], where: str, findings: Findings
) -> tuple[str, tuple[str, ...]]:
    text = _text(value, "input")
    if text.strip().lower() == _NO_INPUT:
        findings.note(f"inputs {_NO_INPUT!r} read as none", where)
        text = ""
    output = value.get("output")
    if isinstance(output, list):
        outputs = tuple(_text({"output": item}, "output") for item in output)
    else:
        outputs = (_text(value, "output"),)
    return text if text.strip() else "", tuple(o for o in outputs if o.strip())


def _check_type(value: Any, kind: type, what: str, needed: str) -> None:
    if not isinstance(value, kind):
        raise _Bad("fields of a wrong type", f"{what} is {kind_of(value)}, not {needed}")


def _text(value: Mapping[str, Any], key: str) -> str:
    """Returns a field's text, "" where it is absent or null."""
    text = value.get(key)
    if text is None:
        return ""
    _check_type(text, str, repr(key), "a string")
    return without_lone_surrogates(text)
