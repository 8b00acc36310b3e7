"""A disk as it may be: full, read-only, shared with others, with links where files should be.

Folders that programs write to may come from elsewhere: a link in one would let a write end in any
other file of the user. So nothing here follows a link.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ait_jax.errors import UserError, first_line, shown, shown_path

TEMPORARY_PREFIX = ".tmp-"
MAX_COMPONENT_BYTES = 255  # of the usual file systems
_PATIENCE_SECONDS = 60.0
_BLOCK = 1 << 16
# Failures of the place, wherever they are met; any other is a defect.
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
_BROKEN = (*_TOO_MANY_OPEN, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_REFUSED = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
_IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


def local_path(path: Any) -> Path:
    """Returns a path on a disk, with `~` expanded.

    Raises:
      UserError: no file system can have it: a NUL, a name of more than 255 bytes, half a
        character, or the home of a user who does not exist.
    """
    text = os.fspath(path)
    try:
        longest = max((len(os.fsencode(part)) for part in text.split("/")), default=0)
        problem = ""
        if "\0" in text:
            problem = "it holds a NUL character"
        elif longest > MAX_COMPONENT_BYTES:
            problem = f"a name in it has {longest} bytes, and file systems allow 255"
        if not problem:
            return Path(text).expanduser()
    except UnicodeEncodeError:
        problem = "it holds half a character (a lone surrogate)"
    except RuntimeError:
        problem = f"no user is called {text.split('/', maxsplit=1)[0][1:]}"
    raise UserError(f"{shown(text)} cannot be a path: {problem}.")


# --- what failed ---


def trouble(error: BaseException) -> str | None:
    """Returns what is wrong with the disk or its limits if that is behind `error`, else None.

    Libraries in C++ (TensorStore, Arrow) tell it in the text of their own errors.
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        now = waiting.pop()
        if now is None or now in seen:
            continue
        seen.append(now)
        text = "" if isinstance(now, UserError) else str(now)
        number = getattr(now, "errno", None)
        if number not in (*_BROKEN, *_REFUSED) or os.strerror(number) not in text:
            number = next((n for n in _BROKEN if os.strerror(n) in text), None)
        if number in _BROKEN or (number in _REFUSED and getattr(now, "filename", None)):
            return _words(number, getattr(now, "filename", None))
        context = None if now.__suppress_context__ else now.__context__
        waiting += [context, now.__cause__, *getattr(now, "exceptions", ())]
    return None


def _words(number: int | None, name: Any) -> str:
    said = os.strerror(number or 0)
    named = isinstance(name, str | bytes | os.PathLike)
    where = f"{shown_path(os.fsdecode(name))}: " if named else ""
    if number in _TOO_MANY_OPEN:
        import resource  # imported late: needed for this message alone

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{where}{said}: this process may have {soft} (`ulimit -n`); raise that limit, "
            f"`ulimit -n {hard}` for example"
        )
    return f"{where}{said}"


@contextlib.contextmanager
def writing(path: Any, needed: str = "a writable folder (for a run, MODEL_DIR)") -> Iterator[None]:
    """Turns what makes `path` impossible to write into a UserError; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        words = trouble(error)
        if words is None and getattr(error, "errno", None) in (*_REFUSED, *_IN_THE_WAY):
            words = first_line(error)
        if words is None:
            raise
        raise UserError(
            f"cannot write {shown(str(path))}: {words}. Give {needed} or free some "
            "space; the same command continues."
        ) from error


# --- files ---


def open_unlinked(path: Any, flags: int) -> int:
    """Returns a descriptor of a regular file, as `os.open`, without following a link to it.

    Raises:
      UserError: it is a link, a pipe, a device or a socket.
      OSError: as `os.open`.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for a writer
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV):
            raise
        raise _no_file(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


def _no_file(path: Any) -> UserError:
    what = "a link" if os.path.islink(path) else "not a regular file"
    return UserError(f"{shown_path(path)} is {what}, and nothing is written through it; remove it.")


def lock_file(path: Any) -> BinaryIO:
    """Opens a file that exists to be locked, made if need be; what is in it stays.

    Raises:
      UserError, OSError: as `open_unlinked`.
    """
    return os.fdopen(open_unlinked(path, os.O_RDWR | os.O_CREAT), "r+b")


@contextlib.contextmanager
def exclusive(path: Any) -> Iterator[None]:
    """Creates the file `path` for the block, which may write to it by its name.

    What a dead process left there is removed first, a link among others; a living one that writes
    the same file is waited for.

    Raises:
      UserError: that one does not come to an end.
    """
    descriptor = _create(path)
    try:
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _create(path: Any) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, flags, 0o666)
            if hold(descriptor) and _is_at(path, descriptor):
                return descriptor
            os.close(descriptor)  # another process took it for one without an owner
        if sweep(path):
            continue
        if time.monotonic() > end:
            raise UserError(f"{shown_path(path)} is being written by another process; try again.")
        time.sleep(0.02)


