"""Parameters as one safetensors file: small, safe to read, readable everywhere.

Names are the paths in the parameter tree joined by dots, for example
"decoder.layers_0.self_attention.query.kernel" (T5X's names). The same parameters and
metadata always give the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from flax import traverse_util

from ait_jax import files
from ait_jax.errors import UserError, nearest

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
# The largest header that the safetensors library itself accepts.
_MAX_HEADER_BYTES = 100_000_000


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"encoder.layers_0...kernel": array} of a nested dict, sorted by name."""
    flat = traverse_util.flatten_dict(dict(params), sep=".")
    return {name: flat[name] for name in sorted(flat)}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverts `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep=".")


def save_weights(
    path: Any,
    params: Mapping[str, Any],
    *,
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes parameters to a safetensors file, whole or not at all.

    Args:
        path: where to; replaced if it exists.
        params: nested or dotted names, arrays of any float dtype on host or device.
        dtype: "float32", "bfloat16" or "float16" on disk.
        metadata: strings kept in the file's header.

    Raises:
        UserError: another dtype, metadata that are not strings, an unwritable folder.
    """
    stored = _stored_dtype(dtype)
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(x, str) for pair in metadata.items() for x in pair):
            raise UserError(f"Metadata of {path} must be strings, got {dict(metadata)!r}.")
        # Sorted here, for the library writes metadata in random order.
        header["__metadata__"] = dict(sorted(metadata.items()))
    chunks, offset = [], 0
    for name, value in flatten(params).items():
        array = np.ascontiguousarray(np.asarray(value).astype(stored))
        header[name] = {
            "dtype": _CODES[stored],
            "shape": list(np.shape(value)),
            "data_offsets": [offset, offset + array.nbytes],
        }
        chunks.append(array.tobytes())
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # Spaces bring the data to a multiple of 8 bytes, as the format asks.
    encoded += b" " * (-len(encoded) % 8)
    files.write_bytes(path, b"".join([len(encoded).to_bytes(8, "little"), encoded, *chunks]))


def _stored_dtype(dtype: str) -> np.dtype:
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    if str(dtype) not in names:
        raise UserError(
            f"Weights cannot be stored as {dtype!r}; needed: one of {', '.join(names)}."
            f"{nearest(str(dtype), names)}"
        )
    return _DTYPES[names[str(dtype)]]


def read_weights(path: Any, dtype: Any = np.float32) -> dict[str, Any]:
    """Returns the parameters of a safetensors file as a nested dict of numpy arrays.

    Args:
        path: the file.
        dtype: what the arrays are cast to; None keeps what the file has.

    Raises:
        UserError: no such file; truncated, or no safetensors file; integer tensors; names
            that are no parameter tree of ours.
    """
    data = _read_bytes(path)
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is no complete safetensors file ({str(error).splitlines()[0]}); "
            "copy or write it again."
        ) from error
    flat = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _DTYPES:
            raise UserError(
                f"{path} holds {name!r} of dtype {tensor['dtype']}; weights are floating-point."
            )
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        flat[name] = array if dtype is None else array.astype(dtype)
    _check_names(path, flat)
    return unflatten(flat)


def _check_names(path: Any, flat: Mapping[str, Any]) -> None:
    if "token_embedder.embedding" in flat:
        parents = {name[:i] for name in flat for i, char in enumerate(name) if char == "."}
        both = sorted(parents & set(flat))
        if both:
            raise UserError(f"{path} has {both[0]!r} both as an array and as a group of arrays.")
        return
    hint = "Its names are none of ours."
    if "shared.weight" in flat or "encoder.block.0.layer.0.SelfAttention.q.weight" in flat:
        hint = "Its names are Hugging Face's: convert it first."
    raise UserError(f"{path} has no 'token_embedder.embedding'. {hint}")


def read_metadata(path: Any) -> dict[str, str]:
    """Returns the metadata strings of a safetensors file.

    Raises:
        UserError: no such file, or no safetensors file.
    """
    with _opened(path) as file:
        start = file.read(8)
        size = int.from_bytes(start, "little")
        header = file.read(size) if len(start) == 8 and size <= _MAX_HEADER_BYTES else b""
    try:
        if len(header) != size:
            raise ValueError("header too short")
        metadata = json.loads(header).get("__metadata__", {})
        return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is no complete safetensors file ({error}).") from error


def _opened(path: Any):
    path = files.as_path(path)
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"No weights to read at {path}: {error.strerror}.") from error


def _read_bytes(path: Any) -> bytes:
    with _opened(path) as file:
        return file.read()
