"""Rows of a dataset -> inputs and outputs, as the authors' organize_data.py writes them."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ait_jax.tasks.grow.proposal import Proposal

from ait_jax.pool.pool import Instance

MAX_LENGTH = 2000


def scalar_text(value: Any) -> str | None:
    """Returns a scalar as text, None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return None


def instances(
    proposal: Proposal,
    rows: Sequence[Mapping[str, Any]],
    count: Callable[[str], None] = lambda reason: None,
) -> list[Instance]:
    """Makes the instances of a proposal.

    The text of one input field stands as it is; of several "field is 'value'. " each. Lists of
    strings become "'a', 'b'. ", or " A. 'a', B. 'b'." where the field is called choices. Rows
    with another type, an empty output or the same text as an earlier row are left out.
    Input and output are cut to 2,000 characters.

    Args:
      proposal: which columns are input and output.
      rows: of its dataset.
      count: is told "kept" or why a row is left out, once for each row.
    """
    made: list[Instance] = []
    seen = set()
    for index, row in enumerate(rows):
        input_text = _input(proposal, row)
        output = scalar_text(row.get(proposal.output_field[0])) if proposal.output_field else None
        reason = "kept"
        if input_text is None:
            reason = "input missing or of another type"
        elif output is None:
            reason = "output missing or of another type"
        elif not output.strip():
            reason = "output empty"
        elif not input_text.strip():
            reason = "input empty"
        elif (input_text, output) in seen:
            reason = "duplicate"
        count(reason)
        if reason == "kept":
            seen.add((input_text, output))
            texts = [_whole(text[:MAX_LENGTH]) for text in (input_text, output)]
            made.append(Instance(str(index), texts[0], (texts[1],)))
    return made


def _whole(text: str) -> str:
    # Halves of surrogate pairs, which JSON can escape, are in no UTF-8 file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _input(proposal: Proposal, row: Mapping[str, Any]) -> str | None:
    fields = proposal.input_fields
    values = [_value(name, row.get(name)) for name in fields]
    if any(value is None for value in values):
        return None
    if len(values) == 1 and not proposal.context:
        return values[0]
    parts = []
    for name, value in zip(fields, values):
        text = f"'{value}'. " if scalar_text(row[name]) is not None else f"{value.strip()} "
        parts.append(f"{name} is {text}")
    return proposal.context + "".join(parts)


def _value(name: str, value: Any) -> str | None:
    if isinstance(value, list):
        if not value or not all(isinstance(item, str) for item in value):
            return None
        if "choice" in name.lower() and len(value) <= len(string.ascii_uppercase):
            lettered = (f"{letter}. '{item}'" for letter, item in zip(_LETTERS, value))
            return f" {', '.join(lettered)}."
        return ", ".join(f"'{item}'" for item in value) + ". "
    return scalar_text(value)


_LETTERS = string.ascii_uppercase
