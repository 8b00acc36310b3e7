"""A run directory as its readers find it: finished, killed or at work. Writes and locks nothing.

Status, report, tasks, compare and resume read run.json, config.gin, timings.jsonl, metrics.jsonl
and eval.json through this module, as typed values or one kind of error. Every file is whole or
absent, except for the last line of files that grow by lines.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ait_jax.config import configuration
from ait_jax.errors import UserError, nearest
from ait_jax.runtime import buckets, files

SCHEMA_VERSION = 1
ACTIVE, CONTINUAL, SCORE = "run", "continual", "score"
_STATE_TYPES = {
    "schema_version": int,
    "code_version": str,
    "pool": dict,
    "seed": int,
    "stages": dict,
}
_RESTORE = "restore it from a copy or set another --gin.MODEL_DIR"
# Class of the settings -> kind of run.
OWNERS = {
    "experiment.Experiment": ACTIVE,
    "continual.Continual": CONTINUAL,
    "scoring.Scoring": SCORE,
}


@dataclass(frozen=True)
class Timing:
    """A line of timings.jsonl: a stage and how long it took, in the call that ended it.

    Attributes:
      figures: the rest of the line (tokens_per_second, padding_fraction, devices, ...).
    """

    stage: str
    seconds: float
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What run.json and config.gin say about a run.

    Attributes:
      path: the run directory, local or in a bucket.
      state: run.json's object; its parts below have the right types.
      config: the operative configuration.
    """

    path: Any
    state: dict[str, Any]
    config: str

    @property
    def stages(self) -> dict[str, Any]:
        """Finished stage -> its summary."""
        return self.state["stages"]

    @property
    def pool(self) -> dict[str, Any]:
        """The pool's name and fingerprint; of a scoring, also its tasks."""
        return self.state["pool"]

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return self.state["seed"]

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Parameter -> value of the operative configuration, as gin source."""
        return configuration.parameters_of(self.config)

    @cached_property
    def kind(self) -> str:
        """ACTIVE, CONTINUAL or SCORE."""
        for owner, kind in OWNERS.items():
            if any(name.startswith(f"{owner}.") for name in self.parameters):
                return kind
        if "tasks" in self.pool:
            return SCORE
        continual = any(name.endswith("/replay") for name in self.stages)
        return CONTINUAL if continual else ACTIVE

    @cached_property
    def num_rounds(self) -> int | None:
        """ROUNDS of the configuration, if it has one."""
        value = self.parameters.get("experiment.Experiment.rounds", "")
        value = self.parameters.get(value.removeprefix("%"), value)
        return int(value) if value.isdecimal() else None

    @cached_property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds that have a folder, ascending; a folder of scores is round 0."""
        if self.kind == SCORE:
            return (0,)
        numbers = (folder.name.removeprefix("round_") for folder in self.path.glob("round_*"))
        return tuple(sorted(int(number) for number in numbers if number.isdecimal()))

    def folder(self, round_index: int) -> Any:
        """Returns the path of a round's files."""
        return self.path if self.kind == SCORE else self.path / round_name(round_index)

    def stage(self, round_index: int, name: str) -> dict[str, Any] | None:
        """Returns the summary of a round's stage, None while it is not done."""
        return self.stages.get(name if self.kind == SCORE else f"{round_name(round_index)}/{name}")


def round_name(round_index: int | None) -> str:
    """Returns the folder of a round, and the first part of its stages' names; None is the base."""
    return "base" if round_index is None else f"round_{round_index:03d}"


def read(path: Any) -> Record:
    """Reads run.json and config.gin of a run directory.

    Raises:
      UserError: not a run directory, a file missing or damaged, or another schema.
    """
    path = files.as_path(path)
    with buckets.errors_of(path):
        if not is_run(path):
            raise UserError(_no_run(path))
    return Record(path, _state(path / "run.json"), _config(path / "config.gin"))


def is_run(path: Any) -> bool:
    """Says whether a folder is a run directory."""
    return (path / "run.json").exists()


def runs_below(path: Any) -> list[Any]:
    """Returns the run directories up to three levels below a folder (a comparison's, say)."""
    found = [run for depth in ("*", "*/*", "*/*/*") for run in path.glob(f"{depth}/run.json")]
    return sorted(run.parent for run in found)


def _state(file: Any) -> dict[str, Any]:
    state = read_json(file, _RESTORE) or {}
    version = state.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file} has schema {version}, but this version of ait-jax reads {SCHEMA_VERSION}; set "
            "another --gin.MODEL_DIR."
        )
    for name, kind in _STATE_TYPES.items():
        if not isinstance(state.get(name), kind):
            raise _damaged(file, f"{name} must be of type {kind.__name__}", _RESTORE)
    return state


def _config(file: Any) -> str:
    try:
        return files.read_text(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error, _RESTORE) from error


def _damaged(file: Any, problem: object, remedy: str) -> UserError:
    return UserError(f"{file} is damaged ({problem}); {remedy}.")


def _no_run(path: Any) -> str:
    """Says what a path is instead of a run directory, and which runs lie near it."""
    if not buckets.is_local(path):
        return f"{path} is not a run directory: it has no run.json."
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        beside = path.parent if path.parent.is_dir() else Path()
    else:
        what, beside = "is not a run directory: it has no run.json", path
        if is_run(path.absolute().parent):
            return f"{path} {what}; it is inside one: give {path.parent}."
    names = [str(run) for run in runs_below(beside)]
    hint = nearest(str(path), names)
    if not hint and names:
        hint = f" Nearby runs: {', '.join(names[:5])}."
    return f"{path} {what}.{hint} Give a run's MODEL_DIR."


# --- files of stages ---


def read_timings(path: Any) -> list[Timing]:
    """Returns the lines of a run directory's timings.jsonl, in the order that stages ended."""
    timings = []
    for line in read_lines(path / "timings.jsonl"):
        stage, seconds = line.pop("stage", None), line.pop("seconds", None)
        if isinstance(stage, str) and isinstance(seconds, int | float) and math.isfinite(seconds):
            timings.append(Timing(stage, float(seconds), line))
    return timings


def durations(path: Any) -> list[tuple[str, float]]:
    """Returns (stage, seconds) for each line of timings.jsonl."""
    return [(timing.stage, timing.seconds) for timing in read_timings(path)]


def read_metrics(folder: Any) -> list[dict[str, Any]]:
    """Returns the lines of a training's metrics.jsonl: step, loss, ..."""
    return read_lines(folder / "metrics.jsonl")


def read_json(file: Any, remedy: str = "delete it and run again") -> dict[str, Any] | None:
    """Returns the object of a JSON file (eval.json, race.json), None where it is absent.

    Raises:
      UserError: it is damaged.
    """
    try:
        value = json.loads(files.read_text(file))
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise _damaged(file, error, remedy) from error
    if not isinstance(value, dict):
        raise _damaged(file, "not an object", remedy)
    return value


def read_lines(file: Any) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines, without lines cut short by a crash."""
    try:
        texts = files.read_bytes(file).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for text in texts:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
