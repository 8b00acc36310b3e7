"""The status of a run from its files: how far it is, whether it runs, what comes next.

live.json has what the running program says every few seconds (`reporter`), run.json what is done,
timings.jsonl how long that took. The live view and `ait-jax status` show the same figures.
"""

import fcntl
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ait_jax.errors import UserError, visible
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.record import (
    SCORE,
    Record,
    durations,
    read_json,
    read_metrics,
    round_name,
    round_of,
)
from ait_jax.rounds.record import read as read_record
from ait_jax.runtime import buckets, disk
from ait_jax.runtime.reporter import FINISHED, RUNNING
from ait_jax.runtime.watching import LIVE_FILE

# Without a sign of life for this long, a program that cannot be asked otherwise counts as dead.
_SILENCE_SECONDS, _BUCKET_SILENCE_SECONDS = 20.0, 100.0
_MOST_TEXT = 200


def read(path: Any) -> dict[str, Any]:
    """Returns the status of the run in `path`, ready for JSON; see `compose`.

    Raises:
      UserError: it is not a run directory, or run.json is damaged.
    """
    record = read_record(path)
    live = {"kind": record.kind, **_read_live(record.path / LIVE_FILE)}
    live["state"], live["problem"] = _state(record, live)
    status = compose(live, record.stages, durations(record.path))
    return {
        "directory": str(record.path),
        "kind": live["kind"],
        "pool": visible(record.pool["name"])[:_MOST_TEXT],
        "seed": record.seed,
        "strategy": _strategy(record.parameters.get("STRATEGY", "None")),
        "code_version": visible(record.state["code_version"])[:_MOST_TEXT],
        **status,
        "losses": _losses(record.path, status["stage"]) or status["losses"],
    }


def _strategy(value: str) -> str:
    """Returns the name in gin's '@module.Name()'; '' for None (a scoring without a selection)."""
    return "" if value == "None" else value.strip("@()").rpartition(".")[2]


