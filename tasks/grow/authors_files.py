"""The files that Dynosaur's authors released or that their code writes.

huggingface_metadata.jsonl and huggingface_data.jsonl: one dataset a line, with two rows or with
all; instructions-full.json: a list of the instructions that came of them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset, fields_from_rows
from ait_jax.tasks.grow.proposal import Proposal, proposal_from_json
from ait_jax.tasks.grow.tally import Tally

from ait_jax.errors import UserError

STAGE = "metadata lines"
RELEASED_STAGE = "released instructions"
MAX_ROWS = 100
_MAX_LINE = 100_000_000


class DatasetLines:
    """A JSONL file of datasets, read line by line; random access by name.

    A line that is no dataset is counted by reason and passed over, so is a second line of the
    same name.

    Args:
      path: of the file.

    Raises:
      UserError: it cannot be read.
    """

    def __init__(self, path: Any) -> None:
        self._path = Path(path).expanduser()
        self._offsets: dict[str, int] | None = None
        try:
            with open(self._path, "rb"):
                pass
        except OSError as error:
            raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error

    def __iter__(self) -> Iterator[Dataset]:
        return self.read(Tally())

    def read(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the datasets in the file's order; `tally` counts lines by what became of them."""
        offsets: dict[str, int] = {}
        with open(self._path, "rb") as file:
            while True:
                offset = file.tell()
                line = file.readline(_MAX_LINE)
                if not line:
                    break
                number = f"{self._path.name}, byte {offset}"
                dataset = _dataset(line, self._path.name)
                if isinstance(dataset, str):
                    if dataset:
                        tally.add(STAGE, f"unreadable: {dataset}", number)
                elif dataset.name in offsets:
                    tally.add(STAGE, "duplicate: name of an earlier line", dataset.name)
                else:
                    offsets[dataset.name] = offset
                    tally.add(STAGE, "read", dataset.name)
                    yield dataset
        self._offsets = offsets

    def get(self, name: str) -> Dataset | None:
        """Returns the dataset called `name`, or None. The first call reads the whole file."""
        if self._offsets is None:
            for _ in self:
                pass
        if name not in self._offsets:
            return None
        with open(self._path, "rb") as file:
            file.seek(self._offsets[name])
            dataset = _dataset(file.readline(_MAX_LINE), self._path.name)
        if isinstance(dataset, str):
            raise UserError(f"{str(self._path)!r} changed while it was read; try again.")
        return dataset


def _dataset(line: bytes, source: str) -> Dataset | str:
    """Returns the dataset of a line, or what is wrong with it ("" for an empty line)."""
    if not line.strip():
        return ""
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, RecursionError):
        return "malformed JSON"
    if not isinstance(data, dict):
        return "not an object"
    name, rows = data.get("task_name"), data.get("selected_data")
    if not isinstance(name, str) or not name.strip():
        return "no task_name"
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        return "selected_data is no list"
    rows = [row for row in rows[:MAX_ROWS] if isinstance(row, dict)]
    if not rows:
        return "selected_data has no rows"
    return Dataset(
        name=name.strip(),
        source=source,
        description=_text(data.get("summary")),
        fields=fields_from_rows(rows),
        licence=_text(data.get("license")),
        languages=_languages(data),
        website=_text(data.get("website")),
        rows=rows,
        task_categories=_texts(data.get("task_category")) + _texts(data.get("task_ids")),
        family=name.strip(),
    )


def _text(value: Any) -> str:
    texts = _texts(value)
    return " and ".join(texts)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item.strip() for item in values if isinstance(item, str) and item.strip())


def _languages(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The authors' `multilinguality`: "english", or what kind of other languages there are."""
    said = _texts(data.get("multilinguality"))
    if any("multilingual" in text or "translation" in text for text in map(str.lower, said)):
        return ("several", "languages")
    return said if len(said) == 1 and said[0].lower() not in ("monolingual", "english") else ()


def is_instructions(path: Path) -> bool:
    """Whether a file is a list of released instructions: JSON that begins with a list."""
    try:
        with open(path, "rb") as file:
            return file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error


def read_instructions(path: Any, tally: Tally) -> list[Proposal]:
    """Reads instructions-full.json; an entry that is none is counted by reason.

    Raises:
      UserError: the file cannot be read or is no JSON list (with line and column).
    """
    path = Path(path).expanduser()
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}, {at}: malformed JSON: {error.msg}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply to be instructions.") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: needed a list of instructions, found another JSON value.")
    proposals = []
    for number, entry in enumerate(entries):
        name = entry.get("task_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            proposal: Proposal | str = "no task_name"
        else:
            proposal = proposal_from_json(entry, name.strip(), generator="released")
        if isinstance(proposal, str):
            tally.add(RELEASED_STAGE, f"unreadable: {proposal}", f"entry {number}")
            continue
        tally.add(RELEASED_STAGE, "read")
        proposals.append(proposal)
    return proposals
