"""Orbax checkpoints: our trainer's and T5X's are read, T5X's written.

T5X's layout is what OrbaxCheckpointManagerInterface saves and restores (t5x/checkpoints.py,
commit cc342d4): `checkpoint_<step>/state` is one tree with `target` and `state`. T5X's eval and
infer need `target` and `state/step` only; its train initializes the optimizer's state if
RestoreCheckpointConfig.fallback_to_scratch and state_transformation_fns are set.
"""

import contextlib
import glob
import hashlib
import math
import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from ait_jax.errors import UserError, first_line, shown, shown_path
from ait_jax.models.checkpoints.stored_arrays import StoredParams, check_expansion, check_tree
from ait_jax.models.interface import Params
from ait_jax.runtime import buckets, files, untrusted

# Where parameters lie in the trees of T5X (`target`) and of our trainer (`params`).
_ROOTS = ("target", "params")
_INDEX = "_METADATA"
# Chunks of this size let many hosts read their parts of one array.
_CHUNK_BYTES = 64 * 2**20


def trees(directory: Any) -> list[Any]:
    """Returns the folders that hold trees: itself, or children (`state`, `default`)."""
    if not directory.is_dir():
        return []
    candidates = [directory, *sorted(c for c in directory.iterdir() if c.is_dir())]
    return [folder for folder in candidates if (folder / _INDEX).is_file()]


def open_params(directory: Any) -> StoredParams:
    """Returns the parameters of a checkpoint, T5X's (`target`) or ours; none is read yet.

    Raises:
        UserError: no Orbax checkpoint, one without parameters, a broken one, one with links or
            names that lead out of it.
    """
    directory = files.as_path(directory)
    found = trees(directory)
    if not found:
        raise UserError(f"No Orbax checkpoint in {shown_path(directory)}: '{_INDEX}' is missing.")
    num_bytes = untrusted.check_tree(directory)
    for folder in found:
        shapes = _shapes(folder)
        for root in _ROOTS:
            params = {path[1:]: shape for path, shape in shapes.items() if path[0] == root}
            if params and () not in params:
                if num_bytes:
                    sizes = (math.prod(s.shape) * s.dtype.itemsize for s in params.values())
                    check_expansion(f"{folder}", sum(sizes), num_bytes)
                others = [p for p in shapes if p[0] != root and p[-1] != "step"]
                return _stored(directory, folder, root, params, len(others))
    raise UserError(
        f"{shown_path(directory)} is an Orbax checkpoint without parameters: none of its trees has "
        f"{' or '.join(map(repr, _ROOTS))}."
    )


