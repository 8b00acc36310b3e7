"""The roles of a dataset's columns, by name and kind: question, passage, label, ..."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.languages import language_of_column

# Role -> the words that a column of that role ends in, the most reliable first.
_ROLE_WORDS = {
    "question": ("question", "query", "problem", "goal", "questions"),
    "passage": (
        "passage", "context", "paragraph", "article", "document", "story", "report", "documents",
        "email body", "maintext", "book text", "dialogue", "dialog", "conversation", "transcript",
        "body", "chapter", "speech", "contexts", "facts", "support",
    ),
    "answer": (
        "short answer", "final answer", "answer text", "correct answer", "answer", "answers",
        "response", "solution", "result",
    ),
    "summary": (
        "summary", "highlights", "abstract", "headline", "tldr", "subject line", "synopsis",
        "abstractive summary", "section abstract",
    ),
    "title": ("title", "article title", "page title"),
    "premise": ("premise",),
    "hypothesis": ("hypothesis", "claim", "conclusion"),
    "explanation": (
        "explanation", "rationale", "abstractive explanation", "explanation 1", "justification",
        "reasoning", "equation",
    ),
    "choices": ("choices", "options", "endings", "answer choices", "candidates", "answer options"),
    "instruction": ("instruction", "command", "instructions"),
    "keywords": ("concepts", "keywords", "topics", "tags"),
}  # fmt: skip
# Columns that say where a row comes from, not what it says.
_BOOKKEEPING = {
    "id", "ids", "uid", "guid", "uuid", "idx", "index", "url", "link", "links", "uri", "path",
    "file", "filename", "date", "time", "timestamp", "created", "hash", "key", "offset", "start",
    "end", "span", "spans", "permalink", "doi", "license", "version", "split", "source url",
    "username", "ip", "author", "authors", "email", "phone", "docno", "no", "number", "row",
    "sha", "pid", "qid", "name", "names", "ticket", "cabin", "references", "reference", "added",
    "content type", "content length", "midi", "seq", "seq info", "source x", "metadata",
    "provenance", "hypothesis id", "language", "lang", "country", "warning", "question source",
    "domain name", "annotator", "worker", "journal",
}  # fmt: skip
_PLAIN_TEXT = {
    "text", "content", "body", "input text", "texts", "string", "maintext", "text lines", "data",
}  # fmt: skip
_GENERIC = {"input", "output", "target", "source", "x", "y", "inputs", "targets", "input text"}


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
