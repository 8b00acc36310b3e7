"""Tasks, instances and instructions, and NIV2's JSON schema, the exchange format of all pools.

A task's text fields are small and kept in memory; its instances may be lazy (any `Sequence`), so
that a pool of thousands of tasks opens quickly and stays small.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.runtime.files import as_path, check_name, read_given_json
from ait_jax.runtime.strict_json import without_lone_surrogates


@dataclass(frozen=True)
class Example:
    """A worked example inside an instruction."""

    input: str
    output: str
    explanation: str = ""


@dataclass(frozen=True)
class Instance:
    """One input of a task with its reference outputs.

    Without outputs no answer is known: the instance is scored and answered, but not trained on and
    not measured.
    """

    id: str
    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Instruction:
    """What tells the model the task, and what perturbations change: definition and examples."""

    definition: str
    positive_examples: tuple[Example, ...] = ()
    negative_examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task in NIV2's schema.

    `metadata` holds the schema's other list-of-string fields under their NIV2 names (Contributors,
    Source, URL, Reasoning, Domains, Instance License, ...). `further_definitions` are those after
    the first, `instruction.definition`; prompts use only the first, as in the authors' code.
    """

    name: str
    instruction: Instruction
    instances: Sequence[Instance]
    categories: tuple[str, ...] = ()
    input_languages: tuple[str, ...] = ("English",)
    output_languages: tuple[str, ...] = ("English",)
    instruction_languages: tuple[str, ...] = ("English",)
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    further_definitions: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        """The first category, or "Uncategorized"."""
        return self.categories[0] if self.categories else "Uncategorized"


# In NIV2's order, so that files written here differ little from the originals.
_METADATA_BEFORE = ("Contributors", "Source", "URL")
_LANGUAGES = {
    "Input_language": "input_languages",
    "Output_language": "output_languages",
    "Instruction_language": "instruction_languages",
}
_OWN_FIELDS = {
    "Definition",
    "Positive Examples",
    "Negative Examples",
    "Instances",
    "Categories",
    *_LANGUAGES,
}


def read_task(path: Any) -> Task:
    """Reads a task from a JSON file in NIV2's schema; the file's name is the task's name.

    Raises:
      UserError: the file cannot be read, is not UTF-8, is malformed JSON (with line and column), or
        is not a task (with the field); see `task_from_json`.
    """
    path = as_path(path)
    data = read_given_json(path, "the task", lenient=True)
    return task_from_json(data, name=path.name.removesuffix(".json"), source=shown_path(path))


def task_from_json(data: Any, name: str, source: str) -> Task:
    """Returns the task of a JSON object in NIV2's schema.

    Definition, Positive Examples and Instances are required. There may be fewer than two positive
    examples, even none; prompts then have fewer, as in the authors' code. A string is read as a
    list of one where NIV2 has a list of strings. An instance without id is called `<name>-<index>`;
    a repeated id gets `-<index>` appended, because tables are keyed by id. In `metadata`, null and
    NaN (empty cells of a spreadsheet) become "". Lone surrogates, which UTF-8 files cannot hold,
    become U+FFFD.

    Args:
      data: the parsed JSON.
      name: the task's name; checked, because it becomes file names.
      source: where it came from, for messages.

    Raises:
      UserError: names `source` and the field that is missing or of the wrong type.
    """
    check_name(name, f"{source}: task name")
    if not isinstance(data, Mapping):
        raise UserError(f"{source}: a task is a JSON object, found {kind_of(data)}.")
    for required in ("Definition", "Positive Examples", "Instances"):
        if required not in data:
            raise UserError(
                f"{source}: field {shown(required)} is missing." + nearest(required, map(str, data))
            )
    definitions = _texts(data["Definition"], source, "Definition")
    if not definitions:
        raise UserError(f"{source}: field 'Definition' is empty; a task needs one definition.")
    languages = {
        attribute: _texts(data[key], source, key)
        for key, attribute in _LANGUAGES.items()
        if key in data
    }
    return Task(
        name=name,
        instruction=Instruction(
            definition=definitions[0],
            positive_examples=_examples(data["Positive Examples"], source, "Positive Examples"),
            negative_examples=_examples(
                data.get("Negative Examples", []), source, "Negative Examples"
            ),
        ),
        instances=_instances(data["Instances"], name, source),
        categories=_texts(data.get("Categories", []), source, "Categories"),
        metadata={
            key: _metadata(value, source, key)
            for key, value in data.items()
            if key not in _OWN_FIELDS
        },
        further_definitions=definitions[1:],
        **languages,
    )


_KINDS = {
    dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number",
    float: "a number",
}  # fmt: skip


def kind_of(value: Any) -> str:
    """Returns what a JSON value is, in words."""
    if value is None or is_nan(value):
        return "null" if value is None else "NaN"
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


