"""A lock on a folder in a bucket: an object that its holder keeps rewriting.

Buckets have no locks that end with their process. So the holder shows that it is alive, and an
object that stays the same for a while belongs to a dead one.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.runtime import buckets, reporter

RENEW_SECONDS = 15.0
# After three missed renewals the holder counts as dead.
STALE_SECONDS = 50.0
_LOOK_SECONDS = 2.0


class Held(UserError):
    """Another process holds the lease."""


@contextmanager
def lease(path: Any, say: Callable[[str], None] = reporter.say) -> Iterator["Holder"]:
    """Holds the object `path` for the block.

    A dead process's lease is taken over: at once if it ran on this machine, otherwise after
    `STALE_SECONDS` without a sign of life; `say` is told of the wait. Raises Held if its holder is
    alive.
    """
    holder = Holder(path)
    holder.acquire(say)
    renewing = threading.Thread(target=holder.renew, daemon=True, name="lease")
    renewing.start()
    try:
        yield holder
    finally:
        holder.done.set()
        renewing.join(timeout=RENEW_SECONDS)
        holder.release()


class Holder:
    """The process that has the lease or wants it."""

    def __init__(self, path: Any) -> None:
        self.path = path
        self.system, self.name = buckets.file_system(path)
        self.known = {"id": uuid.uuid4().hex, "host": socket.gethostname()}
        self.known |= {"boot": _boot(), "pid": os.getpid()}
        self.beats = 0
        self.done = threading.Event()

    def acquire(self, say: Callable[[str], None]) -> None:
        """Takes the lease, waiting for a dead holder's to go stale; raises Held."""
        with buckets.errors_of(self.path):
            with suppress(FileExistsError):
                self.system.pipe_file(self.name, self._content(), mode="create")
                return
            self._await_death(say)
            self.system.pipe_file(self.name, self._content())
            # Others may have waited for the same death: the last one to write has the lease.
            time.sleep(_LOOK_SECONDS)
            if not self._is_own(self._read()):
                raise self._held(self._read())

    def _await_death(self, say: Callable[[str], None]) -> None:
        first = self._read()
        if _is_dead_here(first):
            return
        held = f"{self.path} is held by {_words(first)}"
        say(f"{held}; waiting {STALE_SECONDS:.0f} s for a sign of life")
        end = time.monotonic() + STALE_SECONDS
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            now = self._read()
            if now is None:  # released meanwhile
                return
            if now != first:
                raise self._held(now)

    def _held(self, holder: dict | None) -> Held:
        return Held(
            f"{self.path} is held by {_words(holder)}, another process of this run; wait for it, "
            "stop it, or set another --gin.MODEL_DIR."
        )

    def _content(self) -> bytes:
        return json.dumps(self.known | {"beats": self.beats}).encode()

    def _read(self) -> dict | None:
        """Returns the object's content, None if it is gone."""
        try:
            value = json.loads(self.system.cat_file(self.name))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _is_own(self, content: dict | None) -> bool:
        return content is not None and content.get("id") == self.known["id"]

    def renew(self) -> None:
        """Rewrites the object until `done` is set."""
        while not self.done.wait(RENEW_SECONDS):
            self.beats += 1
            with suppress(Exception):  # the bucket may answer next time
                if self._is_own(self._read()):
                    self.system.pipe_file(self.name, self._content())

    def check(self) -> None:
        """Raises Held if another process has taken the lease, believing this one dead."""
        with buckets.errors_of(self.path):
            now = self._read()
        if now is not None and not self._is_own(now):
            raise self._held(now)

    def release(self) -> None:
        """Deletes the object, if it is still this process's."""
        with suppress(Exception):  # then others wait until it looks dead
            if self._is_own(self._read()):
                self.system.rm_file(self.name)


def _boot() -> str:
    """Returns the ID of this boot of this machine, "" if it has none."""
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
