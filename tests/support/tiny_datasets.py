"""Small datasets in the forms that `ait-jax grow` reads, for the tests."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WORDS = "red green blue warm cold quick slow round flat bright dark loud".split()

CARD = """\
---
license: cc-by-4.0
language:
- en
task_categories:
- question-answering
dataset_info:
  features:
  - name: context
    dtype: string
  - name: question
    dtype: string
  - name: answer
    dtype: string
  - name: kind
    dtype:
      class_label:
        names:
          '0': place
          '1': person
---
# Dataset Card

## Dataset Description
### Dataset Summary

Questions about lakes,
and their answers.

## Next
text
"""


def reviews(name: str = "shop_reviews", num_rows: int = 40, **changed: Any) -> dict[str, Any]:
    """Returns a line of huggingface_data.jsonl: reviews with a balanced label of two."""
    rows = [
        {
            "review": f"The {WORDS[i % 12]} kettle number {i} works.",
            "label": ("good", "bad")[i % 2],
            "product_id": i,
        }
        for i in range(num_rows)
    ]
    line = {
        "task_name": name,
        "selected_data": rows,
        "multilinguality": "english",
        "summary": "Reviews of kettles from a shop.",
        "license": "mit",
        "website": f"https://example.org/{name}",
    }
    return {**line, **changed}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """Writes a JSONL file; bytes go in as they are."""
    with open(path, "wb") as file:
        for line in lines:
            file.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    return path


def instruction(name: str = "shop_reviews", **changed: Any) -> dict[str, Any]:
    """Returns an entry of instructions-full.json."""
    entry = {
        "input_fields": ["review"],
        "output_field": ["label"],
        "task_name": name,
        "instruction": "Is the review good? Answers must be one of good, bad.",
    }
    return {**entry, **changed}


def write_card(folder: Path, name: str = "lakes", text: str | bytes = CARD) -> None:
    path = folder / name / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
