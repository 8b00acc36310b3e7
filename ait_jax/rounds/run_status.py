"""What the files of a run directory tell: how far it is, whether it runs, what comes next.

live.json is what the running program says every few seconds (`reporter`), run.json what is done,
timings.jsonl how long that took. The same figures make the live view and `ait-jax status`.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.record import SCORE, Record, durations, read_metrics, round_name
from ait_jax.rounds.record import read as read_record
from ait_jax.runtime import buckets, files
from ait_jax.runtime.plain_text import visible
from ait_jax.runtime.reporter import FINISHED, RUNNING
from ait_jax.runtime.watching import LIVE_FILE

# So long without a sign of life, and a program that cannot be asked otherwise is taken for dead.
_SILENCE_SECONDS, _BUCKET_SILENCE_SECONDS = 20.0, 100.0
STOPPED, KILLED = "stopped", "killed"
_MOST_TEXT = 500


def read(path: Any) -> dict[str, Any]:
    """Returns what is known of the run in `path`, ready for JSON; see `compose`.

    Raises:
      UserError: there is no such folder, it is no run directory, or run.json is damaged.
    """
    record = read_record(path)
    live = {"kind": record.kind, **_read_live(record.path / LIVE_FILE)}
    live["state"], live["problem"] = _state(record, live)
    status = compose(live, record.stages, durations(record.path))
    return {
        "directory": str(record.path),
        "kind": live["kind"],
        "pool": visible(str(record.pool.get("name", ""))),
        "seed": record.seed,
        "strategy": _strategy(record.parameters.get("STRATEGY", "None")),
        "code_version": visible(record.state["code_version"]),
        **status,
        "losses": _losses(record.path, status["stage"]) or status["losses"],
    }


def _strategy(value: str) -> str:
    """Returns the name in gin's '@module.Name()'; '' for None, where pools are scored alone."""
    return "" if value == "None" else value.strip("@()").rpartition(".")[2]


