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

from ait_jax.errors import UserError, first_line, nearest
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams, stored_params
from ait_jax.models.interface import Params
from ait_jax.models.parameters import flatten
from ait_jax.runtime import files

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
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
        # Sorted here: the library writes metadata in random order.
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
            f"Weights cannot be stored as {dtype!r}; choose from {', '.join(names)}."
            f"{nearest(str(dtype), names)}"
        )
    return _DTYPES[names[str(dtype)]]


def open_tensors(path: Any) -> dict[str, StoredArray]:
    """Returns the tensors of a safetensors file by name; a local file is read slice by slice.

    Raises:
        UserError: no such file; not a safetensors file, or truncated; integer tensors.
    """
    path = files.as_path(path)
    try:
        with path.open("rb") as file:
            whole = file.read() if "://" in str(path) else None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"No weights to read at {path}: {error.strerror}.") from error
    try:
        stored = _in_memory(whole) if whole is not None else _in_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({first_line(error)}); "
            "copy or write it again."
        ) from error
    for name, (code, _, _) in stored.items():
        if code not in _DTYPES:
            raise UserError(f"{path} holds {name!r} of dtype {code}; weights are floating-point.")
    return {
        name: StoredArray(tuple(shape), _DTYPES[code], read)
        for name, (code, shape, read) in stored.items()
    }


def _in_file(path: Any) -> dict[str, tuple]:
    file = safetensors.safe_open(str(path), framework="np")
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping

    def reader(name: str) -> Any:
        return lambda index: slices[name][index] if index else file.get_tensor(name)

    return {n: (part.get_dtype(), part.get_shape(), reader(n)) for n, part in slices.items()}


def _in_memory(data: bytes) -> dict[str, tuple]:
    def reader(tensor: Mapping[str, Any]) -> Any:
        values = np.frombuffer(tensor["data"], _DTYPES.get(tensor["dtype"], np.uint8))
        return lambda index: values.reshape(tensor["shape"])[index]

    tensors = safetensors.deserialize(data)
    return {name: (t["dtype"], t["shape"], reader(t)) for name, t in tensors}


def open_weights(path: Any) -> StoredParams:
    """Returns the parameters of a safetensors file; none is read yet.

    Raises:
        UserError: as `open_tensors`; names that are not a parameter tree of ours.
    """
    tensors = open_tensors(path)
    if any(table in tensors for table in _TABLES):
        parents = {name[:i] for name in tensors for i, char in enumerate(name) if char == "."}
        both = sorted(parents & set(tensors))
        if both:
            raise UserError(f"{path} has {both[0]!r} both as an array and as a group of arrays.")
        return stored_params(tensors)
    hint = "Its names are not T5X's."
    if any(name in tensors for name in _HUGGING_FACES):
        hint = "Its names are Hugging Face's: give the folder, with its config.json."
    raise UserError(f"{path} has no 'token_embedder.embedding'. {hint}")
