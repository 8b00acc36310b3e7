"""What columns' names say: their roles (question, passage, label, ...) and languages."""

import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ait_jax.tasks.grow.dataset import Dataset, Field

_TEXTS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def _entries(texts: str) -> tuple[str, ...]:
    """Returns the entries of a list of words.toml."""
    return tuple(" ".join(texts.split()).split(", "))


LANGUAGES: dict[str, str] = _TEXTS["languages"]
_ROLE_WORDS = {role: _entries(texts) for role, texts in _TEXTS["roles"].items()}
_BOOKKEEPING, _PLAIN_TEXT, _GENERIC, KINDS, WRITABLE = (
    frozenset(_entries(_TEXTS[name]))
    for name in ("bookkeeping", "plain_text", "generic", "kinds", "writable")
)


@dataclass(frozen=True)
class Roles:
    """The columns of a dataset that templates use.

    Attributes:
      by_role: role -> the column, in the dataset's order.
      texts: all columns of text or lists of texts that say something, in the dataset's order.
      labels: columns of classes.
      booleans: columns of true or false.
      numbers: columns of numbers.
      languages: columns called by a language's code -> the language's name.
      pair: two columns of text that differ in a number or in "good" and "bad", or ().
    """

    by_role: dict[str, Field]
    texts: tuple[Field, ...]
    labels: tuple[Field, ...]
    booleans: tuple[Field, ...]
    numbers: tuple[Field, ...]
    languages: dict[str, str]
    pair: tuple[Field, ...]

    def get(self, role: str) -> Field | None:
        """Returns the column of a role, or None."""
        return self.by_role.get(role)


def roles_of(dataset: Dataset) -> Roles:
    """Returns the roles of a dataset's columns; bookkeeping columns have none."""
    telling = [field for field in dataset.fields if not is_bookkeeping(field.name)]
    texts = tuple(field for field in telling if field.kind in ("text", "texts"))
    languages = {f.name: language_of_column(f.name) for f in texts if f.kind == "text"}
    languages = {name: language for name, language in languages.items() if language}
    if len(languages) < 2:
        languages = {}
    by_role: dict[str, Field] = {}
    for role, endings in _ROLE_WORDS.items():
        field = _ending_in(endings, [t for t in texts if t not in by_role.values()])
        if field:
            by_role[role] = field
    return Roles(
        by_role=by_role,
        texts=texts,
        labels=tuple(field for field in telling if field.kind == "label"),
        booleans=tuple(field for field in telling if field.kind == "boolean"),
        numbers=tuple(field for field in telling if field.kind == "number"),
        languages=languages,
        pair=_pair([field for field in texts if field.kind == "text"]),
    )


def _ending_in(endings: Sequence[str], fields: Sequence[Field]) -> Field | None:
    for ending in endings:
        for field in fields:
            said = words(field.name)
            if said == ending or said.endswith(f" {ending}"):
                return field
    return None


def _pair(fields: Sequence[Field]) -> tuple[Field, ...]:
    stems: dict[str, list[Field]] = {}
    for field in fields:
        said = words(field.name)
        stem = re.sub(r"\s*(\d+|\ba\b|\bb\b|good|bad)$", "", said)
        if stem and stem != said:
            stems.setdefault(stem, []).append(field)
    return next((tuple(pair) for pair in stems.values() if len(pair) == 2), ())


def is_bookkeeping(name: str) -> bool:
    """Whether a column holds identifiers, URLs, dates and the like."""
    said = words(name)
    return not said or said in _BOOKKEEPING or said.split()[-1] in _BOOKKEEPING


def is_generic(field: Field) -> bool:
    """Whether a column's name says nothing about its content."""
    return words(field.name) in _GENERIC


@functools.lru_cache(maxsize=4096)
def words(name: str) -> str:
    """Returns a column's name as words: "emailBody", "email_body" -> "email body"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", " ", name)
    return " ".join(re.split(r"[^A-Za-z0-9]+", spaced)).strip().lower()


def noun(field: Field) -> str:
    """Returns what to call a column in a sentence."""
    said = words(field.name)
    if said in _PLAIN_TEXT:
        return "text"
    return re.sub(r"\s\d+$", "", said) or "text"


def language_name(code: str) -> str:
    """Returns the language of a code, with or without a region; "" if it is no code."""
    return LANGUAGES.get(code.lower().replace("_", "-").partition("-")[0], "")


def language_of_column(name: str) -> str:
    """Returns the language of a column named by its code ("en", "pt_BR", "zh-cn"), or "".

    "az_tr" names two languages, not a region; no sensible task can be made from it.
    """
    is_code = re.fullmatch(r"[a-z]{2}([-_][A-Z]{2}|-[a-z]{2})?", name)
    return language_name(name) if is_code else ""