def compose(
    live: Mapping[str, Any], stages: Mapping[str, Any], timings: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    """Returns the figures of a run.

    Args:
      live: of `Reporter.to_json`; missing values are unknown.
      stages: of run.json.
      timings: (stage, seconds) of finished stages.

    Returns:
      {"state", "problem", "host", "pid", "updated", "seconds": since this program began,
       "stage", "stage_seconds", "next", "stages_done", "stages_total", "round", "rounds",
       "activities": [{"what", "done", "total", "note", "seconds_left"}], "losses",
       "tokens_per_second", "mfu", "seconds_left": of the run, None if unknown,
       "curve": [{"round", "num_tasks", "test", "dev"}]}.
    """
    plan = [(str(name), float(work)) for name, work in live.get("plan") or ()]
    names = [name for name, _ in plan]
    stage = live.get("stage")
    waiting = [name for name in names if name not in stages and name != stage]
    activities = list(live.get("activities") or ())
    own_left = activities[0]["seconds_left"] if activities else None
    elapsed = float(live.get("stage_seconds") or 0.0)
    at = stage or (waiting[0] if waiting else names[-1] if names else "")
    rounds = {name.partition("/")[0] for name in names if name.startswith("round_")}
    running = live.get("state") == RUNNING
    left = seconds_left(plan, stages, timings, stage, own_left, elapsed) if running else None
    known = ("state", "host", "pid", "updated", "seconds", "tokens_per_second", "mfu")
    return {
        **{name: live.get(name) for name in known},
        "problem": live.get("problem", ""),
        "stage": stage,
        "stage_seconds": live.get("stage_seconds") if stage else None,
        "next": waiting[0] if waiting else None,
        "stages_done": sum(name in stages for name in names) if names else len(stages),
        "stages_total": len(names) or None,
        "round": round_of(at),
        "rounds": len(rounds) or None,
        "activities": activities,
        "losses": list(live.get("losses") or ()),
        "seconds_left": left,
        "curve": curve(stages),
    }


def seconds_left(
    plan: Sequence[tuple[str, float]],
    stages: Mapping[str, Any],
    timings: Sequence[tuple[str, float]],
    stage: str | None,
    stage_left: float | None,
    stage_elapsed: float,
) -> float | None:
    """Estimates how long the remaining stages of a plan take.

    A stage takes as long per task as the last one of its kind. None if a kind that is still to
    come has not been timed yet.
    """
    work_of = dict(plan)
    pace: dict[str, float] = {}
    for name, seconds in timings:
        if work_of.get(name):
            pace[_kind(name)] = seconds / work_of[name]
    total = 0.0
    for name, work in plan:
        if name in stages:
            continue
        known = pace.get(_kind(name))
        if name == stage and stage_left is not None:
            total += stage_left
        elif known is None:
            return None
        else:
            total += max(0.0, known * work - (stage_elapsed if name == stage else 0.0))
    return round(total, 1) if plan else None


def _kind(stage: str) -> str:
    return stage.rpartition("/")[2]


def curve(stages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the learning curve so far, from run.json."""
    points, seen = [], 0
    for name in sorted(stages, key=lambda name: (name.startswith("round_"), name)):
        if _kind(name) != "evaluate":
            continue
        number = round_of(name)
        train = stages.get(name.replace("evaluate", "train"), {}) if number is not None else {}
        tasks = int(train.get("tasks", 0))
        # A round of a continual training counts only its own tasks.
        seen = seen + tasks if "replayed" in train else tasks
        point = CurvePoint.from_evaluation(number, seen, stages[name])
        if point.test:
            points.append(point.to_json())
    return points


# --- the files ---


class _Activity(TypedDict):
    what: str
    done: int
    total: int
    note: str
    seconds_left: float | None


class _Live(TypedDict, total=False):
    kind: str
    state: str
    problem: str
    host: str
    pid: int
    updated: float
    seconds: float
    plan: list[tuple[str, float]]
    stage: str | None
    stage_seconds: float
    activities: list[_Activity]
    losses: list[float]
    tokens_per_second: float | None
    mfu: float | None


def _read_live(path: Any) -> dict[str, Any]:
    """Returns the values of live.json; a damaged one is as good as none."""
    try:
        return _visible(read_json(path, _Live) or {})
    except UserError:
        return {}


def _visible(value: Any) -> Any:
    """Returns a value of JSON with texts that a terminal can take."""
    if isinstance(value, dict):
        return {visible(name): _visible(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_visible(item) for item in value]
    return visible(value)[:_MOST_TEXT] if isinstance(value, str) else value


def _losses(path: Any, stage: str | None) -> list[float]:
    """Returns the losses of the round in training."""
    if not stage or _kind(stage) != "train" or round_of(stage) is None:
        return []
    lines = read_metrics(path / stage.partition("/")[0])
    return [loss for line in lines if (loss := line.get("loss")) is not None][-60:]


# --- whether it runs ---


def _state(record: Record, live: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the state, and what went wrong."""
    said = live.get("state")
    problem = live.get("problem", "")
    if _is_running(record.path, live):
        return RUNNING, ""
    if said in (None, RUNNING):
        if _last_stage(record) in record.stages:
            return FINISHED, ""
        if said is None:
            return "stopped", ""
        return "killed", "it ended without a message: killed, or its machine went down"
    return said, problem


def _last_stage(record: Record) -> str | None:
    """Returns the stage that a run ends with, None if unknown."""
    if record.kind == SCORE:
        return "map"
    rounds = record.num_rounds
    return f"{round_name(rounds - 1)}/evaluate" if rounds else None


def _is_running(path: Any, live: Mapping[str, Any]) -> bool:
    age = time.time() - float(live.get("updated", 0.0))
    if not buckets.is_local(path):
        return (path / ".lock").exists() and age < _BUCKET_SILENCE_SECONDS
    if _is_locked(path / ".lock"):
        return True
    elsewhere = live.get("host") not in (None, socket.gethostname())
    # Another machine's lock may be invisible here, but what it writes is not.
    return elsewhere and live.get("state") == RUNNING and age < _SILENCE_SECONDS


def _is_locked(path: Path) -> bool:
    """Says whether a process of this machine holds the lock, without waiting for it.

    The test holds a shared lock for an instant, so `RunDirectory.lock` tries several times.
    """
    try:
        with os.fdopen(disk.open_unlinked(path, os.O_RDONLY)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, UserError):  # there is no lock, or the file system has none
        return False
    return False
