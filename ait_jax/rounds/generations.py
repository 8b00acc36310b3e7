"""A run's pool over time: tells an extended pool from a changed one, and what each round saw.

MODEL_DIR has `pool_000.txt`, the tasks that the run began with, and `pool_001.txt`, ... with those
that each extension added: one line per task, the SHA-256 of its content and its name. A round
settles on a generation before it scores (the stage `round_NNN/pool` of run.json); if it is
interrupted after that, it continues with the same one, whatever the pool holds by then.
"""

import re
from collections.abc import Mapping
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.record import round_name
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime.files import check_name, read_text, write_lines

_STAGE, _MOST_NAMED = "pool", 5
_LINE = re.compile(r"([0-9a-f]{64}) (.+)")


class Generations:
    """The generations of the pool of one run, whose `directory` may be opened later."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def begin(self, pool: TaskPool) -> None:
        """Writes generation 0, in a run's first stage."""
        self._write(0, pool.digests())

    def changes(self, pool: TaskPool, state: Mapping[str, Any]) -> list[str]:
        """Returns lines about the tasks of run.json's `state` that `pool` lacks or has changed."""
        number, fingerprint = _latest(state)
        if fingerprint == pool.fingerprint():
            return []
        return changes(_known(self._directory.path, number), pool.digests())

    def pending(self, pool: TaskPool) -> int:
        """Returns how many tasks may still join."""
        number, fingerprint = _latest(self._directory.state)
        if fingerprint == pool.fingerprint():
            return 0
        known = _known(self._directory.path, number)
        return len(pool.digests().keys() - known.keys() - _held_out(pool))

    def is_settled(self, round_index: int) -> bool:
        """Says whether a round has settled on a generation."""
        return self._directory.is_done(_stage_of(round_index))

    def settle(self, round_index: int, pool: TaskPool) -> dict[str, Any]:
        """Settles which generation a round uses, unless that is done; returns run.json's entry.

        Tasks added since the last generation go to the round's `joined_tasks.txt`, ascending by
        name, except those that the pool's own splits hold out (test and dev tasks, tasks of test
        datasets): a run's test and dev tasks never change.

        Raises:
          UserError: a task was changed or removed, by name.
        """

        def work() -> dict[str, Any]:
            number, _ = _latest(self._directory.state)
            known, now = _known(self._directory.path, number), pool.digests()
            different = changes(known, now)
            if different:
                raise UserError(
                    "The pool was changed, not only extended, since this run began:",
                    *(f"  {change}" for change in different),
                    "Restore these tasks to continue, or start over in another --gin.MODEL_DIR.",
                )
            added = sorted(now.keys() - known.keys())
            held_out = _held_out(pool)
            joined = [name for name in added if name not in held_out]
            if added:
                number += 1
                self._write(number, {name: now[name] for name in added})
                write_lines(self._joined_path(round_index), joined)
            return {
                "generation": number,
                "fingerprint": pool.fingerprint(),
                "tasks": len(now),
                "joined": len(joined),
                "held_out": len(added) - len(joined),
            }

        return self._directory.stage(_stage_of(round_index), work)

    def joined(self, round_index: int, pool: TaskPool) -> tuple[str, ...]:
        """Returns the tasks that joined at a settled round.

        Raises:
          UserError: `pool` lacks one: this process sees an older pool than the writer.
        """
        if not self._directory.state["stages"][_stage_of(round_index)]["joined"]:
            return ()
        names = read_names(self._joined_path(round_index))
        missing = [name for name in names if name not in pool]
        if missing:
            raise UserError(
                f"{self._joined_path(round_index)} names {shown(missing[0])}, which this process's "
                "pool lacks; run the same command again once every host sees the whole pool."
            )
        return names

    def _joined_path(self, round_index: int) -> Any:
        return self._directory.folder(round_index) / "joined_tasks.txt"

    def _write(self, number: int, digests: Mapping[str, bytes]) -> None:
        lines = [f"{digests[name].hex()} {name}" for name in sorted(digests)]
        write_lines(_file(self._directory.path, number), lines)


def known_changes(path: Any, state: Mapping[str, Any], pool: TaskPool) -> list[str]:
    """Returns a few lines about tasks of a run's pool that `pool` lacks or has changed.

    Args:
      path: of the run directory; `pool_000.txt` need not be there.
      state: of its run.json.

    Raises:
      UserError: a list of the pool's tasks is damaged.
    """
    number, fingerprint = _latest(state)
    if fingerprint == pool.fingerprint():
        return []
    if not _file(path, 0).exists():
        return [f"its fingerprint was {fingerprint[:16]}..., now {pool.fingerprint()[:16]}..."]
    return changes(_known(path, number), pool.digests())


def changes(known: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[str]:
    """Returns a few lines about tasks of `known` that are missing or different in `now`."""
    lines = [
        f"task {shown(name)} of the pool was {'changed' if name in now else 'removed'}"
        for name in sorted(known)
        if now.get(name) != known[name]
    ]
    more = len(lines) - _MOST_NAMED
    return [*lines[:_MOST_NAMED], f"and {more:,} more tasks"] if more > 0 else lines


def _stage_of(round_index: int) -> str:
    return f"{round_name(round_index)}/{_STAGE}"


def _latest(state: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the last settled generation, or 0, and its fingerprint."""
    stages = state["stages"]
    settled = [stages[name] for name in stages if name.endswith(f"/{_STAGE}")]
    begun: dict[str, Any] = {"generation": 0, "fingerprint": state["pool"]["fingerprint"]}
    last = max(settled, key=lambda result: result["generation"], default=begun)
    return last["generation"], last["fingerprint"]


def _held_out(pool: TaskPool) -> frozenset[str]:
    """Returns the tasks that the pool's own splits do not offer for training."""
    if pool.splits is None:
        return frozenset()
    return frozenset(pool) - {*pool.splits.train, *pool.splits.remain}


def _file(path: Any, number: int) -> Any:
    return path / f"pool_{number:03d}.txt"


def _known(path: Any, number: int) -> dict[str, bytes]:
    """Returns task -> digest of a generation and the earlier ones."""
    known: dict[str, bytes] = {}
    for earlier in range(number + 1):
        known |= _read(_file(path, earlier))
    return known


def _read(path: Any) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    try:
        for line in read_text(path).removesuffix("\n").split("\n"):
            found = _LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"not a digest and a task name: {shown(line)}")
            digests[check_name(found[2], "task name")] = bytes.fromhex(found[1])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{shown_path(path)} is missing or damaged ({error}), so nothing tells whether the "
            "pool was only extended; restore it or set another --gin.MODEL_DIR."
        ) from error
    return digests