def sweep(path: Any) -> bool:
    """Removes what is at `path` unless a living process writes it; says whether it is gone."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        elif not stat.S_ISREG(mode):
            os.unlink(path)
        else:
            descriptor = open_unlinked(path, os.O_RDONLY)
            try:
                if not hold(descriptor):
                    return False
                if _is_at(path, descriptor):
                    os.unlink(path)
            finally:
                os.close(descriptor)
    return True


def hold(descriptor: int) -> bool:
    """Locks a file for this descriptor; False if another one has it. True also without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_at(path: Any, descriptor: int) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def append_line(path: Any, line: str) -> None:
    """Appends a line of JSON to a file, on the disk when this returns, whole or not at all.

    A last line that a crash has cut is dropped first. A file with several hard links is copied
    first, so that the others stay as they are.

    Raises:
      UserError: as `open_unlinked`.
    """
    descriptor = open_unlinked(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        if os.fstat(descriptor).st_nlink > 1:
            descriptor = _copied(path, descriptor)
        size, end = _whole(descriptor)
        try:
            data = memoryview(end + line.encode("utf-8") + b"\n")
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _copied(path: Any, descriptor: int) -> int:
    """Replaces a file by a copy of itself and returns a descriptor of that; closes the other."""
    temporary = Path(path).with_name(TEMPORARY_PREFIX + Path(path).name)
    with exclusive(temporary), os.fdopen(descriptor, "rb") as old:
        with open(temporary, "wb") as new:
            shutil.copyfileobj(old, new)
        os.replace(temporary, path)
    return open_unlinked(path, os.O_RDWR | os.O_APPEND)


def _whole(descriptor: int) -> tuple[int, bytes]:
    """Cuts off half a last line; returns the size, and what ends a whole one that has no end."""
    size = os.fstat(descriptor).st_size
    tail, start = b"", size
    while start and b"\n" not in tail:
        begin = max(0, start - _BLOCK)
        tail = os.pread(descriptor, start - begin, begin) + tail
        start = begin
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return size, b""
    try:
        json.loads(last)
        return size, b"\n"
    except (ValueError, RecursionError):
        os.ftruncate(descriptor, size - len(last))
        return size - len(last), b""


def tidy(folder: Any, foreign: Collection[str] = (), depth: int | None = None) -> None:
    """Removes what dead processes left in a folder that is locked, and refuses links in it.

    Args:
      folder: need not exist; may be a link itself.
      foreign: folders directly in it that other programs keep, with their own links.
      depth: how many levels to look at; None for all.

    Raises:
      UserError: there is a link: writing would leave the folder.
    """
    waiting = [(os.fspath(folder), 1)]
    while waiting:
        here, level = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                sweep(entry.path)
            elif entry.is_symlink():
                raise UserError(
                    f"{shown_path(entry.path)} is a link, and nothing is written through links; "
                    "replace it by what it points to, or remove it."
                )
            elif entry.is_dir() and level != depth and not (level == 1 and entry.name in foreign):
                waiting.append((entry.path, level + 1))
