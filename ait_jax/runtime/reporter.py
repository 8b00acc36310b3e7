"""What this process says and does: lines for the terminal, how far, how fast, what comes next.

A process has one reporter, as it has one root logger. Anything can `say` a line; work of a known
size is an `activity`; training reports its loss and speed with `trained`. `watching.watch` shows
all of it and writes it to live.json. Everything here is cheap; outside of `watch` only `say` and
`progress` are seen.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ait_jax.errors import visible
from ait_jax.runtime import distributed, terminal

SCHEMA_VERSION = 1
RUNNING, FINISHED = "running", "finished"
_MOST_LOSSES = 60


class Activity:
    """Work of a known size in any unit: steps of a training, tasks to score.

    On the terminal it is called `what`, and `note` is beside its bar.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.note = what, total, done, ""
        self._begun = done
        # (time, done) of the first and the last progress; before the first it was compiling.
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
        """Returns its values in live.json."""
        left = self.seconds_left()
        return {
            "what": self.what,
            "done": self.done,
            "total": self.total,
            "note": self.note,
            "seconds_left": None if left is None else round(left, 1),
        }


class Reporter:
    """The state of one program. One thread changes it, others may read.

    Args:
      kind: "run", "continual" or "score"; "" without a run directory.
      line: takes lines for the terminal.

    Attributes:
      state: `RUNNING`, `FINISHED`, or how else it ended: "preempted", "interrupted", "failed".
      problem: why it ended.
      plan: (stage, amount of work in any unit) of all known stages.
      stage: in progress, since `stage_since`; None between stages.
      stages: the finished ones, of run.json.
      activities: in progress, the outermost first.
      losses: the last ones of the stage's training.
      timings: (stage, seconds) of finished stages, including those of earlier calls.
      speed: returns {"tokens_per_second", "mfu"} of the stage in progress, or {}.
      training_speed: the same of the stage's last training step.
      is_owner: whether the run directory is known to be this program's; until then nothing may be
        written there.
    """

    def __init__(self, kind: str = "", line: Callable[[str], None] = print) -> None:
        self.kind, self.line, self.state, self.problem = kind, line, RUNNING, ""
        self.plan: list[tuple[str, float]] = []
        self.stage: str | None = None
        self.stages: Mapping[str, Any] = {}
        self.activities: list[Activity] = []
        self.losses: deque[float] = deque(maxlen=_MOST_LOSSES)
        self.timings: list[tuple[str, float]] = []
        self.speed: Callable[[], Mapping[str, float]] = dict
        self.is_owner = False
        self.training_speed: dict[str, float] = {}
        self.stage_since = self._since = time.monotonic()
        self._started = time.time()

    def to_json(self) -> dict[str, Any]:
        """Returns the values of live.json; times are this machine's."""
        try:
            speed = self.training_speed or dict(self.speed())
        except ZeroDivisionError:  # another thread is just changing the figures
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
            "stage_seconds": round(time.monotonic() - self.stage_since, 1),
            "activities": [activity.to_json() for activity in list(self.activities)],
            "losses": [round(loss, 6) for loss in list(self.losses)],
            "tokens_per_second": speed.get("tokens_per_second"),
            "mfu": speed.get("mfu"),
        }


_UNSEEN = Reporter()
_current = _UNSEEN
_prefix = ""


@contextmanager
def using(reporter: Reporter) -> Iterator[Reporter]:
    """Makes `reporter` this process's for the block."""
    global _current  # noqa: PLW0603 - one for the process, as the root logger is
    before, _current = _current, reporter
    try:
        yield reporter
    finally:
        _current = before


def say(text: str) -> None:
    """Prints a line with the prefixes of `prefixed`, in the process that writes files."""
    if distributed.is_writer():
        _current.line(visible(f"{_prefix}{text}", keep_lines=True))


@contextmanager
def prefixed(name: str) -> Iterator[None]:
    """Begins the lines of the block with `name: `."""
    global _prefix  # noqa: PLW0603 - of the process's reporter
    before, _prefix = _prefix, f"{_prefix}{name}: "
    try:
        yield
    finally:
        _prefix = before


@contextmanager
def activity(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields a function that takes how much of `total` is done, and a note to show."""
    activities, mine = _current.activities, Activity(what, total, done)
    activities.append(mine)
    try:
        yield mine.update
    finally:
        activities.remove(mine)


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """An `activity` that a terminal shows even outside of a run, as a bar below the lines."""
    with ExitStack() as stack:
        if _current is _UNSEEN and terminal.is_terminal():
            from ait_jax.runtime.watching import watch  # it shows reporters

            stack.enter_context(watch(Reporter()))
        yield stack.enter_context(activity(description, total, done))


def trained(loss: float, **speed: float) -> None:
    """Reports the loss of a training step, and tokens_per_second and mfu."""
    _current.losses.append(loss)
    _current.training_speed = speed


def plan(stages: Sequence[tuple[str, float]]) -> None:
    """Announces the stages and the amount of work in each."""
    _current.plan = list(stages)


def owned(stages: Mapping[str, Any], speed: Callable[[], Mapping[str, float]]) -> None:
    """Declares the run directory this program's; `stages` of run.json and `speed`: `Reporter`."""
    _current.is_owner, _current.stages, _current.speed = True, stages, speed


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Makes `name` the stage in progress; it stays that if the block raises."""
    mine = _current
    mine.stage, mine.stage_since, mine.training_speed = name, time.monotonic(), {}
    mine.losses.clear()
    yield
    mine.stage = None
    mine.timings.append((name, time.monotonic() - mine.stage_since))
