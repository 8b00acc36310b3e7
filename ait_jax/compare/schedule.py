"""Runs of a comparison in local processes: their order, who reuses whose round 0, what failed."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.errors import ExitCode, UserError
from ait_jax.rounds import record, round_zero
from ait_jax.rounds.record import round_name
from ait_jax.runtime import disk, preemption, reporter

_LOG_LINES = 15
_SECONDS_TO_SAVE = 120.0
# More requests to stop than this kill the runs: the user has pressed Ctrl-C again.
_MOST_PATIENCE = 2


class Stopped(Exception):
    """A signal, `number`, asked to stop; what was done is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Job:
    """One run.

    Attributes:
      strategy, seed: what tells it from the others.
      folder: its MODEL_DIR.
      arguments: for `ait-jax`.
      log: the file for what it prints.
      rounds: how many it has.
      takes_scores: whether it may also reuse the scores of another run's round 0.
      code: its exit code once it has ended.
      process: a `subprocess.Popen` once it has started.
    """

    strategy: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    log: Path
    rounds: int
    takes_scores: bool
    code: int | None = None
    process: Any = field(default=None, repr=False)
    cpus: str = ""
    started: float = 0.0
    told: int = 0

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.strategy}_{self.seed}"

    def stages(self) -> dict[str, Any]:
        """Returns the finished stages; none if the run has not begun."""
        try:
            return record.read(self.folder).stages if record.is_run(self.folder) else {}
        except UserError:
            return {}  # the run itself says what is wrong with it

    @property
    def is_finished(self) -> bool:
        """Whether its last round is evaluated."""
        return f"{round_name(self.rounds - 1)}/evaluate" in self.stages()

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self.process is not None and self.code is None

    def offers(self, taker: "Job") -> int:
        """Returns how much of round 0 `taker` can reuse: 0 nothing, 1 all but scores, 2 all."""
        stages = self.stages()
        if round_zero.LAST not in stages:
            return 0
        return 2 if taker.takes_scores and round_zero.SCORE in stages else 1

    def will_offer(self, taker: "Job") -> int:
        """Returns how much that will be once this run is done."""
        return 2 if taker.takes_scores and self.takes_scores else 1


def run(
    jobs: Sequence[Job],
    processes: int,
    *,
    program: Sequence[str] = ("-m", "ait_jax.child"),
    interval: float = 0.5,
) -> list[Job]:
    """Runs what is not finished, at most `processes` at a time; returns the jobs that failed.

    One run of each seed goes first, until the others can reuse its round 0. When a run fails the
    others continue, unless it was a user's mistake (exit code 2): that would stop them as well.

    Args:
      program: what Python runs, given the parent's id, its processors and the job's arguments.
      interval: seconds between checks.

    Raises:
      UserError: a run ended with a user's mistake; the message has the last lines of its log.
      Stopped: by Ctrl-C or SIGTERM; the runs have been told and have ended.
    """
    waiting = [job for job in jobs if not job.is_finished]
    for job in jobs:
        if job not in waiting:
            reporter.say(f"{job.name}: finished before")
        stages = job.stages()
        job.told = next(n for n in itertools.count() if f"{round_name(n)}/evaluate" not in stages)
    slots = _slots(processes)
    failed: list[Job] = []
    noticed: list[int] = []
    with preemption.caught(noticed.append):
        try:
            while waiting or any(job.is_running for job in jobs):
                if noticed:
                    raise Stopped(noticed[0])
                for job in [job for job in jobs if job.is_running]:
                    _tell_rounds(job)
                    job.code = job.process.poll()
                    if job.code is not None:
                        slots.append(job.cpus)
                        _settle(job, job.code, failed)
                while slots and (ready := _next(waiting, jobs)):
                    waiting.remove(ready)
                    _start(ready, jobs, slots.pop(0), program)
                time.sleep(interval)
        finally:
            _end([job for job in jobs if job.is_running], noticed)
    return failed


def _slots(processes: int) -> list[str]:
    """Divides the processors into a comma-separated list per process; "" is no limit."""
    if processes == 1 or not hasattr(os, "sched_getaffinity"):
        return [""] * processes
    cpus = sorted(os.sched_getaffinity(0))
    if processes >= len(cpus):
        return [str(cpus[i % len(cpus)]) for i in range(processes)]
    bounds = [len(cpus) * i // processes for i in range(processes + 1)]
    return [",".join(map(str, cpus[a:b])) for a, b in itertools.pairwise(bounds)]


def _next(waiting: Sequence[Job], jobs: Sequence[Job]) -> Job | None:
    """Returns the first run that need not wait for another's round 0."""
    for job in waiting:
        of_seed = [other for other in jobs if other.seed == job.seed and other is not job]
        best = max((other.offers(job) for other in of_seed), default=0)
        coming = max((o.will_offer(job) for o in of_seed if o.is_running), default=0)
        first = next(other for other in waiting if other.seed == job.seed)
        # A run that can offer scores goes before those that cannot.
        scorer = next((o for o in waiting if o.seed == job.seed and o.takes_scores), first)
        if round_zero.LAST in job.stages() or (best >= coming and (best or job is scorer)):
            return job
    return None


def _start(job: Job, jobs: Sequence[Job], cpus: str, program: Sequence[str]) -> None:
    arguments = list(job.arguments)
    shared = ""
    if not job.stages():
        givers = [o for o in jobs if o.seed == job.seed and o is not job and o.offers(job)]
        if givers:
            giver = max(givers, key=lambda other: other.offers(job))
            arguments.append(f"--round_0_from={giver.folder}")
            shared = f", round 0 from {giver.name}"
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with disk.writing(job.log), os.fdopen(disk.open_unlinked(job.log, flags), "ab") as log:
        job.process = subprocess.Popen(
            [sys.executable, *program, str(os.getpid()), cpus, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches this process only, which passes it on once.
            start_new_session=True,
        )
    job.cpus, job.started = cpus, time.monotonic()
    reporter.say(f"{job.name}: started{shared}; log: {job.log}")


def _tell_rounds(job: Job) -> None:
    stages = job.stages()
    while (stage := f"{round_name(job.told)}/evaluate") in stages:
        try:
            score = f"{stages[stage]['test']['rougeL']:.2f}"
        except (KeyError, TypeError):
            score = "not measured"
        reporter.say(f"{job.name}: round {job.told} of 0 to {job.rounds - 1}: test ROUGE-L {score}")
        job.told += 1


def _settle(job: Job, code: int, failed: list[Job]) -> None:
    _tell_rounds(job)
    minutes = (time.monotonic() - job.started) / 60
    if code == ExitCode.OK and job.is_finished:
        reporter.say(f"{job.name}: done after {minutes:.1f} min")
        return
    ended = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    text = f"{job.name} failed ({ended}); the last lines of {job.log}:\n{_last_lines(job.log)}"
    if code == ExitCode.USER_ERROR:
        raise UserError(*text.split("\n"))
    failed.append(job)
    reporter.say(text if len(failed) == 1 else f"{job.name} failed ({ended}); log: {job.log}")


def _last_lines(path: Path) -> str:
    lines = path.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (nothing)"


def _end(running: Sequence[Job], noticed: Sequence[int]) -> None:
    """Tells runs to save and end, and kills those that take too long."""
    for job in running:
        job.process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_SAVE
    while any(job.process.poll() is None for job in running):
        if time.monotonic() > deadline or len(noticed) > _MOST_PATIENCE:
            for job in running:
                job.process.kill()
        time.sleep(0.1)
    for job in running:
        job.code = job.process.wait()
