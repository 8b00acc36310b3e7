"""T5X's legacy checkpoints: a msgpack index, and a zarr array beside it for every parameter.

Versions 2 and 3 of t5x/checkpoints.py.
"""

import functools
import itertools
import math
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import serialization, traverse_util

from ait_jax.errors import UserError, first_line, shown, shown_path
from ait_jax.models.checkpoints.stored_arrays import (
    Index,
    StoredArray,
    StoredParams,
    check_expansion,
    stored_params,
)
from ait_jax.runtime import buckets, files, untrusted

INDEX = "checkpoint"
_VERSIONS = (2, 3)
# TensorStore's drivers of the buckets that T5X writes to.
_DRIVERS = {"gs": "gcs", "s3": "s3"}


def open_params(directory: Any) -> StoredParams:
    """Returns the parameters (`target`) of a checkpoint folder; none is read yet.

    Small arrays lie in the index itself, large ones are described there as TensorStore
    arrays in folders beside it, the only places that are opened.

    Raises:
        UserError: no index, a truncated one, an old version, a missing or broken array (a
            broken one when it is read), one in another folder.
    """
    directory = files.as_path(directory)
    untrusted.check_inside(directory, directory / INDEX)
    target, states = _read_index(directory)
    # All are opened at once; TensorStore does the waiting.
    opened = {
        name: _open_zarr(directory, name, value) if isinstance(value, Mapping) else value
        for name, value in target.items()
    }
    arrays = {name: _stored_array(directory, name, array) for name, array in opened.items()}
    return stored_params(arrays, directory, num_others=len(states.keys() - {"step"}))


def _read_index(directory: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the index's parameters and the optimizer's states, by dotted name."""
    path = directory / INDEX
    try:
        data = files.read_bytes(path)
    except OSError as error:
        raise UserError(
            f"No T5X checkpoint in {shown_path(directory)}: '{INDEX}' is missing or unreadable."
        ) from error
    untrusted.check_whole(path, data)
    try:
        index = serialization.msgpack_restore(data)
        version = index.get("version", 0) if isinstance(index, Mapping) else 0
        if not isinstance(index, Mapping) or version not in _VERSIONS:
            raise UserError(
                f"{shown_path(directory)} is a T5X checkpoint of version {shown(version)}; ait-jax "
                "reads versions 2 and 3. Load and save it again with a T5X of 2021 or later."
            )
        optimizer = index.get("optimizer") or {}
        target, states = (_flatten(optimizer.get(part) or {}) for part in ("target", "state"))
    except UserError:
        raise
    except Exception as error:  # msgpack and flax raise many types on what is not their own
        raise UserError(
            f"{shown_path(path)} is not a T5X index or is truncated "
            f"({type(error).__name__}: {first_line(error)}); copy the checkpoint again."
        ) from error
    if not target:
        raise UserError(f"{shown_path(path)} holds no parameters (optimizer/target).")
    return target, states


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat = traverse_util.flatten_dict(
        dict(tree), is_leaf=lambda _, value: isinstance(value, Mapping) and "kvstore" in value
    )
    return {".".join(map(str, path)): value for path, value in flat.items()}


def _folder_of(name: str, spec: Mapping[str, Any]) -> str:
    # Checkpoints written to a bucket have the path one level higher; either way only its last
    # part counts: the arrays lie beside the index.
    kvstore = spec["kvstore"]
    inner = kvstore.get("path") if isinstance(kvstore, Mapping) else kvstore
    path = str(inner or spec.get("path") or f"target.{name}")
    return path.rstrip("/").rsplit("/", 1)[-1]


def _open_zarr(directory: Any, name: str, spec: Mapping[str, Any]) -> Any:
    """Returns TensorStore's future of the array."""
    import tensorstore

    folder = _folder_of(name, spec)
    what = f"array folder in {shown_path(directory / INDEX)}"
    # T5X encodes no names; encoded ones hide where they lead.
    files.check_name(urllib.parse.unquote(folder), what)
    place = untrusted.inside(directory, folder, what)
    if not buckets.is_local(place):
        scheme, _, rest = str(place).partition("://")
        bucket, _, path = rest.partition("/")
        store = {"driver": _DRIVERS.get(scheme, scheme), "bucket": bucket, "path": path + "/"}
    elif not place.is_dir():
        return None
    else:
        # A URL would give '%', '#', '?' and '|' in the folder's own name another meaning.
        store = {"driver": "file", "path": f"{files.absolute(place)}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": store}, open=True, read=True)


def _stored_array(directory: Any, name: str, opening: Any) -> StoredArray:
    """Returns an array of the index, or one that is being opened."""
    if opening is None:
        raise _unreadable(directory, name, FileNotFoundError("there is no such folder"))
    if not hasattr(opening, "result"):
        array = np.asarray(opening)
        return StoredArray(array.shape, array.dtype, lambda index: array[index])
    try:
        store = opening.result()
    except Exception as error:  # TensorStore raises errors of many types
        raise _unreadable(directory, name, error) from error
    # Version 2 wrote bfloat16 as its bits.
    stored = store.dtype.numpy_dtype
    dtype = np.dtype(ml_dtypes.bfloat16) if stored == np.uint16 else np.dtype(stored)
    shape = tuple(store.shape)
    kvstore = store.kvstore.spec().to_json()
    if kvstore["driver"] == "file":
        num_bytes = untrusted.check_tree(kvstore["path"])
        largest = max(math.prod(shape), math.prod(store.chunk_layout.read_chunk.shape))
        what = f"{directory}: parameter {name}"
        check_expansion(what, largest * dtype.itemsize, num_bytes)

    @functools.cache
    def chunks_there() -> frozenset[str]:
        return frozenset(key.decode() for key in store.kvstore.list().result())

    def read(index: Index) -> np.ndarray:
        try:
            # TensorStore would read a chunk that is not there as zeros.
            there = chunks_there()
            missing = next((key for key in _chunks(store, index) if key not in there), None)
            if missing is not None:
                raise ValueError(f"chunk {missing} is missing")
            return store[index].read().result().view(dtype)
        except Exception as error:
            raise _unreadable(directory, name, error) from error

    return StoredArray(shape, dtype, read)


def _chunks(store: Any, index: Index) -> Iterator[str]:
    """Yields the names of the chunks that a part of an array lies in."""
    sizes = store.chunk_layout.read_chunk.shape
    separator = store.spec().to_json()["metadata"].get("dimension_separator", ".")
    grid = [range(s.start // n, -(-s.stop // n)) for s, n in zip(index, sizes, strict=True)]
    for position in itertools.product(*grid):
        yield separator.join(map(str, position)) or "0"


def _unreadable(directory: Any, name: str, error: Exception) -> UserError:
    return UserError(
        f"{shown_path(directory)} is incomplete: parameter {shown_path(name)} cannot be read "
        f"({first_line(error)}). Copy the checkpoint again."
    )
