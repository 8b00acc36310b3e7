"""A run directory as the run writes it: which stages are done, and whether it is the same run."""

import fcntl
import json
import time
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ait_jax import __version__
from ait_jax.config import configuration
from ait_jax.errors import UserError, shown, shown_path
from ait_jax.rounds.record import OWNERS, SCHEMA_VERSION, round_name, round_of
from ait_jax.rounds.record import read as read_record
from ait_jax.runtime import buckets, disk, distributed, files
from ait_jax.runtime.files import LinesFile
from ait_jax.runtime.lease import Holder, lease

PoolChanges = Callable[[dict[str, Any]], list[str]]
_LOCK_ATTEMPTS = 4
_FOREIGN = ("wandb",)  # W&B keeps links there
# A run may be moved, get its report at any time, and continue with other summaries.
_MAY_DIFFER = (
    "MODEL_DIR",
    "REPORT",
    *(f"{owner}.{name}" for owner in OWNERS for name in ("model_dir", "report", "summaries")),
)
_OF_SUMMARIES = ("SUMMARIES", "WANDB_", "summaries.")


class RunDirectory:
    """The files of one run, on a disk or in a bucket: a function of its configuration and pool.

    Wall-clock values are only in `timings.jsonl`, `live.json` (what the run is doing, see
    `watching`), `report.html`, summaries (`train/`, `rounds/`, `inference_eval/`, `wandb/`) and
    Orbax's own metadata; all other files of a resumed run equal those of an uninterrupted one.

    Attributes:
      state: what run.json holds, once the run is open.
    """

    def __init__(self, path: Any) -> None:
        self.path = files.as_path(path)
        self._record = self.path / "run.json"
        self._config = self.path / "config.gin"
        self.state: dict[str, Any] = {}
        self._lease: Holder | None = None

    def folder(self, round_index: int) -> Any:
        """Returns the path of a round's files."""
        return self.path / round_name(round_index)

    @property
    def has_begun(self) -> bool:
        """Whether run.json is there; the same in every process."""
        with buckets.errors_of(self.path):
            return distributed.broadcast("has begun", self._record.exists())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes out of MODEL_DIR for the block.

        Raises:
          UserError: another process is in it, it is not writable, or it has links, which writing
            would follow to elsewhere.
        """
        if not distributed.is_writer():
            yield
            return
        if not buckets.is_local(self.path):
            with lease(self.path / ".lock") as self._lease:
                yield
            return
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                _lock(stack.enter_context(disk.lock_file(self.path / ".lock")))
                disk.tidy(self.path, _FOREIGN)
            except BlockingIOError as error:
                raise UserError(
                    f"Another process is running in MODEL_DIR = {shown(str(self.path))}; wait for "
                    "it or set another --gin.MODEL_DIR."
                ) from error
            except OSError as error:  # also of a file system without locks
                raise UserError(
                    f"MODEL_DIR = {shown(str(self.path))} is not writable ({error.strerror}); set "
                    "--gin.MODEL_DIR to a writable folder."
                ) from error
            yield

    def open(
        self,
        config: str,
        pool: dict[str, Any],
        seed: int,
        pool_changes: PoolChanges | None = None,
    ) -> bool:
        """Starts a run or continues one; returns whether there was one.

        Args:
          config: the operative configuration.
          pool: its name and fingerprint, as JSON values.
          pool_changes: state of run.json -> how the pool differs, if it may be extended; without
            it, another fingerprint is another pool.

        Raises:
          UserError: the folder holds a run of another configuration, pool or schema, a damaged
            run, or rounds without a run.json.
        """
        continued = distributed.is_writer() and self._open(config, pool, seed, pool_changes)
        # Others may see the disk a moment later.
        self.state, continued = distributed.broadcast("run.json", (self.state, continued))
        return continued

    def _open(
        self, config: str, pool: dict[str, Any], seed: int, pool_changes: PoolChanges | None
    ) -> bool:
        record = read_record(self.path) if self._record.exists() else None
        if record is None or not record.stages:  # before a stage is done: nothing to protect
            return self._start(config, pool, seed)
        self.state = record.state
        changes = differences(record.config, config)
        before = self.state["pool"]
        if pool_changes and {**before, "fingerprint": ""} == {**pool, "fingerprint": ""}:
            changes += pool_changes(self.state)
        elif before != pool:
            changes.append(f"pool: was {_words(before)}, now {_words(pool)}")
        if not changes and self.state["seed"] != seed:
            changes.append(f"seed: was {self.state['seed']}, now {seed}")
        if changes:
            raise UserError(
                f"MODEL_DIR = {shown(str(self.path))} holds a run of another configuration:",
                *(f"  {change}" for change in changes),
                "Set another --gin.MODEL_DIR, or give the old values to continue that run.",
            )
        return True

    def _start(self, config: str, pool: dict[str, Any], seed: int) -> bool:
        if not self._record.exists() and any(self.path.glob("round_*")):  # someone else's
            raise UserError(
                f"MODEL_DIR = {shown(str(self.path))} has rounds but no run.json; "
                "set another --gin.MODEL_DIR or remove that folder."
            )
        files.write_text(self._config, config)
        self.state = {
            "schema_version": SCHEMA_VERSION,
            "code_version": __version__,
            "pool": pool,
            "seed": seed,
            "stages": {},
        }
        self._save()
        return False

    def check_lists(self, pool: Container[str]) -> None:
        """Reads the lists of tasks that an earlier call left, before anything new is written.

        Raises:
          UserError: one is missing or damaged, or names a task that the pool lacks.
        """
        from ait_jax.pool.splits import read_names, read_splits  # readers of status need no pool

        for stage in self.state["stages"]:
            index = round_of(stage)
            if index is not None and stage.endswith("/select"):
                read_names(self.folder(index) / "selected.txt")
                read_splits(self.folder(index + 1))
        for path in sorted(self.path.glob("round_*/*.txt")):
            if not path.name.endswith("_tasks.txt") and path.name != "selected.txt":
                continue
            missing = next((name for name in read_names(path) if name not in pool), None)
            if missing is not None:
                raise UserError(
                    f"{shown_path(path)}: the pool has no task {shown(missing)}; restore that file "
                    "from a copy or set another --gin.MODEL_DIR."
                )

    def adopt(
        self,
        config: str,
        pool: dict[str, Any],
        seed: int,
        stages: dict[str, Any],
        copy: Callable[[], None],
    ) -> None:
        """Starts a run with another run's finished stages, whose files `copy` brings.

        If `copy` does not end, no stage is done.
        """
        if not distributed.is_writer():
            return
        self._start(config, pool, seed)
        copy()
        self.state["stages"] = dict(stages)
        self._save()

    def _save(self) -> None:
        if self._lease is not None:
            self._lease.check()
        files.write_json(self._record, self.state)

    def is_done(self, stage: str) -> bool:
        """Says whether a stage is in run.json."""
        return stage in self.state["stages"]

    def stage(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs `work` unless the stage is done; returns its summary, from now or then.

        `work` writes the stage's files and returns a summary for JSON, without wall-clock values
        (`add_timing` takes those).
        """
        if not self.is_done(name):
            # Through JSON, so that a resumed run sees what this one sees.
            result = json.loads(json.dumps(work()))
            if distributed.is_writer():
                self.state["stages"][name] = result
                self._save()
            self.state["stages"][name] = distributed.broadcast(name, result)
        return self.state["stages"][name]

    def add_timing(self, stage: str, seconds: float, **values: Any) -> None:
        """Adds a line to timings.jsonl."""
        if not distributed.is_writer():
            return
        timings = LinesFile(self.path / "timings.jsonl")
        timings.add(json.dumps({"stage": stage, "seconds": round(seconds, 3), **values}))
        timings.flush()


def _lock(handle: Any) -> None:
    """Locks a file for this process; raises BlockingIOError if another one keeps it.

    It tries several times, because `ait-jax status` tests the lock by holding it for an instant.
    """
    for _ in range(_LOCK_ATTEMPTS - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def differences(saved: str, current: str, ignored: Collection[str] = ()) -> list[str]:
    """Returns what makes a configuration another run's; see `configuration.differences`.

    Args:
      ignored: further parameters that may differ.
    """
    return configuration.differences(
        saved, current, {*_MAY_DIFFER, *ignored}, ignored_prefixes=_OF_SUMMARIES
    )


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