def is_nan(value: Any) -> bool:
    """Whether a value is NaN, which pandas writes for an empty cell of a table."""
    return isinstance(value, float) and math.isnan(value)


def _text(value: Any, source: str, where: str) -> str:
    if not isinstance(value, str):
        empty = '; write "" if there is no text' if value is None or is_nan(value) else ""
        raise UserError(f"{source}: field {where} must be a string, found {kind_of(value)}{empty}.")
    return without_lone_surrogates(value)


def _texts(value: Any, source: str, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise UserError(
            f"{source}: field {where} must be a list of strings, found {kind_of(value)}."
        )
    return tuple(_text(item, source, f"{where}[{i}]") for i, item in enumerate(value))


def _metadata(value: Any, source: str, where: str) -> tuple[str, ...]:
    cells = []
    for item in value if isinstance(value, list) else [value]:
        if item is None or is_nan(item):
            cells.append("")
        else:
            cells.append(str(item) if isinstance(item, (bool, int, float)) else item)
    return _texts(cells, source, where)


def _objects(
    value: Any, source: str, where: str, first: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the place and the value of every example or instance of a list."""
    if not isinstance(value, list):
        raise UserError(
            f"{source}: field {where} must be a list of objects, found {kind_of(value)}."
        )
    for i, item in enumerate(value, start=first):
        if not isinstance(item, Mapping):
            raise UserError(
                f"{source}: field {where}[{i}] must be an object, found {kind_of(item)}."
            )
        for key in ("input", "output"):
            if key not in item:
                raise UserError(f"{source}: field {where}[{i}].{key} is missing.")
        yield f"{where}[{i}]", item


def _examples(value: Any, source: str, where: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            input=_text(item["input"], source, f"{at}.input"),
            output=_text(item["output"], source, f"{at}.output"),
            explanation=_text(item.get("explanation", ""), source, f"{at}.explanation"),
        )
        for at, item in _objects(value, source, where)
    )


def _instances(value: Any, name: str, source: str) -> tuple[Instance, ...]:
    if not isinstance(value, list):
        raise UserError(
            f"{source}: field Instances must be a list of objects, found {kind_of(value)}."
        )
    instances = []
    seen: set[str] = set()
    for i, item in enumerate(value):
        # A task may have millions: places are put into words only for what needs a second look.
        identity, text, outputs = _plain_instance(item) or _instance(item, i, name, source)
        while identity in seen:
            identity = f"{identity}-{i}"
        seen.add(identity)
        instances.append(Instance(identity, text, outputs))
    if not instances:
        raise UserError(
            f"{source}: field 'Instances' is empty; a task needs at least one instance."
        )
    return tuple(instances)


def _plain_instance(item: Any) -> tuple[str, str, tuple[str, ...]] | None:
    """Returns id, input and outputs of an instance that is as NIV2 writes it, in ASCII."""
    if type(item) is not dict or len(item) != 3:
        return None
    identity, text, outputs = item.get("id"), item.get("input"), item.get("output")
    if type(identity) is not str or type(text) is not str or type(outputs) is not list:
        return None
    for part in (identity, text, *outputs):
        if type(part) is not str or not part.isascii():
            return None
    return (identity, text, tuple(outputs)) if outputs else None


def _instance(item: Any, i: int, name: str, source: str) -> tuple[str, str, tuple[str, ...]]:
    ((_, item),) = _objects([item], source, "Instances", first=i)
    at = f"Instances[{i}]"
    outputs = _texts(item["output"], source, f"{at}.output")
    if not outputs:
        raise UserError(
            f"{source}: field {at}.output is empty; an instance needs a reference output."
        )
    identity = _text(item["id"], source, f"{at}.id") if "id" in item else f"{name}-{i}"
    return identity, _text(item["input"], source, f"{at}.input"), outputs


def task_to_json(task: Task) -> dict[str, Any]:
    """Returns all fields of `task` in NIV2's schema; `task_from_json` reverses it."""
    metadata = {key: list(values) for key, values in task.metadata.items()}
    instruction = task.instruction
    before = {key: metadata.pop(key) for key in _METADATA_BEFORE if key in metadata}
    return {
        **before,
        "Categories": list(task.categories),
        "Definition": [instruction.definition, *task.further_definitions],
        **{key: list(getattr(task, attribute)) for key, attribute in _LANGUAGES.items()},
        "Positive Examples": [asdict(example) for example in instruction.positive_examples],
        "Negative Examples": [asdict(example) for example in instruction.negative_examples],
        "Instances": [
            {"id": i.id, "input": i.input, "output": list(i.outputs)} for i in task.instances
        ],
        **metadata,
    }
