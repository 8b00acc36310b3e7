"""Files that appear whole or not at all or grow by lines, and names that are safe as files."""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime import buckets, disk, distributed, strict_json

# Common file systems allow 255 bytes; the rest is room for suffixes and `.tmp-`.
MAX_NAME_BYTES = 200


def user_cache(name: str) -> str:
    """Returns the folder of this user's cache of that name."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "ait_jax", name)


def as_path(path: Any) -> Any:
    """Returns `path` as an object with pathlib's methods.

    Path objects (pathlib, `etils.epath`) are returned unchanged; strings with a scheme (`gs://...`)
    become `epath.Path`, others `pathlib.Path`, with `~` expanded.

    Raises:
      UserError: an unknown scheme, or its package is not installed; or as `disk.local_path`.
    """
    if hasattr(path, "read_bytes"):
        return path
    text = os.fspath(path)
    return disk.local_path(text) if buckets.is_local(text) else buckets.path(text)


def absolute(path: Any) -> Any:
    """Returns the absolute `path`, as Orbax wants it; a bucket's path already is."""
    path = as_path(path)
    return path.absolute() if buckets.is_local(path) else path


@contextlib.contextmanager
def replace_with(path: Any, any_process: bool = False) -> Iterator[Path]:
    """Yields a temporary local path; on a clean exit its file becomes `path`.

    If the block raises, `path` stays as it was and the temporary file is removed. On a disk it is
    `.tmp-<name>` beside `path`, empty and this process's alone: libraries choose formats by the
    suffix, and the next writer of that name removes what a killed one left. A link at either name
    is replaced, not followed. In a bucket the file is uploaded at the end. Of several processes
    that run as one program the first one writes, and what the others write is discarded. Missing
    parent folders are made.

    Args:
      path: of the file.
      any_process: let every process write: for folders that each host may have (prepared pools).

    Raises:
      UserError: the folder is not writable, the disk is full, or another process does not finish
        writing the same file.
    """
    path = as_path(path)
    if buckets.is_local(path) and path.is_dir():
        raise UserError(f"{path} is a folder; give a file, {path / 'NAME'} for example.")
    writes = any_process or distributed.is_writer()
    if not writes or not buckets.is_local(path):
        with tempfile.TemporaryDirectory() as elsewhere:
            temporary = Path(elsewhere) / path.name
            yield temporary
            if writes:
                buckets.upload(temporary, path)
        return
    with _replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk.exclusive(temporary):
            yield temporary
            _sync(temporary)
            temporary.replace(path)


@contextlib.contextmanager
def local_copy(path: Any) -> Iterator[Path]:
    """Yields a local path with the bytes of `path`: itself, or a copy as `buckets.download`."""
    path = as_path(path)
    if buckets.is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        local = Path(elsewhere) / path.name
        buckets.download(path, local)
        yield local


def remove_tree(path: Any) -> None:
    """Deletes a folder with everything in it, as far as possible; it need not exist."""
    path = as_path(path)
    if buckets.is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.rmtree()


@contextlib.contextmanager
def _replacing(path: Any) -> Iterator[Any]:
    """Yields the name beside `path` for what becomes `path`; it goes if the block fails."""
    temporary = path.parent / (disk.TEMPORARY_PREFIX + path.name)
    with disk.writing(path):
        try:
            yield temporary
            _sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                disk.sweep(temporary)
            raise


