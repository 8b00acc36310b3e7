"""MODEL_DIR: which stages of a run are done, and whether it is still the same run."""

import fcntl
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ait_jax import __version__
from ait_jax.config import configuration
from ait_jax.errors import UserError
from ait_jax.rounds.record import SCHEMA_VERSION, round_name
from ait_jax.rounds.record import read as read_record
from ait_jax.runtime import buckets, distributed, files
from ait_jax.runtime.lease import Holder, lease
from ait_jax.runtime.lines_file import LinesFile

_LOCK_ATTEMPTS = 4
# No part of what a run is: it may be moved, its report can be made at any time, and it may go on
# with other summaries.
_MAY_DIFFER = (
    "MODEL_DIR",
    "REPORT",
    *(
        f"{owner}.{name}"
        for owner in ("continual.Continual", "experiment.Experiment", "scoring.Scoring")
        for name in ("model_dir", "report", "summaries")
    ),
)
_OF_SUMMARIES = ("SUMMARIES", "WANDB_", "summaries.")


class RunDirectory:
    """Files of one run, on a disk or in a bucket. Everything in it is a function of the configuration and the pool.

    Wall-clock values live only in `timings.jsonl`, `live.json` (what the run is doing just now, see
    `watching`), `report.html`, which shows them, summaries (`train/`, `rounds/`, `inference_eval/`,
    `wandb/`) and Orbax's own metadata; all other files of a resumed run equal the uninterrupted one's.
    """

    def __init__(self, path: Any) -> None:
        self.path = files.as_path(path)
        self._record = self.path / "run.json"
        self._config = self.path / "config.gin"
        self._state: dict[str, Any] = {}
        self._lease: Holder | None = None

    def round(self, number: int) -> Any:
        return self.path / round_name(number)

    @property
    def has_begun(self) -> bool:
        with buckets.errors_of(self.path):
            return distributed.broadcast("has begun", self._record.exists())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second process out of the same MODEL_DIR, until this one ends.

        Raises:
          UserError: another process is in it, or it cannot be written to.
        """
        if not distributed.is_writer():
            yield
            return
        if not buckets.is_local(self.path):
            with lease(self.path / ".lock") as self._lease:
                yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "w")
        except OSError as error:
            raise self._unwritable(error) from error
        with handle:
            try:
                _lock(handle)
            except BlockingIOError as error:
                raise UserError(
                    f"Another process is running in MODEL_DIR = {str(self.path)!r}; wait for it "
                    "or set another --gin.MODEL_DIR."
                ) from error
            except OSError as error:  # a file system without locks
                raise self._unwritable(error) from error
            yield

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"MODEL_DIR = {str(self.path)!r} cannot be written to ({error.strerror}); "
            "set --gin.MODEL_DIR to a folder that can."
        )

    def open(
        self,
        config: str,
        pool: dict[str, Any],
        seed: int,
        pool_changes: Callable[[dict[str, Any]], list[str]] | None = None,
    ) -> bool:
        """Starts a run or continues one; returns whether there was one.

        Args:
          config: the operative configuration.
          pool: what tells the pool from others, for JSON: its name and fingerprint.
          seed: of the run.
          pool_changes: what run.json holds -> what differs in the pool, for a run whose pool
            may be extended; without it another fingerprint is another pool.

        Raises:
          UserError: the folder holds a run of another configuration, pool or schema, a
            damaged one, or files that are not a run's.
        """
        continued = distributed.is_writer() and self._open(config, pool, seed, pool_changes)
        # Others may see the disk a moment later.
        self._state, continued = distributed.broadcast("run.json", (self._state, continued))
        return continued

    def _open(self, config: str, pool: dict[str, Any], seed: int, pool_changes) -> bool:
        if not self._record.exists():
            self._refuse_foreign_files()
            return self._start(config, pool, seed)
        record = read_record(self.path)
        self._state, saved = record.state, record.config
        if not self._state["stages"]:  # Stopped before anything was done: nothing to protect.
            return self._start(config, pool, seed)
        changes = differences(saved, config)
        before = self._state["pool"]
        if pool_changes and {**before, "fingerprint": ""} == {**pool, "fingerprint": ""}:
            changes += pool_changes(self._state)
        elif before != pool:
            changes.append(f"pool: was {_words(before)}, now {_words(pool)}")
        if not changes and self._state["seed"] != seed:
            changes.append(f"seed: was {self._state['seed']}, now {seed}")
        if changes:
            raise UserError(
                f"MODEL_DIR = {str(self.path)!r} holds a run of another configuration:\n  "
                + "\n  ".join(changes)
                + "\nSet another --gin.MODEL_DIR, or give the old values to continue that run."
            )
        return True

    def _start(self, config: str, pool: dict[str, Any], seed: int) -> bool:
        files.write_text(self._config, config)
        self._state = {
            "schema_version": SCHEMA_VERSION,
            "code_version": __version__,
            "pool": pool,
            "seed": seed,
            "stages": {},
        }
        self._save()
        return False

    def _refuse_foreign_files(self) -> None:
        """A folder with rounds but no run.json is not ours to write into."""
        if any(self.path.glob("round_*")):
            raise UserError(
                f"MODEL_DIR = {str(self.path)!r} has rounds but no run.json; "
                "set another --gin.MODEL_DIR or remove that folder."
            )

    def adopt(
        self,
        config: str,
        pool: dict[str, Any],
        seed: int,
        stages: dict[str, Any],
        copy: Callable[[], None],
    ) -> None:
        """Starts a run with stages that another one has done; `copy` brings their files.

        Where it is stopped before the end, no stage is done.
        """
        if not distributed.is_writer():
            return
        if not self._record.exists():
            self._refuse_foreign_files()
        self._start(config, pool, seed)
        copy()
        self._state["stages"] = dict(stages)
        self._save()

    def _save(self) -> None:
        if self._lease is not None:
            self._lease.check()
        files.write_json(self._record, self._state)

    @property
    def state(self) -> dict[str, Any]:
        """What run.json holds, of a run that is open."""
        return self._state

    def is_done(self, stage: str) -> bool:
        return stage in self._state["stages"]

    def stage(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs `work` unless the stage is done; returns what it said, now or then.

        Args:
          name: "round_000/train", for example.
          work: writes the stage's files and returns a summary for JSON, without wall-clock
            values (`add_timing` takes those).
        """
        if not self.is_done(name):
            # As it will be read back, so that a resumed run sees what this one sees.
            result = json.loads(json.dumps(work()))
            if distributed.is_writer():
                self._state["stages"][name] = result
                self._save()
            self._state["stages"][name] = distributed.broadcast(name, result)
        return self._state["stages"][name]

    def add_timing(self, stage: str, seconds: float, **values: float) -> None:
        """Adds a line to timings.jsonl."""
        if not distributed.is_writer():
            return
        timings = LinesFile(self.path / "timings.jsonl")
        timings.add(json.dumps({"stage": stage, "seconds": round(seconds, 3), **values}))
        timings.flush()


def _lock(handle: Any) -> None:
    """Locks a file for this process; raises BlockingIOError where another one keeps it.

    `ait-jax status` tests the lock by holding it for an instant, hence several attempts.
    """
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 == _LOCK_ATTEMPTS:
                raise
            time.sleep(0.05)


def differences(saved: str, current: str, ignored: Collection[str] = ()) -> list[str]:
    """Returns what makes a configuration another run's; see `configuration.differences`.

    Args:
      ignored: parameters that may differ, besides those that are no part of what a run is.
    """
    return configuration.differences(
        saved, current, {*_MAY_DIFFER, *ignored}, ignored_prefixes=_OF_SUMMARIES
    )


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
