"""Files that appear whole or not at all, and names that are safe to become files."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError
from ait_jax.runtime import buckets, distributed

# The limit of common file systems is 255 bytes; the rest is room for suffixes and `.tmp-`.
MAX_NAME_BYTES = 200
_TEMPORARY_PREFIX = ".tmp-"
# Failures of the place that is written to, which the user can mend; anything else is a defect.
_UNWRITABLE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
}


def as_path(path: Any) -> Any:
    """Returns `path` as an object with pathlib's methods.

    Objects that have them already (pathlib, `etils.epath`) are returned unchanged,
    strings with a scheme (`gs://...`) become `epath.Path`, others `pathlib.Path` with the
    home folder in place of `~`.

    Raises:
      UserError: a scheme that is not known, or whose package is not installed.
    """
    if hasattr(path, "read_bytes"):
        return path
    text = os.fspath(path)
    return Path(text).expanduser() if buckets.is_local(text) else buckets.path(text)


def absolute(path: Any) -> Any:
    """Returns `path` from the root on, as Orbax wants it; a bucket's path is that already."""
    path = as_path(path)
    return path.absolute() if buckets.is_local(path) else path


@contextlib.contextmanager
def replace_with(path: Any, any_process: bool = False) -> Iterator[Path]:
    """Yields a temporary local path; on a clean exit its file becomes `path`.

    The block writes the whole file there. If the block raises, `path` keeps what it held
    before and the temporary file is removed. On a disk the temporary name is `.tmp-<name>` beside
    `path`: it keeps the suffix (libraries choose formats by it), and it is the same in every run,
    so that what a killed run left behind is overwritten, not accumulated. For a bucket the file
    is uploaded at the end. One process at a time may write a given path: of several that run as
    one program the first one does, and what the others write is thrown away. Missing parent
    folders are made.

    Args:
      path: of the file.
      any_process: let this process write, whichever of several it is: for folders of which
        each host may have its own and that a lock guards (prepared pools).

    Raises:
      UserError: the folder cannot be written to, or the disk is full.
    """
    path = as_path(path)
    writes = any_process or distributed.is_writer()
    if not writes or not buckets.is_local(path):
        with tempfile.TemporaryDirectory() as elsewhere:
            temporary = Path(elsewhere) / path.name
            yield temporary
            if writes:
                buckets.upload(temporary, path)
        return
    temporary = path.parent / (_TEMPORARY_PREFIX + path.name)
    with _unwritable_is_a_mistake(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def local_copy(path: Any) -> Iterator[Path]:
    """Yields a local path with the bytes of `path`: itself, or a copy of a bucket's object.

    Raises:
      FileNotFoundError: there is no such object.
      UserError: the bucket does not answer.
    """
    path = as_path(path)
    if buckets.is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        local = Path(elsewhere) / path.name
        buckets.download(path, local)
        yield local


def remove_tree(path: Any) -> None:
    """Deletes a folder and all in it, as far as that goes; one that is not there is no error."""
    path = as_path(path)
    if buckets.is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.rmtree()


@contextlib.contextmanager
def _unwritable_is_a_mistake(path: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise UserError(
            f"cannot write {str(path)!r}: {error.strerror}. Give a folder that can be written to "
            "(for a run: the gin name MODEL_DIR) or free some space."
        ) from error


def check_new_folder(path: Any) -> Path:
    """Returns `path`, absolute, if `new_folder` may make it there; raises UserError else."""
    if not buckets.is_local(path):
        raise UserError(f"{path} is not a local folder; write to one and copy it there.")
    path = Path(os.path.abspath(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "a folder with files in it" if path.is_dir() else "a file"
        raise UserError(f"{path} is {kind}; needed: a folder that is not there yet, or empty.")
    return path


@contextlib.contextmanager
def new_folder(path: Any) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on a clean exit it becomes `path`.

    If the block raises, nothing stays behind. What a killed program left under the temporary
    name (`.tmp-<name>`) is removed first.

    Args:
      path: a local folder that is not there yet, or is empty.

    Raises:
      UserError: the folder holds something, is a file, is not local or cannot be written.
    """
    path = check_new_folder(path)
    temporary = path.parent / (_TEMPORARY_PREFIX + path.name)
    with _unwritable_is_a_mistake(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sync(path: Any) -> None:
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(os.fspath(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Any) -> bytes:
    """Returns a file's bytes.

    Raises:
      OSError: a file on a disk that is not there or cannot be read.
      FileNotFoundError: no such object in the bucket.
      UserError, buckets.Unavailable: as `buckets.errors_of`.
    """
    path = as_path(path)
    if buckets.is_local(path):
        return path.read_bytes()
    with buckets.errors_of(path):
        return path.read_bytes()


def read_text(path: Any) -> str:
    """Returns a UTF-8 file's text. Raises as `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path).decode("utf-8")


def read_given_text(path: Any, what: str) -> str:
    """Returns the text of a file that the user gave; `what` names it in messages: "the task".

    Raises:
      UserError: it cannot be read or is not UTF-8 (with the line).
    """
    path = as_path(path)
    try:
        return read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {what} {str(path)!r}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save {what} as UTF-8.") from error


def read_given_json(path: Any, what: str) -> Any:
    """Returns the JSON value of a file that the user gave.

    Raises:
      UserError: as `read_given_text`, or malformed JSON (with line and column).
    """
    text = read_given_text(path, what)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: malformed JSON: {error.msg}."
        ) from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply for {what}.") from error


def write_bytes(path: Any, data: bytes, any_process: bool = False) -> None:
    """Writes `data` to `path`, whole or not at all. Arguments and errors as of `replace_with`."""
    with replace_with(path, any_process) as temporary:
        temporary.write_bytes(data)


def write_text(path: Any, text: str, any_process: bool = False) -> None:
    """Writes `text` as UTF-8 with its line ends untouched, whole or not at all."""
    write_bytes(path, text.encode("utf-8"), any_process)


def write_lines(path: Any, lines: Iterable[str]) -> None:
    """Writes one line for each string, whole or not at all."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_json(path: Any, value: Any, any_process: bool = False) -> None:
    """Writes `value` as JSON in insertion order, one space of indent, newline at the end.

    Raises:
      ValueError: `value` holds NaN or an infinity, which JSON does not have (use None).
      UserError: as `replace_with`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", any_process)


def check_name(name: Any, what: str) -> str:
    """Returns `name` if it is safe as a file name and as a line of a split file.

    Args:
      name: a name from outside, of a task, for example.
      what: what it names and where it came from, for the message ("task name in a.txt").

    Raises:
      UserError: not a string, empty, path separators, NUL or other control characters,
        a leading dot, white space at an end, or more than 200 bytes of UTF-8.
    """
    problem = _name_problem(name)
    if problem:
        shown = repr(name) if len(str(name)) <= 80 else repr(str(name)[:80]) + "..."
        raise UserError(
            f"{what} {shown} {problem}. Names become file names: use letters, digits, "
            f"'_', '-' and '.', at most {MAX_NAME_BYTES} bytes."
        )
    return name


def _name_problem(name: Any) -> str:
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}, not a string"
    if not name:
        return "is empty"
    if "/" in name or "\\" in name:
        return "contains a path separator"
    # Printable ASCII, almost all names, is settled at once: a run checks every name several times.
    if not (name.isascii() and name.isprintable()) and any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name
    ):
        return "contains a control character"
    if name.startswith("."):
        return "starts with a dot"
    if name != name.strip():
        return "starts or ends with white space"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"is {len(name.encode())} bytes long"
    return ""