def check_new_folder(path: Any) -> Path:
    """Returns the absolute `path` if `new_folder` may make it; raises UserError otherwise."""
    if not buckets.is_local(path):
        raise UserError(f"{path} is not a local folder; write to a local one and copy it there.")
    path = Path(os.path.abspath(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "a folder with files in it" if path.is_dir() else "a file"
        raise UserError(f"{path} is {kind}; give a new or empty folder.")
    return path


@contextlib.contextmanager
def new_folder(path: Any) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on a clean exit it becomes `path`.

    If the block raises, nothing stays behind. What a killed program left under the temporary
    name (`.tmp-<name>`) is removed first.

    Args:
      path: a local folder that is new or empty.

    Raises:
      UserError: it is not empty, a file, not local or not writable.
    """
    path = check_new_folder(path)
    with _replacing(path) as temporary:
        disk.sweep(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(path)


def _sync(path: Any) -> None:
    """Waits until a file's bytes or a folder's entries are on the disk."""
    descriptor = os.open(os.fspath(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Any, most: int | None = None) -> bytes:
    """Returns a file's bytes.

    Raises:
      OSError: unreadable, no regular file (reading a pipe or a device may never end), or longer
        than `most` bytes (EFBIG); for an object as `buckets.download`.
    """
    path = as_path(path)
    if not buckets.is_local(path):
        with buckets.errors_of(path):
            if most is not None and path.stat().length > most:
                raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
            return path.read_bytes()
    with open_regular(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
        return file.read()


def open_regular(path: Any) -> BufferedReader:
    """Opens a local file to read. Raises OSError, also for what is no regular file."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller's to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def text_name(path: Path) -> str:
    """Returns a path as text that can be written as UTF-8, even if the file's name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_text(path: Any) -> str:
    """Returns a UTF-8 file's text. Raises as `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path).decode("utf-8")


def read_given_bytes(path: Any, what: str, most: int = strict_json.MOST_BYTES) -> bytes:
    """Returns the bytes of a file that the user gave; errors call it `what` ("the task").

    Raises:
      UserError: it is unreadable, no regular file, or longer than `most` bytes.
    """
    path = as_path(path)
    try:
        return read_bytes(path, most)
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{shown_path(path)}: cannot read {what}: {problem}.") from error


def read_given_text(path: Any, what: str) -> str:
    """Returns the text of a file that the user gave, without its byte-order mark.

    Raises:
      UserError: as `read_given_bytes`, or it is not UTF-8 (with the line).
    """
    try:
        return strict_json.decode(read_given_bytes(path, what))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        known = strict_json.other_encoding(error.object)
        raise UserError(
            f"{shown_path(path)}, line {line}: not UTF-8 text{known}; save {what} as UTF-8."
        ) from error


def read_given_json(
    path: Any, what: str, most: int = strict_json.MOST_BYTES, *, lenient: bool = False
) -> Any:
    """Returns the JSON value of a file that the user gave; arguments as of `strict_json.loads`.

    Raises:
      UserError: as `read_given_bytes` and `strict_json.loads`.
    """
    data = read_given_bytes(path, what, most)
    return strict_json.loads(data, path, most_bytes=most, lenient=lenient)


def write_bytes(path: Any, data: bytes, any_process: bool = False) -> None:
    """Writes `data` to `path`, whole or not at all; see `replace_with`."""
    with replace_with(path, any_process) as temporary:
        temporary.write_bytes(data)


def write_text(path: Any, text: str, any_process: bool = False) -> None:
    """Writes `text` as UTF-8 with its line ends as they are, whole or not at all.

    Half surrogate pairs, which names of files and texts of models may have, become U+FFFD.
    """
    write_bytes(path, strict_json.without_lone_surrogates(text).encode("utf-8"), any_process)


def write_lines(path: Any, lines: Iterable[str]) -> None:
    """Writes one line for each string, whole or not at all."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_json(path: Any, value: Any, any_process: bool = False) -> None:
    """Writes `value` as JSON in insertion order, one space of indent, newline at the end.

    Raises:
      ValueError: `value` has a NaN or infinity, which JSON lacks (use None).
      UserError: as `replace_with`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", any_process)


class LinesFile:
    """A file of JSON that grows line by line, on a disk or in a bucket, which cannot append.

    On a disk a line is safe once `add` returns. In a bucket lines wait for `flush`, which writes
    the whole object: call it before anything that must not be newer than the lines.

    Args:
      path: local or in a bucket; need not exist yet.
    """

    def __init__(self, path: Any) -> None:
        self.path = as_path(path)
        self._local = buckets.is_local(self.path)
        self._lines: list[str] | None = None
        self._waiting = False

    def read(self) -> list[str]:
        """Returns the lines so far; a crash may have cut the last one short."""
        if self._lines is not None:
            return list(self._lines)
        try:
            return read_text(self.path).splitlines()
        except FileNotFoundError:
            return []

    def replace(self, lines: list[str]) -> None:
        """Replaces all lines at once."""
        write_lines(self.path, lines)
        if not self._local:
            self._lines = list(lines)

    def add(self, line: str) -> None:
        """Appends a line."""
        if self._local:
            with disk.writing(self.path):
                disk.append_line(self.path, line)
            return
        self._lines = [*self.read(), line]
        self._waiting = True

    def flush(self) -> None:
        """Uploads what waits for a bucket."""
        if self._waiting and self._lines is not None:
            write_lines(self.path, self._lines)
            self._waiting = False


def check_name(name: Any, what: str) -> str:
    """Returns `name` if it is safe as a file name and as a line of a split file.

    Args:
      name: from outside, a task's, for example.
      what: what it names and where, for the message ("task name in a.txt").

    Raises:
      UserError: not a string, empty, longer than 200 bytes of UTF-8, or it has path separators,
        control characters, a leading dot, or white space at an end.
    """
    if problem := _name_problem(name):
        raise UserError(
            f"{what} {shown(name)} {problem}. Names become file names: use letters, digits, "
            f"'_', '-' and '.', at most {MAX_NAME_BYTES} bytes."
        )
    return name


def _name_problem(name: Any) -> str:
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}, not a string"
    # Almost all names are printable ASCII, and a run checks every name several times.
    plain = name.isascii() and name.isprintable()
    categories = set() if plain else {unicodedata.category(c) for c in name}
    size = len(name.encode("utf-8", "replace"))
    problems = {
        "is empty": not name,
        "contains a path separator": "/" in name or "\\" in name,
        "contains a control character": bool(categories & {"Cc", "Cs", "Zl", "Zp"}),
        "starts with a dot": name.startswith("."),
        "starts or ends with white space": name != name.strip(),
        f"is {size} bytes long": size > MAX_NAME_BYTES,
    }
    return next((problem for problem, found in problems.items() if found), "")
