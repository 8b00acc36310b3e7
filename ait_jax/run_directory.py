"""MODEL_DIR: which stages of a run are done, and whether it is still the same run."""

import fcntl
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ait_jax import __version__, configuration, files
from ait_jax.errors import UserError

SCHEMA_VERSION = 1


class RunDirectory:
    """Files of one run. Everything in it is a function of the configuration and the pool.

    Wall-clock values live only in `timings.jsonl`, TensorBoard's `train/` folders and
    Orbax's own metadata; all other files of a resumed run equal the uninterrupted one's.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self._record = self.path / "run.json"
        self._state: dict[str, Any] = {}

    def round(self, number: int) -> Path:
        return self.path / f"round_{number:03d}"

    @contextmanager
    def lock(self):
        """Keeps a second process out of the same MODEL_DIR."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "w")
        except OSError as error:
            raise UserError(
                f"MODEL_DIR = {str(self.path)!r} cannot be written to ({error.strerror}); "
                "set --gin.MODEL_DIR to a folder that can."
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"Another process is running in MODEL_DIR = {str(self.path)!r}; wait for it "
                    "or set another --gin.MODEL_DIR."
                ) from error
            yield

    def open(self, config: str, pool: dict[str, Any], seed: int) -> bool:
        """Starts a run or continues one; returns whether there was one.

        Raises:
          UserError: the folder holds a run of another configuration, pool or schema.
        """
        if not self._record.exists():
            self._refuse_foreign_files()
            files.write_text(self.path / "config.gin", config)
            self._state = {
                "schema_version": SCHEMA_VERSION,
                "code_version": __version__,
                "pool": pool,
                "seed": seed,
                "stages": {},
            }
            self._save()
            return False
        self._state = self._read()
        if self._state.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"{self._record} has schema {self._state.get('schema_version')}, this version of "
                f"ait-jax reads {SCHEMA_VERSION}; set another --gin.MODEL_DIR."
            )
        changes = configuration.differences((self.path / "config.gin").read_text(), config)
        if self._state["pool"] != pool:
            changes.append(f"pool: was {self._state['pool']}, now {pool}")
        if changes:
            raise UserError(
                f"MODEL_DIR = {str(self.path)!r} holds a run of another configuration:\n  "
                + "\n  ".join(changes)
                + "\nSet another --gin.MODEL_DIR, or give the old values to continue that run."
            )
        return True

    def _refuse_foreign_files(self) -> None:
        """A folder with rounds but no run.json is not ours to write into."""
        if any(self.path.glob("round_*")):
            raise UserError(
                f"MODEL_DIR = {str(self.path)!r} has rounds but no run.json; "
                "set another --gin.MODEL_DIR or remove that folder."
            )

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._record.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{self._record} is damaged ({error}); restore it or set another --gin.MODEL_DIR."
            ) from error

    def _save(self) -> None:
        files.write_json(self._record, self._state)

    def is_done(self, stage: str) -> bool:
        return stage in self._state["stages"]

    def stage(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs `work` unless the stage is done; returns what it said, now or then.

        Args:
          name: "round_000/train", for example.
          work: writes the stage's files and returns a summary for JSON.
        """
        if not self.is_done(name):
            self._state["stages"][name] = work()
            self._save()
        return self._state["stages"][name]

    def add_timing(self, stage: str, seconds: float, **values: float) -> None:
        line = json.dumps({"stage": stage, "seconds": round(seconds, 3), **values})
        with open(self.path / "timings.jsonl", "a") as file:
            file.write(line + "\n")