def compose(
    live: Mapping[str, Any], stages: Mapping[str, Any], timings: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    """Returns the figures of a run.

    Args:
      live: as `Reporter.to_json` makes it; what is missing is not known.
      stages: of run.json.
      timings: (stage, seconds) of the stages that are done.

    Returns:
      {"state", "problem", "host", "pid", "updated", "seconds": since this program began,
       "stage", "stage_seconds", "next", "stages_done", "stages_total", "round", "rounds",
       "activities": [{"what", "done", "total", "note", "seconds_left"}], "losses",
       "tokens_per_second", "mfu", "seconds_left": of the run or None where nothing is known to
       tell it from, "curve": [{"round", "num_tasks", "test", "dev"}]}.
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
    return {
        "state": live.get("state"),
        "problem": live.get("problem", ""),
        "host": live.get("host"),
        "pid": live.get("pid"),
        "updated": live.get("updated"),
        "seconds": live.get("seconds"),
        "stage": stage,
        "stage_seconds": live.get("stage_seconds") if stage else None,
        "next": waiting[0] if waiting else None,
        "stages_done": sum(name in stages for name in names) if names else len(stages),
        "stages_total": len(names) or None,
        "round": round_of(at),
        "rounds": len(rounds) or None,
        "activities": activities,
        "losses": list(live.get("losses") or ()),
        "tokens_per_second": live.get("tokens_per_second"),
        "mfu": live.get("mfu"),
        "seconds_left": left,
        "curve": curve(stages),
    }


def round_of(stage: str) -> int | None:
    """Returns the round of a stage's name ("round_002/train"); None of others."""
    digits = stage.partition("/")[0].removeprefix("round_")
    return int(digits) if stage.startswith("round_") and digits.isdecimal() else None


def seconds_left(
    plan: Sequence[tuple[str, float]],
    stages: Mapping[str, Any],
    timings: Sequence[tuple[str, float]],
    stage: str | None,
    stage_left: float | None,
    stage_elapsed: float,
) -> float | None:
    """Returns how long the stages of a plan will take yet, by those of their kind that are done.

    A stage takes as long for its work (its tasks) as the last one of its kind. None as long as
    no stage of some kind that is still to come has been done: nothing tells how long it takes.
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
    """Returns the learning curve so far, as run.json has it."""
    points, seen = [], 0
    for name in sorted(stages, key=lambda name: (name.startswith("round_"), name)):
        if _kind(name) != "evaluate" or not isinstance(stages[name], Mapping):
            continue
        number = round_of(name)
        train = stages.get(name.replace("evaluate", "train"), {}) if number is not None else {}
        tasks = int(train.get("tasks", 0))
        # The stages of a continual training name their own tasks alone.
        seen = seen + tasks if "replayed" in train else tasks
        try:
            point = CurvePoint.from_evaluation(number, seen, stages[name])
        except (KeyError, TypeError, AttributeError):
            continue
        if point.test:
            points.append(vars(point))
    return points


# --- the files ---


_NUMBER = (int, float)
_KINDS = {"kind": str, "state": str, "problem": str, "host": str, "pid": int, "updated": _NUMBER,
          "seconds": _NUMBER, "plan": list, "stage": str, "stage_seconds": _NUMBER,
          "activities": list, "losses": list, "tokens_per_second": _NUMBER, "mfu": _NUMBER}  # fmt: skip
_ACTIVITY = {"what": str, "done": int, "total": int, "note": str}


def _read_live(path: Any) -> dict[str, Any]:
    """Returns what live.json says; what is of a wrong type, or not there, is left out."""
    try:
        value = json.loads(files.read_text(path))
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict):
        return {}
    live = {
        name: visible(item) if isinstance(item, str) else item
        for name, item in value.items()
        if isinstance(item, _KINDS.get(name, ()))
    }
    live["plan"] = [item for item in live.get("plan", ()) if _fits(item, (str, _NUMBER))]
    live["losses"] = [item for item in live.get("losses", ()) if isinstance(item, _NUMBER)]
    live["activities"] = [
        {name: visible(v) if isinstance(v := item[name], str) else v for name in _ACTIVITY}
        | {"seconds_left": left if isinstance(left := item.get("seconds_left"), _NUMBER) else None}
        for item in live.get("activities", ())
        if isinstance(item, dict) and all(isinstance(item.get(n), k) for n, k in _ACTIVITY.items())
    ]
    return live


def _fits(value: Any, kinds: tuple) -> bool:
    same = isinstance(value, list) and len(value) == len(kinds)
    return same and all(map(isinstance, value, kinds))


def _losses(path: Any, stage: str | None) -> list[float]:
    """Returns the losses of the round that trains."""
    if not stage or _kind(stage) != "train" or round_of(stage) is None:
        return []
    lines = read_metrics(path / stage.partition("/")[0])
    return [line["loss"] for line in lines if isinstance(line.get("loss"), float)][-60:]


# --- whether it runs ---


def _state(record: Record, live: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the state, and what went wrong if anything did."""
    said = live.get("state")
    problem = live.get("problem", "")[:_MOST_TEXT]
    if _is_running(record.path, live):
        return RUNNING, ""
    if said in (None, RUNNING):
        if _last_stage(record) in record.stages:
            return FINISHED, ""
        if said is None:
            return STOPPED, ""
        return KILLED, "it ended without a word: killed, or its machine went down"
    return said, problem


def _last_stage(record: Record) -> str | None:
    """Returns the stage that a run ends with, as far as that is known."""
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
    # A lock of another machine may not be seen here; what it writes is.
    return elsewhere and live.get("state") == RUNNING and age < _SILENCE_SECONDS


def _is_locked(path: Path) -> bool:
    """Says whether a process of this machine holds the lock, without waiting for it.

    The test holds a shared lock for an instant; `RunDirectory.lock` tries again then.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
