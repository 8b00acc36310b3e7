"""What a model is asked: design tasks for a dataset, with and without its description.

The form is that of Dynosaur's code: two demonstrations, then the dataset, as dictionaries.
The demonstrations are this project's own.
"""

import json
from collections.abc import Mapping
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset

STYLES = ("description-aware", "description-unaware")
SYSTEM = "You are a helpful assistant for task design."
MAX_TOKENS = 256
_MAX_TEXT = 1000
_ROWS = 2

_OPENING = {
    "description-aware": "Given a dictionary containing a dataset description and a few examples",
    "description-unaware": "Given a few examples of a dataset",
}
_ASK = (
    "{opening}, design up to three different tasks based on this dataset. Each task should still "
    "be a dictionary, including the instruction, input fields and one output field."
)
_NOTE = (
    "Note that the input and output fields should not be duplicated and should both appear in "
    "{fields}. Each task should still be a dictionary, containing no text or explanations outside "
    "the dictionary.\n\nTasks:"
)
_DEMONSTRATIONS: dict[str, tuple[tuple[dict[str, Any], tuple[dict[str, Any], ...]], ...]] = {
    "description-aware": (
        (
            {
                "task_name": "museum_questions",
                "selected_data": [
                    {
                        "label_text": "The kettle was cast in 1790 and used on board a whaler.",
                        "question": "Where was the kettle used?",
                        "reply": "on board a whaler",
                    }
                ],
                "summary": "Questions of visitors about the labels beside a museum's objects.",
            },
            (
                {
                    "instruction": "Answer the visitor's question from the text of the label.",
                    "input_fields": ["label_text", "question"],
                    "output_field": ["reply"],
                },
                {
                    "instruction": "Ask a question about the label that has the given answer.",
                    "input_fields": ["label_text", "reply"],
                    "output_field": ["question"],
                },
            ),
        ),
        (
            {
                "task_name": "claims_and_reports",
                "selected_data": [
                    {
                        "report": "Rain fell on nine days of the month, mostly at night.",
                        "claim": "It rained every day.",
                        "verdict": "refuted",
                        "reason": "Only nine days had rain.",
                    }
                ],
                "summary": "Claims that weather reports support or refute, and the reasons.",
            },
            (
                {
                    "instruction": "Decide whether the report supports or refutes the claim.",
                    "input_fields": ["report", "claim"],
                    "output_field": ["verdict"],
                },
                {
                    "instruction": "Write a claim on which the report gives the stated verdict.",
                    "input_fields": ["report", "verdict"],
                    "output_field": ["claim"],
                },
                {
                    "instruction": "Explain why the report leads to this verdict on the claim.",
                    "input_fields": ["report", "claim", "verdict"],
                    "output_field": ["reason"],
                },
            ),
        ),
    ),
    "description-unaware": (
        (
            {
                "task_name": "shop_sums",
                "selected_data": [
                    {
                        "problem": "Pens cost 2 coins each. What do 7 pens cost?",
                        "working": "7 pens at 2 coins each: 7 * 2 = 14.",
                        "result": "14",
                    }
                ],
            },
            (
                {
                    "instruction": "Solve the word problem and show the working.",
                    "input_fields": ["problem"],
                    "output_field": ["working"],
                },
                {
                    "instruction": "Read the result off the working of the sum.",
                    "input_fields": ["working"],
                    "output_field": ["result"],
                },
            ),
        ),
        (
            {
                "task_name": "words_to_sentences",
                "selected_data": [
                    {"words": ["boat", "lake", "row"], "sentence": "They row a boat on the lake."}
                ],
            },
            (
                {
                    "instruction": "Write a sentence of daily life that uses all of the words.",
                    "input_fields": ["words"],
                    "output_field": ["sentence"],
                },
                {
                    "instruction": "List the content words of the sentence.",
                    "input_fields": ["sentence"],
                    "output_field": ["words"],
                },
            ),
        ),
    ),
}


def conversation(dataset: Dataset, style: str) -> tuple[Mapping[str, str], ...] | str:
    """Returns the messages that ask for tasks of `dataset`, or why there are none.

    Two rows at most, every text cut to 1,000 characters; fields whose name contains "id",
    nested ones and nulls are left out, and a dataset with one field left is not asked about.
    Where there are no rows (the TFDS catalogue) the row is made of the fields' types and the
    names of classes.

    Args:
      dataset: that tasks are wanted of.
      style: one of STYLES. The aware one needs a description.
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
    ask = _ASK.format(opening=_OPENING[style])
    parts = [f"{ask}\n"]
    for shown, tasks in _DEMONSTRATIONS[style]:
        answer = "\n".join(json.dumps(task) for task in tasks)
        parts.append(f"{_question(shown, list(shown['selected_data'][0]))}\n{answer}\n")
    parts.append(_question(about, fields))
    return (
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n".join(parts)},
    )


def _question(about: Mapping[str, Any], fields: list[str]) -> str:
    shown = json.dumps(about, ensure_ascii=False)
    return f"Dictionary: {shown}\n\n{_NOTE.format(fields=json.dumps(fields, ensure_ascii=False))}"


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
