"""Folders that somebody else made: nothing outside them is opened, nor anything but plain files."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime import buckets, files, strict_json

# The largest known tokenizer.json (of 256,000 tokens) has 35 MB.
_MOST_JSON_BYTES = 500 * 10**6
# What `git clone` leaves in place of a large file where Git LFS is not set up.
_POINTER = b"version https://git-lfs.github.com/spec/"


def inside(folder: Any, name: str, what: str) -> Any:
    """Returns the path of a file or folder that a file of `folder` names.

    Args:
        folder: local or in a bucket.
        name: from a stranger's file.
        what: what names it, for errors ("file of 'x' in index.json").

    Raises:
        UserError: a name that is no single part of a path, or a link that leads out of `folder`.
    """
    path = files.as_path(folder) / files.check_name(name, what)
    check_inside(folder, path)
    return path


def check_inside(folder: Any, path: Any) -> None:
    """Checks that `path`, which need not exist, is really in `folder`: a link may lead elsewhere.

    In Hugging Face's cache, files of `snapshots/REVISION` are links to `blobs` beside it.

    Raises:
        UserError: it is not.
    """
    if not buckets.is_local(folder):
        return
    home = Path(os.path.realpath(folder))
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    real = Path(os.path.realpath(path))
    if not any(real == home or home in real.parents for home in homes):
        raise UserError(
            f"{shown_path(path)} is a link that leads out of its folder, to {shown(str(real))}; "
            "nothing outside is opened. Put a copy in its place."
        )


def check_tree(folder: Any) -> int:
    """Checks everything below a local folder; in a bucket there is neither link nor pipe.

    Returns:
        The size of all files, in bytes; 0 for a bucket.

    Raises:
        UserError: a link that leads out of `folder`, or something that is no file.
    """
    if not buckets.is_local(folder):
        return 0
    num_bytes = 0
    for entry in _entries(os.fspath(folder)):
        if entry.is_symlink():
            check_inside(folder, entry.path)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            num_bytes += entry.stat().st_size
        elif not stat.S_ISDIR(mode) and not entry.is_symlink():
            raise UserError(f"{shown_path(entry.path)} is not a file; delete it.")
    return num_bytes


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                yield entry


def check_whole(path: Any, beginning: Any) -> None:
    """Refuses what Git LFS leaves where a large file was not fetched.

    Args:
        path: of the file, for errors.
        beginning: its first bytes, 40 at least if it has them.

    Raises:
        UserError: names Git LFS.
    """
    if beginning[: len(_POINTER)] == _POINTER:
        folder = getattr(path, "parent", path)
        raise UserError(
            f"{shown_path(path)} is a Git LFS pointer, not the file itself; run `git lfs pull` in "
            f"{shown_path(folder)}."
        )


def read_json(path: Any) -> dict[str, Any]:
    """Returns the JSON object of a file of a folder, in which it really lies.

    Raises:
        UserError: the file is missing, too large, a link that leads out of its folder, what Git
            LFS left of it, or not a JSON object.
    """
    path = files.as_path(path)
    if not path.exists():
        raise UserError(
            f"No {path.name} in {shown_path(path.parent)}; copy it there from where the model came "
            "from."
        )
    check_inside(path.parent, path)
    data = files.read_given_bytes(path, "the model's file", _MOST_JSON_BYTES)
    check_whole(path, data)
    try:
        value = strict_json.loads(data, path)
    except UserError as error:
        problem = str(error).removeprefix(shown_path(path)).strip(":,. ")
        raise UserError(
            f"{shown_path(path)} is not JSON, or truncated ({problem}); copy it again."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{shown_path(path)} is not a JSON object; copy it again.")
    return value
