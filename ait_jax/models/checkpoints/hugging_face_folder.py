"""Folders as transformers writes them: config.json, and safetensors whole or in shards.

Nothing is unpickled: a folder with only `pytorch_model.bin` is refused.
"""

import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.models.checkpoints import weights
from ait_jax.models.checkpoints.stored_arrays import StoredArray
from ait_jax.models.interface import Model
from ait_jax.models.parameters import STACKED, abstract_params_in
from ait_jax.runtime import files, untrusted

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What is read: `hugging_face` has T5's, `llama_settings` the others.
MODEL_TYPES = ("t5", "mt5", "llama", "qwen2", "qwen3", "smollm3", "gemma3_text", "olmo2", "olmo3")
# Where transformers 4 begins to write shards; 5 writes larger ones and reads both.
MAX_SHARD_BYTES = 5 * 10**9


def is_folder(path: Any) -> bool:
    """Whether a folder looks like one that transformers wrote, of whatever architecture."""
    return any((path / name).is_file() for name in (CONFIG, INDEX)) or bool(_pickled(path))


def _pickled(folder: Any) -> list[str]:
    return sorted(child.name for child in folder.glob("pytorch_model*.bin"))


# --- config.json ---


def read_settings(folder: Any) -> dict[str, Any]:
    """Returns config.json's fields as they are; UserError for a missing or damaged file."""
    return untrusted.read_json(files.as_path(folder) / CONFIG)


