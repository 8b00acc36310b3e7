"""Dynosaur's label-space rule: few outputs must be balanced, and are told in the instruction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.tasks.grow.dataset import Field
from ait_jax.tasks.grow.instances import scalar_text

MAX_LABELS = 10
MAX_LABEL_LENGTH = 15
# The most that one of two labels, or of more, may count among the first 100 rows.
_MOST_OF_TWO, _MOST_OF_SEVERAL = 70, 50
ROWS = 100


@dataclass(frozen=True)
class LabelSpace:
    """What the rule says of a task.

    Attributes:
      rejection: why the task is dropped, or "".
      suffix: what is appended to the instruction, or "".
      is_cls: whether the outputs are a closed set of labels that the instruction names.
    """

    rejection: str = ""
    suffix: str = ""
    is_cls: bool = False


def from_rows(values: Sequence[Any]) -> LabelSpace:
    """Applies the authors' organize_data.py to an output column.

    Labels are named in ascending order; the authors' order is that of a Python set, which
    differs from one run to the next.

    Args:
      values: the column in the rows at hand; the first 100 count.
    """
    texts = [scalar_text(value) for value in values[:ROWS]]
    if any(text is None for text in texts):
        return LabelSpace("output: neither text, number nor boolean")
    counts = Counter(text.strip() for text in texts)
    if len(counts) > MAX_LABELS:
        return LabelSpace()
    if len(counts) == 1:
        return LabelSpace("labels: only one")
    most = _MOST_OF_TWO if len(counts) == 2 else _MOST_OF_SEVERAL
    if max(counts.values()) > most:
        return LabelSpace("labels: out of balance")
    return _named(sorted(counts))


def from_field(field: Field) -> LabelSpace:
    """The same without rows, where nothing can be said of the balance: by the classes' names."""
    labels = ("True", "False") if field.kind == "boolean" else field.labels
    if not 2 <= len(labels) <= MAX_LABELS:
        return LabelSpace()
    return _named(labels)


def _named(labels: Sequence[str]) -> LabelSpace:
    if any(len(label) > MAX_LABEL_LENGTH or not label for label in labels):
        return LabelSpace()
    return LabelSpace(suffix=f" Answers must be one of {', '.join(labels)}.", is_cls=True)
