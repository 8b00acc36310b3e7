"""What is known of a dataset before any task is made of it."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Kinds of fields. "texts" are lists of strings; "media" is image, audio or video; "other" is
# what no text can be made of (tensors, bytes).
KINDS = ("text", "texts", "label", "boolean", "number", "nested", "media", "other")
SCALARS = ("text", "label", "boolean", "number")

_MEDIA_WORDS = ("image", "audio", "video")
# A column of texts is one of classes if so many rows have so few and short values.
_ROWS_FOR_CLASSES, _MOST_CLASSES, _LONGEST_CLASS = 20, 10, 40


@dataclass(frozen=True)
class Field:
    """A column of a dataset.

    Attributes:
      name: of the column.
      kind: one of KINDS.
      labels: names of the classes of a "label".
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of field {self.kind!r}")


@dataclass(frozen=True)
class Dataset:
    """One configuration of a dataset: the metadata, and rows where there are any.

    Attributes:
      name: unique in its source; the authors' `task_name` ("<dataset>-<configuration>").
      source: where the metadata came from: "tfds 4.9.10", the name of a file or folder.
      description: what it says about itself, the authors' `summary`.
      fields: the columns.
      licence: as its source states it; "" if it states none.
      languages: codes ("en"); none if it names none.
      website: its page.
      rows: examples, in the dataset's order; the first 100 at most are ever used.
      task_categories: as its source names them.
      family: the dataset of which this is one configuration.
    """

    name: str
    source: str
    description: str = ""
    fields: tuple[Field, ...] = ()
    licence: str = ""
    languages: tuple[str, ...] = ()
    website: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    task_categories: tuple[str, ...] = ()
    family: str = ""

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field:
        """Returns the field called `name`. Raises KeyError."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def with_rows(self, other: "Dataset") -> "Dataset":
        """Returns this dataset with the rows of `other`, and what it did not know itself."""
        return dataclasses.replace(
            self,
            rows=other.rows,
            fields=self.fields or other.fields,
            licence=self.licence or other.licence,
            languages=self.languages or other.languages,
            website=self.website or other.website,
            description=self.description or other.description,
        )


def fields_from_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Returns the columns of the first row, with kinds by the values of all rows.

    As in the authors' code the first row says which columns there are. A column's kind is that
    of its first value that is not null; columns of nulls alone are "nested", which no
    prompt and no template uses. Texts of which a few short ones come again and again are classes.
    """
    if not rows:
        return ()
    fields = []
    for name in rows[0]:
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
    """Returns a field of classes; one of numbers where the classes have no names of their own."""
    named = len(labels) >= 2 and not all(re.fullmatch(r"-?[\d.]+", label) for label in labels)
    return Field(name, "label", labels) if named else Field(name, "number")