def with_defaults(
    settings: Mapping[str, Any], path: Any, defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns config.json's fields, with transformers' defaults for those left out.

    Args:
        defaults: by model_type.

    Raises:
        UserError: another model_type.
    """
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in defaults:
        what = f"a {shown(kind)} model" if kind else "no model (model_type is missing)"
        close = nearest(kind, MODEL_TYPES) if isinstance(kind, str) else ""
        raise UserError(
            f"{shown_path(path)} describes {what}; ait-jax reads model_type "
            f"{', '.join(map(repr, MODEL_TYPES))}.{close}"
        )
    given = {name: value for name, value in settings.items() if value is not None}
    return {**defaults[kind], **given}


def size(settings: Mapping[str, Any], name: str, path: Any) -> int:
    """Returns a whole number from config.json or the like; UserError for anything else."""
    value = settings[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise UserError(
            f"{shown_path(path)} has {name} = {shown(value)}; it must be a whole number above 0."
        )
    return value


def number(settings: Mapping[str, Any], name: str, path: Any) -> float:
    """Returns a number above 0; UserError for anything else."""
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise UserError(
            f"{shown_path(path)} has {name} = {shown(value)}; it must be a number above 0."
        )
    return float(value)


def check_built_in(settings: Mapping[str, Any], path: Any, built_in: Mapping[str, Any]) -> None:
    """Refuses values that differ from what our network has built in."""
    for name, value in built_in.items():
        if settings.get(name, value) != value:
            raise UserError(
                f"{shown_path(path)} has {name} = {shown(settings[name])}; this network has "
                f"{shown(value)}."
            )


def check_sizes(
    tensors: Mapping[str, StoredArray],
    place: Any,
    widths: Mapping[str, int],
    depth: tuple[str, int],
) -> None:
    """Refuses sizes that the files cannot have, before anything is made of these sizes.

    Args:
        tensors: that the files hold.
        place: where they came from, for errors.
        widths: sizes that some tensor has for an axis, by their names there.
        depth: the name and number of layers, each of which has tensors.

    Raises:
        UserError: names the size.
    """
    longest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    name, value = max(widths.items(), key=lambda item: item[1])
    # Of sizes that are nearly right, `checked` names the tensor that differs.
    problem = f"the longest axis of its tensors is {longest:,}" if value > 16 * longest else ""
    if depth[1] > len(tensors):
        (name, value), problem = depth, f"it holds {len(tensors):,} tensors"
    if problem:
        raise UserError(
            f"{shown_path(place)} states {name} = {value:,}, but {problem}: it is not the model "
            "that it describes."
        )


# --- names ---

OUTPUT = "lm_head.weight"
# {name there: (dotted name of ours, shape there)}
Names = Mapping[str, tuple[str, tuple[int, ...]]]


def names_and_shapes(model: Model, names: Mapping[str, str], table: str) -> Names:
    """Returns the names and shapes there of all of a model's parameters.

    Every matrix but the token table is transposed there: torch's linear layers hold
    (outputs, inputs).

    Args:
        names: theirs to ours, {} for the layer's number; what the model lacks is left out.
        table: their name of the token table.
    """
    leaves, _ = abstract_params_in(model, STACKED)
    shapes = {
        ours: leaves[stacked].shape
        for ours in names.values()
        if (stacked := ours.replace("_{}", "")) in leaves
    }
    found = {}
    for start, group in itertools.groupby(names, lambda theirs: theirs.partition("{}")[0]):
        present = [theirs for theirs in group if names[theirs] in shapes]
        layered = start not in names
        for layer in range(shapes[names[present[0]]][0] if layered else 1):
            for theirs in present:
                shape = shapes[names[theirs]][layered:]
                shape = shape if theirs == table else shape[::-1]
                found[theirs.format(layer)] = (names[theirs].format(layer), shape)
    return found


# --- reading ---


def open_tensors(folder: Any) -> dict[str, StoredArray]:
    """Returns all tensors of a folder by their names there; none is read yet.

    Raises:
        UserError: no safetensors, a missing or truncated shard, names that differ from the
            index.
    """
    opened: dict[str, StoredArray] = {}
    for file, expected in _shards(folder).items():
        found = weights.open_tensors(folder / file)
        wrong = [] if expected is None else sorted(expected ^ found.keys())
        if wrong:
            state = "holds" if wrong[0] in found else "does not hold"
            raise UserError(
                f"{shown_path(folder / file)} {state} {shown_path(wrong[0])}, against {INDEX}; "
                "copy both again."
            )
        opened |= found
    return opened


def _shards(folder: Any) -> Mapping[str, set[str] | None]:
    """Returns the names that each file of weights should hold; None where no index says so."""
    if (folder / WEIGHTS).is_file():
        untrusted.check_inside(folder, folder / WEIGHTS)
        return {WEIGHTS: None}
    path = folder / INDEX
    if not path.is_file():
        pickled = _pickled(folder)
        if pickled:
            raise UserError(
                f"{shown_path(folder)} has its weights only as {pickled[0]}, a pickle, which is "
                "never opened here; if you trust it, convert it to safetensors with transformers: "
                "AutoModelForSeq2SeqLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) for "
                "T5, AutoModelForCausalLM for LLaMA."
            )
        raise UserError(f"{shown_path(folder)} has neither {WEIGHTS} nor {INDEX}.")
    weight_map = untrusted.read_json(path).get("weight_map")
    if not isinstance(weight_map, Mapping):
        raise UserError(
            f"{shown_path(path)} is not an index or is truncated (no weight_map); copy it again."
        )
    shards: dict[str, set[str]] = {}
    for name, file in sorted(weight_map.items()):
        if not isinstance(file, str) or file not in shards:
            untrusted.inside(folder, file, f"file of {shown(name)} in {shown_path(path)}")
        shards.setdefault(file, set()).add(name)
    missing = [file for file in shards if not (folder / file).is_file()]
    if missing or not shards:
        names = ", ".join(sorted(missing)[:4]) or "any file"
        raise UserError(f"{shown_path(folder)} lacks {names}, which {INDEX} names; copy it there.")
    return shards


def checked(
    tensors: Mapping[str, StoredArray],
    needed: Names,
    place: Any,
    *,
    table: str,
    copies: Collection[str],
    unused: re.Pattern[str],
) -> dict[str, StoredArray]:
    """Returns the arrays that a network has by our names, after all names and shapes were compared.

    Args:
        needed: of the network.
        place: where they came from, for messages.
        table: name of the token table; copies: names under which it may be stored, too.
        unused: names that files hold and no network uses.

    Raises:
        UserError: tensors that are missing or unexpected, other shapes, copies that differ.
    """
    missing = [name for name in needed if name not in tensors]
    unexpected = [
        name
        for name in sorted(set(tensors) - set(needed) - set(copies))
        if not unused.fullmatch(name)
    ]
    for problem, names in (("lacks", missing), ("holds unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{shown_path(place)} {problem} {shown_path(names[0])}{more}: it is not the "
                "model that it describes."
            )
    present = [name for name in copies if name in tensors]
    for name in [*needed, *present]:
        _, expected = needed.get(name, needed[table])
        if tensors[name].shape != expected:
            raise UserError(
                f"{shown_path(place)}: {name} is {tensors[name].shape}; by the sizes it states it "
                f"should be {expected}."
            )
    for name in present:
        if not np.array_equal(tensors[name].whole(), tensors[table].whole()):
            raise UserError(
                f"{shown_path(place)}: {name} differs from the token table ({table}), but {CONFIG} "
                "makes them one (tie_word_embeddings), and this network has one table."
            )
    return {
        ours: tensors[theirs] if theirs == table else tensors[theirs].T
        for theirs, (ours, _) in needed.items()
    }


# --- writing ---


def write(
    folder: Any,
    tensors: Mapping[str, Any],
    settings: Mapping[str, Any],
    generation: Mapping[str, Any],
    max_shard_bytes: int,
) -> None:
    """Writes tensors and what describes them into an existing folder.

    Args:
        tensors: arrays by their names there, in the dtypes to be stored.
        settings, generation: of config.json and generation_config.json.
        max_shard_bytes: above this there are several files of tensors, and an index.
    """
    files.write_json(folder / CONFIG, settings)
    files.write_json(folder / "generation_config.json", generation)
    sizes = {name: array.nbytes for name, array in tensors.items()}
    shards = _grouped(sizes, max_shard_bytes)
    # transformers reads files that say they come from torch.
    metadata = {"format": "pt"}
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: tensors[name] for name in names}
        weights.save_weights(folder / file, shard, metadata)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = {"total_size": sum(sizes.values())}
        index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
        files.write_json(folder / INDEX, index)


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
