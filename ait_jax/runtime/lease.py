"""A lock on a folder in a bucket: an object that its holder keeps writing anew.

Buckets have no locks that end with the process which holds them. So the holder shows that it
lives, and an object that stays as it is for a while belongs to one that died.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.runtime import buckets

RENEW_SECONDS = 15.0
# Three times without a sign, then the holder is taken to be dead.
STALE_SECONDS = 50.0
_LOOK_SECONDS = 2.0


class Held(UserError):
    """Another process holds the lease."""


@contextmanager
def lease(path: Any, report: Callable[[str], None] = print) -> Iterator["Holder"]:
    """Holds the object `path` while the block runs.

    One that a process of this machine left behind is taken over at once; one of another
    machine after `STALE_SECONDS` without a sign of life.

    Args:
      path: in a bucket.
      report: takes a line if there is something to wait for.

    Raises:
      Held: its holder lives.
      UserError: the bucket does not answer.
    """
    holder = Holder(path)
    holder.acquire(report)
    renewing = threading.Thread(target=holder.renew, daemon=True, name="lease")
    renewing.start()
    try:
        yield holder
    finally:
        holder.done.set()
        renewing.join(timeout=RENEW_SECONDS)
        holder.release()


class Holder:
    """The process that has the lease, or wants it."""

    def __init__(self, path: Any) -> None:
        self.path = path
        self.system, self.name = buckets.file_system(path)
        self.known = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
        }
        self.beats = 0
        self.done = threading.Event()

    def acquire(self, report: Callable[[str], None]) -> None:
        with buckets.errors_of(self.path):
            try:
                self.system.pipe_file(self.name, self._content(), mode="create")
                return
            except FileExistsError:
                pass
            self._await_death(report)
            self.system.pipe_file(self.name, self._content())
            # Another may have waited for the same death: the last one to write has it.
            time.sleep(_LOOK_SECONDS)
            if not self._is_own(self._read()):
                raise self._held(self._read())

    def _await_death(self, report: Callable[[str], None]) -> None:
        first = self._read()
        if _is_dead_here(first):
            return
        report(
            f"{self.path} is held by {_words(first)}; waiting {STALE_SECONDS:.0f} s for a sign of life"
        )
        end = time.monotonic() + STALE_SECONDS
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            now = self._read()
            if now is None:  # given back meanwhile
                return
            if now != first:
                raise self._held(now)

    def _held(self, holder: dict | None) -> Held:
        return Held(
            f"{self.path} is held by {_words(holder)}, another process of this run. Wait for it or stop it, "
            "or set another --gin.MODEL_DIR."
        )

    def _content(self) -> bytes:
        return json.dumps(self.known | {"beats": self.beats}).encode()

    def _read(self) -> dict | None:
        """Returns what the object says; None where it is gone."""
        try:
            value = json.loads(self.system.cat_file(self.name))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _is_own(self, content: dict | None) -> bool:
        return bool(content) and content.get("id") == self.known["id"]

    def renew(self) -> None:
        while not self.done.wait(RENEW_SECONDS):
            self.beats += 1
            try:
                if self._is_own(self._read()):
                    self.system.pipe_file(self.name, self._content())
            except Exception:  # A bucket that does not answer now may do so next time.
                continue

    def check(self) -> None:
        """Raises Held if another process took this one for dead meanwhile."""
        with buckets.errors_of(self.path):
            now = self._read()
        if now is not None and not self._is_own(now):
            raise self._held(now)

    def release(self) -> None:
        try:
            if self._is_own(self._read()):
                self.system.rm_file(self.name)
        except Exception:  # It will look dead in a while, that is all.
            pass


def _boot() -> str:
    """Returns what tells this start of this machine from others; "" where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_dead_here(content: dict | None) -> bool:
    """Says whether the holder was a process of this machine and has ended."""
    if content is None:
        return True
    here = (socket.gethostname(), _boot())
    if not here[1] or (content.get("host"), content.get("boot")) != here:
        return False
    try:
        os.kill(int(content["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False


def _words(content: dict | None) -> str:
    content = content or {}
    return f"process {content.get('pid', '?')} of {content.get('host', 'another machine')}"
