"""Rows of a dataset -> instances and label space, by the rules of the authors' organize_data.py."""

import math
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.proposal import Proposal

from ait_jax.pool import Instance
from ait_jax.runtime.strict_json import without_lone_surrogates

_MAX_LENGTH = 2000
_MAX_LABELS = 10
_MAX_LABEL_LENGTH = 15
# The most that one of two labels, or of more, may count among the first 100 rows.
_MOST_OF_TWO, _MOST_OF_SEVERAL = 70, 50
_ROWS_FOR_BALANCE = 100
# Fewer rows cannot tell whether there are more than ten labels, or which.
_ROWS_FOR_LABELS = _MAX_LABELS + 1
_TOLD = "Answers must be one of"

# Whose rules say which instances and tasks are left out: this project's, or those of Dynosaur's
# code to the letter.
OWN, AUTHORS = "own", "authors"
FILTERS = (OWN, AUTHORS)


def instances(
    proposal: Proposal,
    rows: Sequence[Mapping[str, Any]],
    count: Callable[[str], None] = lambda reason: None,
    filters: str = OWN,
) -> list[Instance]:
    """Makes the instances of a proposal from the rows of its dataset.

    A single input field is written as it is, several as "field is 'value'. " each, without white
    space around the values. Lists of strings become "'a', 'b'. ", or " A. 'a', B. 'b'." if the
    field is called choices, and are not named. Rows with another type or an empty input are left
    out; `count` is called with each row's "kept" or reason. Input and output are cut to 2,000
    characters.

    Args:
      filters: one of FILTERS. OWN leaves out rows with an empty output, and those with the texts of
        an earlier row. AUTHORS keeps both, and stops at the first output of another type.
    """
    made: list[Instance] = []
    seen = set()
    for index, row in enumerate(rows):
        text = _input(proposal, row)
        output = _scalar_text(row.get(proposal.output_field[0])) if proposal.output_field else None
        if text is None:
            reason = "input missing or of another type"
        elif output is None:
            reason = "output missing or of another type"
        elif not text:
            reason = "input empty"
        elif filters == OWN and not output:
            reason = "output empty"
        elif filters == OWN and (text, output) in seen:
            reason = "duplicate"
        else:
            reason = "kept"
            seen.add((text, output))
            text, output = (without_lone_surrogates(t[:_MAX_LENGTH]) for t in (text, output))
            made.append(Instance(str(index), text, (output,)))
        count(reason)
        if filters == AUTHORS and _is_of_another_type(proposal, row):
            break
    return made


def _is_of_another_type(proposal: Proposal, row: Mapping[str, Any]) -> bool:
    output = row.get(proposal.output_field[0]) if proposal.output_field else None
    return not isinstance(output, (str, bool, int, float))


def _scalar_text(value: Any) -> str | None:
    """Returns a scalar as text, without white space around it; None for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return None


def _input(proposal: Proposal, row: Mapping[str, Any]) -> str | None:
    parts = []
    for name in proposal.input_fields:
        value = _value(name, row.get(name))
        if value is None:
            return None
        if len(proposal.input_fields) == 1 and not proposal.context:
            return value
        # Lists stand without their names, as in the authors' code.
        parts.append(value if isinstance(row[name], list) else f"{name} is '{value}'. ")
    return proposal.context + "".join(parts)


def _value(name: str, value: Any) -> str | None:
    if not isinstance(value, list):
        return _scalar_text(value)
    if not value or not all(isinstance(item, str) for item in value):
        return None
    if "choice" in name and len(value) <= len(string.ascii_uppercase):
        lettered = zip(string.ascii_uppercase, value, strict=False)
        return " " + ", ".join(f"{letter}. '{item}'" for letter, item in lettered) + "."
    return ", ".join(f"'{item}'" for item in value) + ". "


@dataclass(frozen=True)
class LabelSpace:
    """What Dynosaur's label-space rule says: few outputs must be balanced, and are named.

    Attributes:
      rejection: why the task is dropped, or "".
      suffix: what is appended to the instruction, or "".
      is_cls: whether the outputs are a closed set of labels that the instruction names.
      unknown: why the balance of the labels is unknown, or "".
    """

    rejection: str = ""
    suffix: str = ""
    is_cls: bool = False
    unknown: str = ""


def label_space(proposal: Proposal, dataset: Dataset, filters: str = OWN) -> LabelSpace:
    """Applies the rule to the output column of a proposal.

    Labels are named in ascending order; the authors' order is that of a Python set, which differs
    from run to run. Without rows, classes are named as the dataset names them.

    Args:
      filters: one of FILTERS. OWN takes no account of rows whose output is null, and judges no
        dataset of fewer than eleven rows. AUTHORS drops the task for a null, and judges any.
    """
    if proposal.generator == "released":  # the authors applied the rule before the release
        return LabelSpace(is_cls=_TOLD in proposal.instruction)
    output = proposal.output_field[0]
    if not dataset.rows:
        field = dataset.field(output)
        labels = ("True", "False") if field.kind == "boolean" else field.labels
        is_few = 2 <= len(labels) <= _MAX_LABELS
        return _named(labels if is_few else (), "balance unknown: no rows")
    values = [row.get(output) for row in dataset.rows]
    if filters == OWN:
        values = [value for value in values if value is not None]
        if not values:
            return LabelSpace("output: empty in all rows")
    if filters == OWN and len(values) < _ROWS_FOR_LABELS:
        return LabelSpace(unknown=f"balance unknown: fewer than {_ROWS_FOR_LABELS} rows")
    texts = [_scalar_text(value) for value in values[:_ROWS_FOR_BALANCE]]
    if None in texts:
        return LabelSpace("output: neither text, number nor boolean")
    counts = Counter(text for text in texts if text is not None)
    if len(counts) > _MAX_LABELS:
        return LabelSpace()
    if len(counts) == 1:
        return LabelSpace("labels: only one")
    if max(counts.values()) > (_MOST_OF_TWO if len(counts) == 2 else _MOST_OF_SEVERAL):
        return LabelSpace("labels: out of balance")
    return _named(sorted(counts))


def _named(labels: Sequence[str], unknown: str = "") -> LabelSpace:
    if not labels or any(not 0 < len(label) <= _MAX_LABEL_LENGTH for label in labels):
        return LabelSpace(unknown=unknown)
    suffix = f" {_TOLD} {', '.join(labels)}."
    return LabelSpace(suffix=suffix, is_cls=True, unknown=unknown)