def _shapes(folder: Any) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of all arrays of a tree, by path."""
    _check_index(folder / _INDEX)
    try:
        with _handler() as handler:
            tree = handler.metadata(_path(folder)).tree
        # Lists and tuples, as in optax's states, have positions for keys.
        return {
            tuple(str(getattr(key, "key", getattr(key, "idx", key))) for key in path): (
                jax.ShapeDtypeStruct(tuple(leaf.shape), np.dtype(leaf.dtype))
            )
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if getattr(leaf, "shape", None) is not None and getattr(leaf, "dtype", None)
        }
    except Exception as error:  # Orbax and TensorStore raise many types on broken files
        with warnings.catch_warnings():
            # What Orbax began beside what failed, and never awaits, is let go of here.
            warnings.simplefilter("ignore", RuntimeWarning)
            traceback.clear_frames(error.__traceback__)
        raise UserError(
            f"{shown_path(folder / _INDEX)}, or what it lists, is truncated or damaged "
            f"({first_line(error)}); copy the checkpoint again."
        ) from error


def _check_index(path: Any) -> None:
    """Checks what Orbax makes paths of (UserError)."""
    try:
        index = files.read_given_json(path, "the checkpoint's index")
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}; copy the checkpoint again.") from error
    tree: Any = index.get("tree_metadata") if isinstance(index, dict) else None
    try:
        keys = {str(key["key"]) for leaf in tree.values() for key in leaf["key_metadata"]}
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{shown_path(path)} is no index of Orbax's or is damaged; copy the checkpoint again."
        ) from error
    wrong = next((key for key in sorted(keys) if ".." in re.split(r"[/\\]", key)), None)
    if wrong is not None:
        raise UserError(
            f"{shown_path(path)} names {shown(wrong)}, which may lead out of its folder; nothing "
            "outside is opened."
        )


def _stored(
    directory: Any,
    folder: Any,
    root: str,
    shapes: Mapping[tuple[str, ...], jax.ShapeDtypeStruct],
    num_others: int,
) -> StoredParams:
    import orbax.checkpoint as ocp

    def load(
        names: Any, dtype: Any = None, shardings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        def arguments(name: str) -> Any:
            if shardings is None:
                return ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
            return ocp.ArrayRestoreArgs(sharding=shardings[name], dtype=dtype)

        paths = {name: (root, *name.split(".")) for name in names}
        item = traverse_util.unflatten_dict({path: 0 for path in paths.values()})
        restore_args = traverse_util.unflatten_dict({paths[n]: arguments(n) for n in names})
        try:
            with _handler() as handler:
                asked = ocp.args.PyTreeRestore(
                    item=item, restore_args=restore_args, partial_restore=True
                )
                flat = traverse_util.flatten_dict(handler.restore(_path(folder), args=asked))
        except Exception as error:
            raise UserError(
                f"{shown_path(directory)} is incomplete or damaged: {folder.name}/{root} cannot be "
                f"read ({first_line(error)}). Copy the checkpoint again."
            ) from error
        return {n: flat[p] if shardings else np.asarray(flat[p]) for n, p in paths.items()}

    named = {".".join(path): shape for path, shape in sorted(shapes.items())}
    check_tree(named, directory)
    return StoredParams(named, num_others, load)


def _handler() -> Any:
    """Returns Orbax's handler of trees, to be closed by `with`."""
    import orbax.checkpoint as ocp

    return contextlib.closing(ocp.PyTreeCheckpointHandler())


def _path(folder: Any) -> Any:
    from etils import epath  # Orbax wants its own kind of path

    return epath.Path(plain_path(folder))


def plain_path(folder: Any) -> Any:
    """Returns a path of an existing `folder` that Orbax, which looks for patterns, takes literally.

    Where the name has any of `*?[`, this is a link in the user's cache, the same on all hosts.
    """
    folder = files.absolute(folder)
    if not buckets.is_local(folder) or not glob.has_magic(str(folder)):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    link = Path(files.user_cache("links")) / digest
    if not link.is_symlink() or os.readlink(link) != str(folder):
        link.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=link.parent) as elsewhere:
            made = Path(elsewhere) / digest
            made.symlink_to(folder)
            made.replace(link)
    return link


def write(directory: Path, params: Params, step: int) -> Path:
    """Writes `directory`/checkpoint_<step> and returns it.

    Args:
        directory: a local folder without such a checkpoint.
        params: nested dict of host arrays, one subtree per layer.
        step: T5X continues to count from it.
    """
    import orbax.checkpoint as ocp

    tree = {"target": params, "state": {"step": np.asarray(step, np.int32)}}
    chunked = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree)
    options = ocp.CheckpointManagerOptions(
        step_prefix="checkpoint", enable_async_checkpointing=False
    )
    Path(directory).mkdir(parents=True, exist_ok=True)
    handlers = {"state": ocp.PyTreeCheckpointHandler(use_ocdbt=True)}
    with ocp.CheckpointManager(
        plain_path(directory), options=options, item_handlers=handlers
    ) as manager:
        state = ocp.args.PyTreeSave(tree, save_args=chunked)
        manager.save(step, args=ocp.args.Composite(state=state))
    return Path(directory) / f"checkpoint_{step}"
