"""What this process is doing just now: how far, how fast, what comes next.

One `Live` at a time is kept for the process. Whoever does something of a known size says so with
`activity`, training says its loss and speed with `trained`; `watching.watch` shows it and writes
it to live.json. Everything here is cheap, and does nothing where nobody watches.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SCHEMA_VERSION = 1
RUNNING, FINISHED = "running", "finished"
_MOST_LOSSES = 60


class Activity:
    """Something of a known size that is at work: steps of a training, tasks to score.

    Attributes:
      what: in words, for the terminal.
      total, done: in any unit.
      note: a few words beside the bar.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.note = what, total, done, ""
        self._begun = done
        # Of the first and the last progress: (time, done). Before the first it was compiling.
        self._first: tuple[float, int] | None = None
        self._last = (0.0, done)

    def update(self, done: int, note: str = "") -> None:
        """Says how much is done by now."""
        self.done, self.note = done, note
        if done <= self._last[1]:
            return
        self._last = (time.monotonic(), done)
        self._first = self._first or self._last

    def seconds_left(self) -> float | None:
        """Returns an estimate from the pace so far; None before there is one."""
        first, last = self._first, self._last
        if first is None or last[1] <= first[1]:
            return None
        pace = (last[0] - first[0]) / (last[1] - first[1])
        return max(0.0, pace * (self.total - last[1]) - (time.monotonic() - last[0]))

    def to_json(self) -> dict[str, Any]:
        left = self.seconds_left()
        return {
            "what": self.what,
            "done": self.done,
            "total": self.total,
            "note": self.note,
            "seconds_left": None if left is None else round(left, 1),
        }


class Live:
    """The state of one program. One thread changes it, others may read.

    Args:
      kind: "run", "continual", "score"; "" where there is no run directory.
      speed: -> {"tokens_per_second", "mfu"} of the stage at work, or {}.

    Attributes:
      state: `RUNNING`, `FINISHED`, or how else it ended: "preempted", "interrupted", "failed".
      problem: why it ended.
      plan: (stage, how much work it is in any unit) of all stages, as far as they are known.
      stage: at work; None between stages.
      activities: at work, the outermost first.
      losses: of the stage's training, the last ones.
      timings: (stage, seconds) of finished stages, of earlier calls, too.
      is_owner: whether the run directory is known to be this program's; before that it may be
        another run's, which must not be written to.
    """

    def __init__(self, kind: str = "", speed: Callable[[], Mapping[str, float]] = dict) -> None:
        self.kind, self.state, self.problem = kind, RUNNING, ""
        self.plan: list[tuple[str, float]] = []
        self.stage: str | None = None
        self.activities: list[Activity] = []
        self.losses: deque[float] = deque(maxlen=_MOST_LOSSES)
        self.timings: list[tuple[str, float]] = []
        self.speed = speed
        self.is_owner = False
        self._training_speed: dict[str, float] = {}
        self._stage_since = self._since = time.monotonic()
        self._started = time.time()

    def begin(self, stage: str) -> None:
        """Says that a stage begins."""
        self.stage, self._stage_since = stage, time.monotonic()
        self.losses.clear()
        self._training_speed = {}

    def end(self) -> None:
        self.stage = None

    def trained(self, loss: float, **speed: float) -> None:
        self.losses.append(loss)
        self._training_speed = speed

    def to_json(self) -> dict[str, Any]:
        """Returns what live.json holds; times are this machine's."""
        try:
            speed = self._training_speed or dict(self.speed())
        except ZeroDivisionError:  # figures that the other thread changes just now
            speed = {}
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "state": self.state,
            "problem": self.problem,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": round(self._started, 3),
            "updated": round(time.time(), 3),
            "seconds": round(time.monotonic() - self._since, 1),
            "plan": [list(item) for item in self.plan],
            "stage": self.stage,
            "stage_seconds": round(time.monotonic() - self._stage_since, 1),
            "activities": [activity.to_json() for activity in list(self.activities)],
            "losses": [round(loss, 6) for loss in list(self.losses)],
            "tokens_per_second": speed.get("tokens_per_second"),
            "mfu": speed.get("mfu"),
        }


_current: Live | None = None


def current() -> Live | None:
    """Returns what is watched in this process; None: nothing is."""
    return _current


@contextmanager
def using(live: Live) -> Iterator[Live]:
    """Makes `live` the current one for the block."""
    global _current
    before, _current = _current, live
    try:
        yield live
    finally:
        _current = before


@contextmanager
def activity(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields a function that takes how much of `total` is done by now, and a note to show."""
    live = _current
    if live is None:
        yield lambda done, note="": None
        return
    mine = Activity(what, total, done)
    live.activities.append(mine)
    try:
        yield mine.update
    finally:
        live.activities.remove(mine)


def trained(loss: float, **speed: float) -> None:
    """Says the loss of the step that training is at, and tokens_per_second and mfu."""
    if _current is not None:
        _current.trained(loss, **speed)


def plan(stages: Sequence[tuple[str, float]]) -> None:
    """Says which stages there are, and how much work each is."""
    if _current is not None:
        _current.plan = list(stages)


def owned(speed: Callable[[], Mapping[str, float]]) -> None:
    """Says that the run directory is this program's, and who knows its speed; see `Live`."""
    if _current is not None:
        _current.is_owner, _current.speed = True, speed


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Says that the block is the stage `name`; where it raises, the stage stays the one at work."""
    if _current is None:
        yield
        return
    _current.begin(name)
    since = time.monotonic()
    yield
    _current.end()
    _current.timings.append((name, time.monotonic() - since))
