"""A run's pool over time: "extended" is told from "changed", and every round says what it saw.

MODEL_DIR has `pool_000.txt`, the tasks that the run began with, and `pool_001.txt`, ... with those
that each extension added: one line a task, the SHA-256 of its content and its name. A round
settles which generation it uses before it scores (the stage `round_NNN/pool` of run.json), so a
run that is interrupted after that uses the same one when it goes on, whatever the pool holds by then.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime.files import check_name, write_lines

_STAGE, _MOST_NAMED = "pool", 5
_LINE = re.compile(r"([0-9a-f]{64}) (.+)")


class Generations:
    """The generations of the pool of one run.

    Args:
      directory: of the run; may be opened later.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def begin(self, pool: TaskPool) -> None:
        """Writes generation 0: part of the work of a run's first stage."""
        self._write(0, pool.digests())

    def changes(self, pool: TaskPool, state: Mapping[str, Any]) -> list[str]:
        """Returns what of the run's tasks `pool` lacks or has otherwise, one line a task.

        Args:
          state: what run.json holds.
        """
        number, fingerprint = _latest(state)
        if fingerprint == pool.fingerprint():
            return []
        return changes(self._known(number), pool.digests())

    def pending(self, pool: TaskPool) -> int:
        """Returns how many tasks may join that no round has settled on yet."""
        number, fingerprint = _latest(self._directory.state)
        if fingerprint == pool.fingerprint():
            return 0
        return len(pool.digests().keys() - self._known(number).keys() - _held_out(pool))

    def is_settled(self, round: int) -> bool:
        return self._directory.is_done(_stage_of(round))

    def settle(self, round: int, pool: TaskPool) -> dict[str, Any]:
        """Settles which generation a round uses, unless that is done; returns run.json's words on it.

        Tasks added since the generation before become the round's `joined_tasks.txt`, ascending
        by name, but for those that the pool's own splits hold out (test and dev tasks, tasks of
        test datasets): test and dev tasks of a run stay as they are.

        Raises:
          UserError: a task was changed or removed, by name.
        """

        def work() -> dict[str, Any]:
            number, _ = _latest(self._directory.state)
            known, now = self._known(number), pool.digests()
            different = changes(known, now)
            if different:
                raise UserError(
                    "The pool was not only extended since this run began:\n  "
                    + "\n  ".join(different)
                    + "\nPut these tasks back to continue, or start anew in another --gin.MODEL_DIR."
                )
            added = sorted(now.keys() - known.keys())
            held_out = _held_out(pool)
            joined = [name for name in added if name not in held_out]
            if added:
                number += 1
                self._write(number, {name: now[name] for name in added})
                write_lines(self._joined_path(round), joined)
            return {
                "generation": number,
                "fingerprint": pool.fingerprint(),
                "tasks": len(now),
                "joined": len(joined),
                "held_out": len(added) - len(joined),
            }

        return self._directory.stage(_stage_of(round), work)

    def joined(self, round: int, pool: TaskPool) -> tuple[str, ...]:
        """Returns the tasks that joined at a round that has settled.

        Raises:
          UserError: `pool` lacks one: another process's view of it is older.
        """
        if not self._directory.state["stages"][_stage_of(round)]["joined"]:
            return ()
        names = read_names(self._joined_path(round))
        _, missing = pool.drop_missing(names)
        if missing:
            raise UserError(
                f"{self._joined_path(round)} names {missing[0]!r}, which the pool lacks in this "
                "process; start the same command again when every host sees the whole pool."
            )
        return names

    def _joined_path(self, round: int) -> Path:
        return self._directory.round(round) / "joined_tasks.txt"

    def _path(self, number: int) -> Path:
        return self._directory.path / f"pool_{number:03d}.txt"

    def _known(self, number: int) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        for earlier in range(number + 1):
            known |= _read(self._path(earlier))
        return known

    def _write(self, number: int, digests: Mapping[str, bytes]) -> None:
        lines = [f"{digests[name].hex()} {name}" for name in sorted(digests)]
        write_lines(self._path(number), lines)


def known_changes(path: Any, state: Mapping[str, Any], pool: TaskPool) -> list[str]:
    """Returns what a run's pool has that `pool` lacks or has otherwise, few lines; none: it may
    have further tasks, no more.

    Args:
      path: of the run directory; `pool_000.txt` need not be there.
      state: what its run.json holds.

    Raises:
      UserError: a list of the pool's tasks is damaged.
    """
    number, fingerprint = _latest(state)
    if fingerprint == pool.fingerprint():
        return []
    lists = [path / f"pool_{earlier:03d}.txt" for earlier in range(number + 1)]
    if not lists[0].exists():
        return [f"its fingerprint was {fingerprint[:16]}..., now {pool.fingerprint()[:16]}..."]
    known: dict[str, bytes] = {}
    for each in lists:
        known |= _read(each)
    return changes(known, pool.digests())


def changes(known: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[str]:
    """Returns a line for tasks of `known` that are missing or different in `now`, few of them."""
    lines = [
        f"task {name!r} of the pool was {'changed' if name in now else 'removed'}"
        for name in sorted(known)
        if now.get(name) != known[name]
    ]
    more = len(lines) - _MOST_NAMED
    return [*lines[:_MOST_NAMED], f"and {more:,} more tasks"] if more > 0 else lines


def _stage_of(round: int) -> str:
    return f"round_{round:03d}/{_STAGE}"


def _latest(state: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the last generation that a round has settled on, or 0, and its fingerprint."""
    stages = state["stages"]
    settled = [stages[name] for name in stages if name.endswith(f"/{_STAGE}")]
    begun = {"generation": 0, "fingerprint": state["pool"]["fingerprint"]}
    last = max(settled, key=lambda result: result["generation"], default=begun)
    return last["generation"], last["fingerprint"]


def _held_out(pool: TaskPool) -> frozenset[str]:
    """Returns the tasks that the pool's own splits do not offer."""
    if pool.splits is None:
        return frozenset()
    return frozenset(pool) - {*pool.splits.train, *pool.splits.remain}


def _read(path: Path) -> dict[str, bytes]:
    try:
        digests = {}
        for line in path.read_bytes().decode().removesuffix("\n").split("\n"):
            digest, name = _LINE.fullmatch(line).groups()
            digests[check_name(name, "task name")] = bytes.fromhex(digest)
        return digests
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}), so it cannot be told whether the pool was "
            "only extended; restore it or set another --gin.MODEL_DIR."
        ) from error
