"""What is known of a dataset before tasks are made from it, and what became of what was read."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import shown
from ait_jax.runtime.strict_json import without_lone_surrogates

# Kinds of fields. "texts" are lists of strings; "media" is image, audio or video; "other" is
# what cannot be written as text (tensors, bytes).
KINDS = ("text", "texts", "label", "boolean", "number", "nested", "media", "other")

_MEDIA_WORDS = ("image", "audio", "video")
# A column of texts holds classes if at least this many rows have this few, this short values.
_ROWS_FOR_CLASSES, _MOST_CLASSES, _LONGEST_CLASS = 20, 10, 40
_EXAMPLES, _LONGEST_EXAMPLE = 3, 120


@dataclass(frozen=True)
class Field:
    """A column of a dataset: its name, one of KINDS, and the class names of a "label"."""

    name: str
    kind: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of field {shown(self.kind)}")


@dataclass(frozen=True)
class Dataset:
    """One configuration of a dataset: its metadata, and rows if there are any.

    Attributes:
      name: unique in its source; the authors' `task_name` ("<dataset>-<configuration>").
      source: where the metadata came from: "tfds 4.9.10", the name of a file or folder.
      description: what it says about itself, the authors' `summary`.
      fields: the columns.
      license: as its source states it; "" if it states none.
      languages: codes ("en"); empty if it names none.
      website: its page.
      rows: examples, in the dataset's order; at most the first 100 are ever used.
      task_categories: as its source names them.
      family: the dataset of which this is one configuration.
    """

    name: str
    source: str
    description: str = ""
    fields: tuple[Field, ...] = ()
    license: str = ""
    languages: tuple[str, ...] = ()
    website: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    task_categories: tuple[str, ...] = ()
    family: str = ""

    @property
    def field_names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field:
        """Returns the field called `name`. Raises KeyError."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def with_rows(self, other: "Dataset") -> "Dataset":
        """Returns this dataset with the rows of `other`, and whatever only `other` knows."""
        return dataclasses.replace(
            self,
            rows=other.rows,
            fields=self.fields or other.fields,
            license=self.license or other.license,
            languages=self.languages or other.languages,
            website=self.website or other.website,
            description=self.description or other.description,
        )


def fields_from_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Returns the columns of the first row (as in the authors' code), their kinds from all rows.

    A column's kind is that of its first value that is not null; columns of nulls alone are
    "nested", which nothing uses. A few short texts that recur in many rows are classes.
    """
    fields = []
    for name in rows[0] if rows else ():
        kind = _kind(name, rows)
        labels = _labels([row.get(name) for row in rows]) if kind == "text" else ()
        fields.append(class_field(str(name), labels) if labels else Field(str(name), kind))
    return tuple(fields)


def _labels(values: Sequence[Any]) -> tuple[str, ...]:
    texts = [value.strip() for value in values if isinstance(value, str)]
    distinct = sorted(set(texts))
    few = len(texts) >= _ROWS_FOR_CLASSES and 2 <= len(distinct) <= _MOST_CLASSES
    return tuple(distinct) if few and max(map(len, distinct)) <= _LONGEST_CLASS else ()


def _kind(name: Any, rows: Iterable[Mapping[str, Any]]) -> str:
    if is_media(str(name)):
        return "media"
    value = next((row[name] for row in rows if row.get(name) is not None), None)
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "texts"
    return "nested"


def is_media(name: str) -> bool:
    """Whether a column's name says image, audio or video."""
    return any(word in name.lower() for word in _MEDIA_WORDS)


def class_field(name: str, labels: tuple[str, ...]) -> Field:
    """Returns a field of classes, or of numbers if the classes have no names of their own."""
    named = len(labels) >= 2 and not all(re.fullmatch(r"-?[\d.]+", label) for label in labels)
    return Field(name, "label", labels) if named else Field(name, "number")


class Tally:
    """Counts what became of lines, datasets, answers, tasks and rows.

    Attributes:
      groups: group ("datasets", "rows", ...) -> reason -> {"count", "examples"}, each in order of
        first occurrence. What was kept is counted like what was left out.
    """

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, dict[str, Any]]] = {}

    def add(self, group: str, reason: str, example: str = "") -> None:
        """Counts one more; the first few examples of a reason are remembered."""
        reasons = self.groups.setdefault(group, {})
        entry = reasons.setdefault(reason, {"count": 0, "examples": []})
        entry["count"] += 1
        if example and len(entry["examples"]) < _EXAMPLES:
            entry["examples"].append(without_lone_surrogates(example[:_LONGEST_EXAMPLE]))

    def counts(self, group: str) -> dict[str, int]:
        """Returns reason -> count."""
        return {reason: entry["count"] for reason, entry in self.groups.get(group, {}).items()}

    def table(self) -> str:
        """Returns the counts as one table, the groups as headings."""
        rows = [(group, self.counts(group)) for group in self.groups]
        width = max((len(f"{n:,}") for _, counts in rows for n in counts.values()), default=1)
        lines = []
        for group, counts in rows:
            lines.append(f"{group}:")
            lines += [f"  {count:>{width},}  {reason}" for reason, count in counts.items()]
        return "\n".join(lines)
