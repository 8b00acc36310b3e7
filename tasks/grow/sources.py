"""Where datasets and instructions come from: `--from`, and the files of Dynosaur's authors.

huggingface_metadata.jsonl and huggingface_data.jsonl: one dataset a line, with two rows or with
all; instructions-full.json: a list of the instructions generated from them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow.cards import read_cards
from ait_jax.tasks.grow.dataset import Dataset, Tally, fields_from_rows
from ait_jax.tasks.grow.proposal import Proposal, proposal_from_json

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime import disk, strict_json
from ait_jax.runtime.files import open_regular, read_given_json

_LINES, _RELEASED = "metadata lines", "released instructions"
_MAX_ROWS = 100
_MAX_LINE = 100_000_000
_KNOWN = (
    "tfds, tfds:NAME,NAME, a folder of dataset cards, a JSONL file of datasets "
    "(huggingface_metadata.jsonl) or a JSON file of instructions (instructions-full.json)"
)


@dataclass(frozen=True)
class Source:
    """A `--from` as given, and its kind: "tfds", "cards", "lines" or "instructions"."""

    given: str
    kind: str

    def datasets(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the metadata; "instructions" have none."""
        if self.lines is not None:
            return self.lines.read(tally)
        if self.kind == "cards":
            return read_cards(self.given, tally)
        if self.kind == "tfds":
            from ait_jax.runtime.terminal import quiet_stderr

            with quiet_stderr():
                from ait_jax.tasks.grow import tfds_catalog
            names = [name for name in self.given.partition(":")[2].split(",") if name]
            return tfds_catalog.read_catalog(tally, names)
        return iter(())

    @cached_property
    def lines(self) -> "DatasetLines | None":
        """The datasets by name, if they are lines of a file."""
        return DatasetLines(self.given) if self.kind == "lines" else None

    def proposals(self, tally: Tally) -> Sequence[Proposal]:
        """Returns the instructions that need no generator."""
        return read_instructions(self.given, tally) if self.kind == "instructions" else ()


def source(given: Any) -> Source:
    """Returns the source that a word or a path stands for.

    Raises:
      UserError: it stands for none.
    """
    text = str(given)
    if text == "tfds" or text.startswith("tfds:"):
        return Source(text, "tfds")
    path = disk.local_path(text)
    if path.is_dir():
        return Source(text, "cards")
    if not path.is_file():
        raise UserError(f"--from={text}: no such file or folder. Known sources: {_KNOWN}.")
    with _open(path) as file:
        is_list = file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return Source(text, "instructions" if is_list else "lines")


def _open(path: Path) -> Any:
    try:
        return open_regular(path)
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{shown_path(path)}: cannot read the file: {problem}.") from error


class DatasetLines:
    """A JSONL file of datasets, read line by line; random access by name.

    Lines that are not a dataset, or the second of its name, are skipped and counted by reason.

    Raises:
      UserError: the file cannot be read.
    """

    def __init__(self, path: Any) -> None:
        self._path = disk.local_path(path)
        self._offsets: dict[str, int] | None = None
        _open(self._path).close()

    def read(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the datasets in the file's order; `tally` counts all lines."""
        offsets: dict[str, int] = {}
        with _open(self._path) as file:
            while line := file.readline(_MAX_LINE):
                offset = file.tell() - len(line)
                dataset = _dataset(line, self._path.name)
                if isinstance(dataset, str):
                    if dataset:
                        where = f"{self._path.name}, byte {offset}"
                        tally.add(_LINES, f"unreadable: {dataset}", where)
                elif dataset.name in offsets:
                    tally.add(_LINES, "duplicate: name of an earlier line", dataset.name)
                else:
                    offsets[dataset.name] = offset
                    tally.add(_LINES, "read", dataset.name)
                    yield dataset
        self._offsets = offsets

    def get(self, name: str) -> Dataset | None:
        """Returns the dataset called `name`, or None. The first call reads the whole file."""
        if self._offsets is None:
            for _ in self.read(Tally()):
                pass
        offset = (self._offsets or {}).get(name)
        if offset is None:
            return None
        with _open(self._path) as file:
            file.seek(offset)
            dataset = _dataset(file.readline(_MAX_LINE), self._path.name)
        if isinstance(dataset, str):
            raise UserError(f"{shown(str(self._path))} changed while it was being read; try again.")
        return dataset


def _dataset(line: bytes, source: str) -> Dataset | str:
    """Returns the dataset of a line, or what is wrong with it ("" for an empty line)."""
    if not line.strip():
        return ""
    try:
        data = strict_json.parse(line, lenient=True)
    except strict_json.Unfit as error:
        return "not UTF-8" if error.problem.startswith("not UTF-8") else "malformed JSON"
    if not isinstance(data, dict):
        return "not an object"
    name, rows = data.get("task_name"), data.get("selected_data")
    if not isinstance(name, str) or not name.strip():
        return "no task_name"
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        return "selected_data is not a list"
    rows = [row for row in rows[:_MAX_ROWS] if isinstance(row, dict)]
    if not rows:
        return "selected_data has no rows"
    return Dataset(
        name=name.strip(),
        source=source,
        description=" and ".join(_texts(data.get("summary"))),
        fields=fields_from_rows(rows),
        license=" and ".join(_texts(data.get("license"))),
        languages=_languages(data),
        website=" and ".join(_texts(data.get("website"))),
        rows=rows,
        task_categories=_texts(data.get("task_category")) + _texts(data.get("task_ids")),
        family=name.strip(),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item.strip() for item in values if isinstance(item, str) and item.strip())


def _languages(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Reads the authors' `multilinguality`: "english", or a word for other languages."""
    said = _texts(data.get("multilinguality"))
    if any("multilingual" in text or "translation" in text for text in map(str.lower, said)):
        return ("several", "languages")
    return said if len(said) == 1 and said[0].lower() not in ("monolingual", "english") else ()


def read_instructions(path: Any, tally: Tally) -> list[Proposal]:
    """Reads instructions-full.json; `tally` counts all entries, the unreadable ones by reason.

    Raises:
      UserError: the file cannot be read or is not a JSON list (with line and column).
    """
    path = disk.local_path(path)
    entries = read_given_json(path, "the instructions", lenient=True)
    if not isinstance(entries, list):
        raise UserError(f"{path}: needs a JSON list of instructions.")
    proposals = []
    for number, entry in enumerate(entries):
        name = entry.get("task_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            proposal: Proposal | str = "no task_name"
        else:
            proposal = proposal_from_json(entry, name.strip(), generator="released")
        if isinstance(proposal, str):
            tally.add(_RELEASED, f"unreadable: {proposal}", f"entry {number}")
        else:
            tally.add(_RELEASED, "read")
            proposals.append(proposal)
    return proposals
