"""What follows from how a command on one of many hosts ended. Nothing slow is imported here."""

import dataclasses

from ait_jax.errors import ExitCode

# A failure after this long is the first of a new series: it does not add to last week's.
SERIES_ENDS_AFTER_S = 3600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 300.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What to do after an attempt.

    Attributes:
      state: `done`, `failed` (for good), `preempted` or `waiting` (another attempt follows).
      failures: of the series so far, this one included if it counts.
      pause_s: until the next attempt.
      reason: in words.
    """

    state: str
    failures: int
    pause_s: float
    reason: str


def judge(code: int, failures: int, lasted_s: float, max_retries: int) -> Verdict:
    """Returns what follows from an exit code (negative: the number of the signal that killed it).

    Preemption is retried and does not count. The user's mistakes and a failed preflight are
    final. Everything else is retried with growing pauses, `max_retries` times in a series.
    """
    if code == ExitCode.OK:
        return Verdict("done", failures, 0.0, "exit code 0")
    if code == ExitCode.PREEMPTED:
        return Verdict("preempted", failures, _FIRST_PAUSE_S, "preempted, progress saved")
    if code in (ExitCode.USER_ERROR, ExitCode.PREFLIGHT):
        what = "a mistake in the command" if code == ExitCode.USER_ERROR else "preflight failed"
        return Verdict("failed", failures, 0.0, f"{what} (exit code {code}); not retried")
    failures = 1 if lasted_s >= SERIES_ENDS_AFTER_S else failures + 1
    if code < 0:
        what = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    elif code == ExitCode.HOST_LOST:
        what = f"another host was lost (exit code {code})"
    else:
        what = f"failed (exit code {code})"
    if failures > max_retries:
        return Verdict("failed", failures, 0.0, f"{what}; {max_retries} retries are used up")
    pause = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
    return Verdict("waiting", failures, pause, f"{what}; retry {failures} of {max_retries}")
