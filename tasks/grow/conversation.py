"""The question to a model: design tasks for a dataset, with or without its description.

The frame is that of Dynosaur's code: two numbered examples of input and tasks, then the dataset.
All are dictionaries as Python writes them, the tasks under "task1", "task2" and so on. The
sentences and examples are this project's own (question.toml).
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset

STYLES = ("description-aware", "description-unaware")
MAX_TOKENS = 256
_MAX_TEXT = 1000
_ROWS = 2
_TEXTS = tomllib.loads(Path(__file__).with_name("question.toml").read_text(encoding="utf-8"))
SYSTEM: str = _TEXTS["system"]


def conversation(dataset: Dataset, style: str) -> tuple[Mapping[str, str], ...] | str:
    """Returns the messages that ask for tasks of `dataset`, or why there are none.

    They show name, license and website, each cut to 1,000 characters, and at most two rows. Fields
    whose name contains "id", nested ones and nulls are left out; a dataset with one field left is
    not asked about. If there are no rows (the TFDS catalog), types and class names stand in for
    them. The style (one of STYLES) "description-aware" needs a description.
    """
    aware = style == "description-aware"
    if aware and not dataset.description.strip():
        return "no description"
    rows = [_row(row) for row in dataset.rows[:_ROWS]] or [_row_of_types(dataset)]
    if len(rows[0]) <= 1:
        return "at most one field left"
    about: dict[str, Any] = {
        "task_name": dataset.name[:_MAX_TEXT],
        "selected_data": rows,
        **({"summary": dataset.description[:_MAX_TEXT]} if aware else {}),
        "license": dataset.license[:_MAX_TEXT],
        "website": dataset.website[:_MAX_TEXT],
    }
    parts = [_TEXTS["ask"].format(opening=_TEXTS["opening"][style])]
    for number, shown in enumerate(_TEXTS[style], start=1):
        parts += [f"Example {number}:\nInput:\n{_input(shown)}", f"Tasks:\n{_tasks(shown)}"]
    parts += [_TEXTS["then"], f"Input:\n{about}"]
    parts += [_TEXTS["note"].format(fields=list(rows[0])), "Tasks:"]
    return (
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n\n".join(parts)},
    )


def _input(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the dataset of a demonstration as the model sees it."""
    about = {"task_name": shown["task_name"], "selected_data": [dict(shown["row"])]}
    return about | {key: shown[key] for key in ("summary", "license", "website") if key in shown}


def _tasks(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tasks of a demonstration."""
    tasks = {}
    for number, (instruction, columns) in enumerate(shown["tasks"].items(), start=1):
        *inputs, output = columns.split()
        task = {"instruction": instruction, "input_fields": inputs, "output_field": [output]}
        tasks[f"task{number}"] = task
    return tasks


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in row.items():
        if "id" in str(name):
            continue
        if isinstance(value, (str, bool, int, float)):
            kept[str(name)] = str(value).strip()[:_MAX_TEXT]
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            kept[str(name)] = _cut(list(enumerate(value)), list)
        elif isinstance(value, dict) and all(map(_is_scalar, value.values())):
            kept[str(name)] = _cut(list(value.items()), dict)
    return kept


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _cut(pairs: list[tuple[Any, Any]], kind: type[list[Any]] | type[dict[Any, Any]]) -> Any:
    """Returns the first items of a list or dictionary that 1,000 characters of JSON hold."""
    made: Any = kind()
    for count in range(1, len(pairs) + 1):
        first = dict(pairs[:count])
        more: Any = list(first.values()) if kind is list else first
        if len(json.dumps(more)) > _MAX_TEXT:
            break
        made = more
    return made


def _row_of_types(dataset: Dataset) -> dict[str, Any]:
    types = {"text": "(a text)", "number": "(a number)", "boolean": "(True or False)"}
    row: dict[str, Any] = {}
    for field in dataset.fields:
        if "id" in field.name or field.kind in ("nested", "media", "other"):
            continue
        if field.kind == "texts":
            row[field.name] = ["(a text)", "(another text)"]
        elif field.kind == "label":
            row[field.name] = f"(one of: {', '.join(field.labels)})"[:_MAX_TEXT]
        else:
            row[field.name] = types[field.kind]
    return row
