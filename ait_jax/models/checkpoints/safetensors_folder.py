"""Folders of safetensors files as transformers writes them: one file, or shards with an index.

Nothing is unpickled: a folder with only `pytorch_model.bin` is refused.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import weights
from ait_jax.models.checkpoints.stored_arrays import StoredArray
from ait_jax.runtime import files

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Where transformers 4 begins to write shards; 5 writes larger ones and reads both.
MAX_SHARD_BYTES = 5 * 10**9


def is_folder(path: Any) -> bool:
    """Whether a folder looks like one that transformers wrote, of whatever architecture."""
    return any((path / name).is_file() for name in (CONFIG, INDEX)) or bool(_pickled(path))


def _pickled(folder: Any) -> list[str]:
    return sorted(child.name for child in folder.glob("pytorch_model*.bin"))


def open_tensors(folder: Any) -> dict[str, StoredArray]:
    """Returns all tensors of a folder by their names there; none is read yet.

    Raises:
        UserError: no safetensors, a missing or truncated shard, names that differ from the
            index.
    """
    opened: dict[str, StoredArray] = {}
    for file, expected in _shards(folder).items():
        found = weights.open_tensors(folder / file)
        wrong = sorted(set(found) ^ (set(found) if expected is None else expected))
        if wrong:
            state = "does not hold" if wrong[0] in expected else "holds"
            raise UserError(
                f"{folder / file} {state} {wrong[0]}, against {INDEX}; copy both again."
            )
        opened |= found
    return opened


def _shards(folder: Any) -> dict[str, set[str] | None]:
    """Returns the names that each file of weights should hold; None where no index says so."""
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: None}
    path = folder / INDEX
    if not path.is_file():
        pickled = _pickled(folder)
        if pickled:
            raise UserError(
                f"{folder} has its weights only as {pickled[0]}, a pickle, which is never opened "
                "here; where you trust it, make safetensors of it with transformers: "
                "AutoModelForSeq2SeqLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) for T5, "
                "AutoModelForCausalLM for LLaMA."
            )
        raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}.")
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        entries = sorted(weight_map.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no index or a truncated one (no weight_map); copy it again."
        ) from error
    shards: dict[str, set[str] | None] = {}
    for name, file in entries:
        files.check_name(file, f"file of {name!r} in {path}")
        shards.setdefault(file, set()).add(name)
    missing = [file for file in shards if not (folder / file).is_file()]
    if missing or not shards:
        names = ", ".join(sorted(missing)[:4]) or "any file"
        raise UserError(f"{folder} lacks {names}, which {INDEX} names; copy it there.")
    return shards


def write_tensors(
    folder: Any,
    tensors: Mapping[str, Any],
    *,
    dtype: str | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes tensors into an existing folder, in several files with an index where need be.

    Args:
        folder: where to.
        tensors: arrays by their names there.
        dtype: as of `weights.save_weights`.
        max_shard_bytes: above this there are several files.

    Raises:
        UserError: another dtype.
    """
    sizes = {name: _num_bytes(array, dtype) for name, array in tensors.items()}
    shards = _grouped(sizes, max_shard_bytes)
    # transformers reads files that say they come from torch.
    metadata = {"format": "pt"}
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: tensors[name] for name in names}
        weights.save_weights(folder / file, shard, dtype=dtype, metadata=metadata)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = {"total_size": sum(sizes.values())}
        index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
        files.write_json(folder / INDEX, index)


def _num_bytes(array: Any, dtype: str | None) -> int:
    kind = np.dtype(array.dtype) if dtype is None else weights.stored_dtype(dtype)
    return math.prod(array.shape) * kind.itemsize


def _grouped(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Fills one group after the other up to `limit`, at least one name in each."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups
