"""A run directory as a reader finds it: finished, killed or at work; nothing is written or locked.

Every file is whole or not there, but for the last line of the files that grow by lines.
"""

import json
from functools import cached_property
from typing import Any

from ait_jax.errors import UserError
from ait_jax.pool.splits import read_names
from ait_jax.rounds.record import read
from ait_jax.runtime import files

ACTIVE, CONTINUAL, SCORE = "run", "continual", "score"


class RunFiles:
    """The files of `ait-jax run` or `ait-jax score`.

    Args:
      path: MODEL_DIR, local or in a bucket.

    Raises:
      UserError: no run directory, or a damaged one.
    """

    def __init__(self, path: Any) -> None:
        self.path = files.as_path(path)
        record = read(self.path)
        self.state, self.config = record.state, record.config
        self.stages: dict[str, Any] = self.state["stages"]

    @cached_property
    def kind(self) -> str:
        """ACTIVE, CONTINUAL or SCORE."""
        if "tasks" in self.state["pool"]:
            return SCORE
        continual = any(name.endswith("/replay") for name in self.stages)
        continual = continual or (self.path / "round_000" / "stage_tasks.txt").exists()
        return CONTINUAL if continual else ACTIVE

    @cached_property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds that have a folder, ascending; a score folder is round 0."""
        if self.kind == SCORE:
            return (0,)
        numbers = (f.name.removeprefix("round_") for f in self.path.glob("round_*"))
        return tuple(sorted(int(number) for number in numbers if number.isdecimal()))

    def folder(self, round: int) -> Any:
        return self.path if self.kind == SCORE else self.path / f"round_{round:03d}"

    def stage(self, round: int, name: str) -> dict[str, Any] | None:
        """Returns what run.json says of a round's stage, None while it is not done."""
        return self.stages.get(name if self.kind == SCORE else f"round_{round:03d}/{name}")

    def names(self, path: Any) -> tuple[str, ...]:
        """Returns the names of a list, none if it is not there; UserError if it is damaged."""
        return read_names(path) if path.exists() else ()

    def json(self, path: Any) -> dict[str, Any] | None:
        """Returns a JSON file's object, None if it is not there; UserError if it is damaged."""
        try:
            value = json.loads(files.read_text(path))
            if not isinstance(value, dict):
                raise ValueError("not an object")
            return value
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it and run again.") from error

    def lines(self, path: Any) -> list[dict[str, Any]]:
        """Returns the objects of a file of JSON lines; lines that are none are left out."""
        try:
            texts = files.read_bytes(path).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for text in texts:
            try:
                value = json.loads(text)
            except ValueError:  # cut short by a crash, or being written
                continue
            if isinstance(value, dict):
                found.append(value)
        return found
