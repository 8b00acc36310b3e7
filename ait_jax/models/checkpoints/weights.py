"""Parameters as one safetensors file: small, safe to read, readable everywhere.

Names are the paths in the parameter tree joined by dots, for example
"decoder.layers_0.self_attention.query.kernel" (T5X's names). The same parameters and
metadata always give the same bytes.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.models.checkpoints.stored_arrays import (
    Index,
    StoredArray,
    StoredParams,
    stored_params,
)
from ait_jax.models.interface import Params
from ait_jax.models.parameters import flatten
from ait_jax.runtime import buckets, files, strict_json, untrusted

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_LENGTH_BYTES = 8  # of the header's length, before it
# The format's own limit.
_MOST_HEADER_BYTES = 100 * 10**6
_MOST_AXES = 8
# One of these is in every tree of parameters: T5's and LLaMA's token tables.
_TABLES = ("token_embedder.embedding", "decoder.token_embedder.embedding")
_HUGGING_FACES = (
    "shared.weight",
    "encoder.block.0.layer.0.SelfAttention.q.weight",
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
)


def save_weights(path: Any, params: Params, metadata: Mapping[str, str] | None = None) -> None:
    """Writes parameters to a safetensors file, whole or not at all.

    Args:
        path: replaced if it exists.
        params: nested or dotted names, arrays of float dtypes on host or device, which they keep;
            copied one at a time.
        metadata: strings kept in the file's header.

    Raises:
        UserError: integers, an unwritable folder.
    """
    flat = flatten(params)
    header: dict[str, Any] = {}
    if metadata:
        # Sorted: equal parameters give equal bytes.
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    for name, value in flat.items():
        kind = np.dtype(value.dtype)
        if kind not in _CODES:
            raise UserError(f"{name} is of dtype {kind}; weights are floating-point.")
        end = offset + value.nbytes
        header[name] = {
            "dtype": _CODES[kind],
            "shape": list(value.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # Spaces align the data to 8 bytes, as the format asks.
    encoded += b" " * (-len(encoded) % 8)
    with files.replace_with(path) as temporary, temporary.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for value in flat.values():
            file.write(np.asarray(value).tobytes())


def stored_dtype(dtype: str) -> np.dtype:
    """Returns the dtype of one of the names that parameters may be stored as."""
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    if str(dtype) not in names:
        raise UserError(
            f"Weights cannot be stored as {shown(dtype)}; choose from {', '.join(names)}."
            f"{nearest(str(dtype), names)}"
        )
    return _DTYPES[names[str(dtype)]]


def open_tensors(path: Any) -> dict[str, StoredArray]:
    """Returns the tensors of a safetensors file by name; a local file is mapped, not read.

    The header is untrusted: its lengths, shapes and places must be those of the file.

    Raises:
        UserError: no such file; not a safetensors file, or truncated; integer tensors.
    """
    path = files.as_path(path)
    try:
        data = _mapped(path) if buckets.is_local(path) else files.read_bytes(path)
    except OSError as error:
        raise UserError(f"No weights to read at {shown_path(path)}: {error.strerror}.") from error
    untrusted.check_whole(path, data)
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + size
    if len(data) < _LENGTH_BYTES or begin > len(data) or size > _MOST_HEADER_BYTES:
        raise _incomplete(path, f"a header of {size:,} bytes in a file of {len(data):,}")
    try:
        header = strict_json.loads(bytes(data[_LENGTH_BYTES:begin]), "its header")
    except UserError as error:
        raise _incomplete(path, str(error).rstrip(".")) from error
    if not isinstance(header, dict):
        raise _incomplete(path, "its header is no object")
    header.pop("__metadata__", None)
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    end = 0
    for (start, stop), name in sorted((entry.offsets, name) for name, entry in places.items()):
        if start != end:
            raise _incomplete(path, f"{shown(name)} begins at {start:,}, not at {end:,}")
        end = stop
    if begin + end != len(data):
        raise _incomplete(path, f"its tensors have {end:,} bytes, of {len(data) - begin:,} there")
    return {name: _stored(data, begin, entry) for name, entry in places.items()}


def _mapped(path: Any) -> Any:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def _incomplete(path: Any, problem: str) -> UserError:
    return UserError(
        f"{shown_path(path)} is not a complete safetensors file ({problem}); copy or write it "
        "again."
    )


class _Place(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    offsets: tuple[int, int]


def _place(path: Any, name: str, entry: Any) -> _Place:
    """Returns an entry of the header, which by itself makes sense."""
    try:
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, *offsets]
        start, stop = offsets
    except (TypeError, KeyError, ValueError) as error:
        raise _incomplete(path, f"{shown(name)} is no tensor") from error
    if not isinstance(code, str) or code not in _DTYPES:
        what = code if isinstance(code, str) and len(code) < 10 else shown(code)
        raise UserError(
            f"{shown_path(path)} holds {shown(name)} of dtype {what}; weights are floating-point."
        )
    plain = all(type(number) is int and number >= 0 for number in numbers)
    dtype = _DTYPES[code]
    if not plain or len(shape) > _MOST_AXES or stop - start != math.prod(shape) * dtype.itemsize:
        raise _incomplete(path, f"{shown(name)} of shape {shown(shape)} at {shown(offsets)}")
    return _Place(dtype, tuple(shape), (start, stop))


def _stored(data: Any, begin: int, place: _Place) -> StoredArray:
    dtype, shape, (start, _) = place
    count = math.prod(shape)

    def read(index: Index) -> np.ndarray:
        if not count:
            return np.zeros(shape, dtype)[index]
        values = np.frombuffer(data, dtype, count, begin + start).reshape(shape)
        return np.array(values[index])

    return StoredArray(shape, dtype, read)


def open_weights(path: Any) -> StoredParams:
    """Returns the parameters of a safetensors file; none is read yet.

    Raises:
        UserError: as `open_tensors`; names that are not a parameter tree of ours.
    """
    tensors = open_tensors(path)
    if any(table in tensors for table in _TABLES):
        return stored_params(tensors, path)
    hint = "Its names are not T5X's."
    if any(name in tensors for name in _HUGGING_FACES):
        hint = "Its names are Hugging Face's: give the folder, with its config.json."
    raise UserError(f"{shown_path(path)} has no 'token_embedder.embedding'. {hint}")
