"""`--from`: which source a word or a path stands for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow.authors_files import DatasetLines, is_instructions, read_instructions
from ait_jax.tasks.grow.cards import read_cards
from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.proposal import Proposal
from ait_jax.tasks.grow.tally import Tally

from ait_jax.errors import UserError

KNOWN = (
    "tfds, tfds:NAME,NAME, a folder of dataset cards, a JSONL file of datasets "
    "(huggingface_metadata.jsonl) or a JSON file of instructions (instructions-full.json)"
)


@dataclass(frozen=True)
class Source:
    """One `--from`.

    Attributes:
      given: as the user wrote it.
      kind: "tfds", "cards", "lines" or "instructions".
    """

    given: str
    kind: str

    def datasets(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the metadata; for "instructions" there is none."""
        if self.kind == "tfds":
            from ait_jax.runtime.terminal import quiet_stderr

            with quiet_stderr():
                from ait_jax.tasks.grow import tfds_catalogue
            names = [name for name in self.given.partition(":")[2].split(",") if name]
            return tfds_catalogue.read_catalogue(tally, names)
        if self.kind == "cards":
            return read_cards(self.given, tally)
        if self.kind == "lines":
            return self.lines.read(tally)
        return iter(())

    @cached_property
    def lines(self) -> DatasetLines | None:
        """Datasets by name, where they lie in a file; else None."""
        return DatasetLines(self.given) if self.kind == "lines" else None

    def proposals(self, tally: Tally) -> Sequence[Proposal]:
        """Returns the instructions that need no generator."""
        return read_instructions(self.given, tally) if self.kind == "instructions" else ()


def source(given: Any) -> Source:
    """Returns the source that `given` stands for.

    Raises:
      UserError: it is none of those known.
    """
    text = str(given)
    if text == "tfds" or text.startswith("tfds:"):
        return Source(text, "tfds")
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(text, "cards")
    if not path.is_file():
        raise UserError(f"--from={text}: no such file or folder. Known sources: {KNOWN}.")
    return Source(text, "instructions" if is_instructions(path) else "lines")
