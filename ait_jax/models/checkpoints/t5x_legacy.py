"""T5X's legacy checkpoints: a msgpack index, and a zarr array beside it for every parameter.

Versions 2 and 3 of t5x/checkpoints.py.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import serialization, traverse_util

from ait_jax.errors import UserError, first_line
from ait_jax.models.checkpoints.stored_arrays import Index, StoredArray, StoredParams, stored_params
from ait_jax.runtime import files

INDEX = "checkpoint"
_VERSIONS = (2, 3)


def open_params(directory: Any) -> StoredParams:
    """Returns the parameters (`target`) of a checkpoint folder; none is read yet.

    Small arrays lie in the index itself, large ones are described there as TensorStore
    arrays in folders beside it.

    Raises:
        UserError: no index, a truncated one, an old version, a missing or broken array (a
            broken one when it is read).
    """
    directory = files.as_path(directory)
    index = _read_index(directory)
    target = index.get("optimizer", {}).get("target")
    if not target:
        raise UserError(f"{directory}/{INDEX} holds no parameters (optimizer/target).")
    # All are opened at once; TensorStore does the waiting.
    opened = {
        name: _open_zarr(directory, name, value) if isinstance(value, Mapping) else value
        for name, value in _flatten(target).items()
    }
    arrays = {name: _stored_array(directory, name, array) for name, array in opened.items()}
    states = _flatten(index["optimizer"].get("state") or {})
    return stored_params(arrays, num_others=len(states.keys() - {"step"}))


def _read_index(directory: Any) -> Mapping[str, Any]:
    try:
        index = serialization.msgpack_restore((directory / INDEX).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"No T5X checkpoint in {directory}: '{INDEX}' is missing.") from error
    except Exception as error:  # msgpack raises half a dozen types on bytes that are not its own
        raise UserError(
            f"{directory}/{INDEX} is not a T5X index or is truncated "
            f"({type(error).__name__}: {error}); copy the checkpoint again."
        ) from error
    version = index.get("version", 0) if isinstance(index, Mapping) else 0
    if not isinstance(index, Mapping) or version not in _VERSIONS:
        raise UserError(
            f"{directory} is a T5X checkpoint of version {version!r}; ait-jax reads versions 2 and "
            "3. Load and save it again with a T5X of 2021 or later."
        )
    return index


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat = traverse_util.flatten_dict(
        dict(tree), is_leaf=lambda _, value: isinstance(value, Mapping) and "kvstore" in value
    )
    return {".".join(map(str, path)): value for path, value in flat.items()}


def _folder_of(name: str, spec: Mapping[str, Any]) -> str:
    # Checkpoints written to a bucket have the path one level higher; either way only its last
    # part counts: the arrays lie beside the index.
    path = str(spec["kvstore"].get("path") or spec.get("path") or f"target.{name}")
    return path.rstrip("/").rsplit("/", 1)[-1]


def _open_zarr(directory: Any, name: str, spec: Mapping[str, Any]) -> Any:
    """Returns TensorStore's future of the array."""
    import tensorstore

    folder = files.check_name(_folder_of(name, spec), f"array folder in {directory}/{INDEX}")
    location = str(directory / folder)
    if "://" not in location:
        location = "file://" + str((directory / folder).absolute())
    return tensorstore.open({"driver": "zarr", "kvstore": location + "/"}, open=True, read=True)


def _stored_array(directory: Any, name: str, opening: Any) -> StoredArray:
    """Returns an array of the index, or one that is being opened."""
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

    @functools.cache
    def chunks_there() -> frozenset[str]:
        return frozenset(key.decode() for key in store.kvstore.list().result())

    def read(index: Index) -> np.ndarray:
        try:
            # TensorStore would read a chunk that is not there as zeros.
            missing = [key for key in _chunks(store, index) if key not in chunks_there()]
            if missing:
                raise ValueError(f"chunk {missing[0]} is missing")
            return store[index].read().result().view(dtype)
        except Exception as error:
            raise _unreadable(directory, name, error) from error

    return StoredArray(tuple(store.shape), dtype, read)


def _chunks(store: Any, index: Index) -> list[str]:
    """Returns the names of the chunks that a part of an array lies in."""
    sizes = store.chunk_layout.read_chunk.shape
    separator = store.spec().to_json()["metadata"].get("dimension_separator", ".")
    grid = [range(s.start // n, -(-s.stop // n)) for s, n in zip(index, sizes, strict=True)]
    return [separator.join(map(str, position)) or "0" for position in itertools.product(*grid)]


def _unreadable(directory: Any, name: str, error: Exception) -> UserError:
    return UserError(
        f"{directory} is incomplete: parameter {name} cannot be read "
        f"({first_line(error)}). Copy the checkpoint again."
    )
