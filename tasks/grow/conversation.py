"""The question to a model: design tasks for a dataset, with or without its description.

The form is that of Dynosaur's code: two demonstrations, then the dataset, as dictionaries.
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


def _demonstration(shown: Mapping[str, Any]) -> str:
    """Returns a dataset as the model sees it, and an answer to it."""
    answer = []
    for instruction, columns in shown["tasks"].items():
        *inputs, output = columns.split()
        task = {"instruction": instruction, "input_fields": inputs, "output_field": [output]}
        answer.append(json.dumps(task) + "\n")
    about = {"task_name": shown["task_name"], "selected_data": [shown["row"]]}
    if "summary" in shown:
        about["summary"] = shown["summary"]
    return f"{_question(about, list(shown['row']))}\n{''.join(answer)}"


def conversation(dataset: Dataset, style: str) -> tuple[Mapping[str, str], ...] | str:
    """Returns the messages that ask for tasks of `dataset`, or why there are none.

    They show at most two rows, every text cut to 1,000 characters. Fields whose name contains
    "id", nested ones and nulls are left out; a dataset with one field left is not asked about. If
    there are no rows (the TFDS catalog), types and class names stand in for them. The style (one of
    STYLES) "description-aware" needs a description.
    """
    if style == "description-aware" and not dataset.description.strip():
        return "no description"
    rows = [_row(row) for row in dataset.rows[:_ROWS]] or [_row_of_types(dataset)]
    fields = list(rows[0])
    if len(fields) <= 1:
        return "at most one field left"
    about: dict[str, Any] = {"task_name": dataset.name[:_MAX_TEXT], "selected_data": rows}
    if style == "description-aware":
        about["summary"] = " ".join(dataset.description.split())[:_MAX_TEXT]
    parts = [_TEXTS["ask"].format(opening=_TEXTS["opening"][style]) + "\n"]
    parts += map(_demonstration, _TEXTS[style])
    parts.append(_question(about, fields))
    return (
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n".join(parts)},
    )


def _question(about: Mapping[str, Any], fields: list[str]) -> str:
    shown = json.dumps(about, ensure_ascii=False)
    note = _TEXTS["note"].format(fields=json.dumps(fields, ensure_ascii=False))
    return f"Dictionary: {shown}\n\n{note}\n\nTasks:"


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in row.items():
        if "id" in str(name).lower():
            continue
        if isinstance(value, str):
            kept[str(name)] = value[:_MAX_TEXT]
        elif isinstance(value, (bool, int, float)):
            kept[str(name)] = value
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            kept[str(name)] = _cut_list(value)
    return kept


def _cut_list(texts: list[str]) -> list[str]:
    kept, left = [], _MAX_TEXT
    for text in texts:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return kept


def _row_of_types(dataset: Dataset) -> dict[str, Any]:
    types = {"text": "(a text)", "number": "(a number)", "boolean": "(True or False)"}
    row: dict[str, Any] = {}
    for field in dataset.fields:
        if "id" in field.name.lower() or field.kind in ("nested", "media", "other"):
            continue
        if field.kind == "texts":
            row[field.name] = ["(a text)", "(another text)"]
        elif field.kind == "label":
            row[field.name] = f"(one of: {', '.join(field.labels)})"[:_MAX_TEXT]
        else:
            row[field.name] = types[field.kind]
    return row
