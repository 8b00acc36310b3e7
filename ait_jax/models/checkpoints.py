"""Parameters out of checkpoints: T5X's, Orbax's, Hugging Face's and safetensors.

Only parameters are read, never optimizer states, onto the host and, unless asked otherwise, as
float32. Nothing is unpickled or evaluated, and the paths that a checkpoint names stay inside it.
"""

import itertools
import json
import math
import re
from collections.abc import Mapping, Set
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import serialization, traverse_util

from ait_jax import files
from ait_jax.errors import UserError
from ait_jax.models import hugging_face, weights
from ait_jax.models.t5 import Params

# Where parameters lie in the trees of T5X (`target`) and of our trainer (`params`).
_ROOTS = ("target", "params")
_STEP_FOLDER = re.compile(r"checkpoint_(\d+)$")
_SAFETENSORS = "model.safetensors"

# The forms of checkpoints, and what to call them.
FORMS = {
    "t5x": "T5X legacy checkpoint",
    "orbax": "Orbax checkpoint",
    "hugging_face": "Hugging Face folder",
    "safetensors": "safetensors file",
}


def read_params(path: Any, dtype: Any = np.float32) -> Params:
    """Returns the parameters of a checkpoint in whatever form it has.

    Args:
        path: as in `find`.
        dtype: what the arrays are cast to; None keeps what is stored.

    Returns:
        Nested dict of numpy arrays under T5X's names.

    Raises:
        UserError: nothing there, no checkpoint, or an incomplete one.
    """
    form, place = find(path)
    readers = {
        "t5x": read_t5x_legacy,
        "orbax": read_orbax,
        "hugging_face": lambda folder, dtype: hugging_face.read(folder, dtype)[1],
        "safetensors": weights.read_weights,
    }
    return readers[form](place, dtype)


def find(path: Any) -> tuple[str, Any]:
    """Returns the form of a checkpoint (a key of FORMS) and the very folder or file it is.

    Args:
        path: a `checkpoint_<step>` folder of T5X (legacy or Orbax) or of our trainer, the
            folder that holds such folders (the complete one of the highest step is taken), a
            Hugging Face folder, a safetensors file, or a folder with `model.safetensors`.

    Raises:
        UserError: nothing there, or no checkpoint.
    """
    path = files.as_path(path)
    if not path.exists():
        raise UserError(f"No checkpoint at {path}: there is no such file or folder.")
    if path.is_file():
        return ("t5x", path.parent) if path.name == "checkpoint" else ("safetensors", path)
    form = _form(path)
    if form is None:
        path = newest_checkpoint(path)
        form = _form(path)
    return form, path / _SAFETENSORS if form == "safetensors" else path


def newest_checkpoint(directory: Any) -> Any:
    """Returns the complete `checkpoint_<step>` folder of the highest step in `directory`.

    Folders that a writer left unfinished (temporary names, no index) are passed over.

    Raises:
        UserError: there is none.
    """
    directory = files.as_path(directory)
    steps = {}
    for child in directory.iterdir():
        if child.is_dir() and step_of(child) is not None:
            steps[step_of(child)] = child
    for step in sorted(steps, reverse=True):
        if _form(steps[step]) is not None:
            return steps[step]
    if steps:
        names = ", ".join(sorted(child.name for child in steps.values()))
        raise UserError(f"{directory} holds only incomplete checkpoints ({names}).")
    if step_of(directory) is not None:
        raise UserError(
            f"{directory} is an incomplete checkpoint: it has neither T5X's index file "
            "'checkpoint' nor Orbax's '_METADATA'. Copy it again or name an older step."
        )
    raise UserError(
        f"No checkpoint in {directory}; needed: a checkpoint_<step> folder of T5X or ait-jax, "
        "a folder of such folders, a Hugging Face folder with its config.json, or a safetensors "
        "file."
    )


def step_of(folder: Any) -> int | None:
    """Returns the step in the name of a `checkpoint_<step>` folder, None for another name."""
    match = _STEP_FOLDER.match(folder.name)
    return int(match[1]) if match else None


def _form(directory: Any) -> str | None:
    if (directory / "checkpoint").is_file():
        return "t5x"
    if _orbax_items(directory):
        return "orbax"
    if hugging_face.is_folder(directory):
        return "hugging_face"
    if (directory / _SAFETENSORS).is_file():
        return "safetensors"
    return None


# --- T5X legacy: a msgpack index, one zarr array per parameter ---


def read_t5x_legacy(directory: Any, dtype: Any = np.float32) -> Params:
    """Returns the parameters (`target.*`) of a T5X checkpoint folder of versions 2 and 3.

    The index `checkpoint` is msgpack (flax.serialization): small arrays lie in it, large ones
    are described there as TensorStore zarr arrays in folders beside it
    (t5x/checkpoints.py). `dtype` as in `read_params`.

    Raises:
        UserError: no index, a truncated one, an old version, a missing or broken array.
    """
    import tensorstore

    directory = files.as_path(directory)
    try:
        index = serialization.msgpack_restore((directory / "checkpoint").read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"No T5X checkpoint in {directory}: 'checkpoint' is missing.") from error
    except Exception as error:  # msgpack raises half a dozen types on bytes that are not its own
        raise UserError(
            f"{directory}/checkpoint is no T5X index or a truncated one "
            f"({type(error).__name__}: {error}); copy the checkpoint again."
        ) from error
    version = index.get("version", 0) if isinstance(index, Mapping) else 0
    if version not in (2, 3):
        raise UserError(
            f"{directory} is a T5X checkpoint of version {version!r}; versions 2 and 3 can be "
            "read. Load and save it again with a T5X of 2021 or later."
        )
    target = index.get("optimizer", {}).get("target")
    if not target:
        raise UserError(f"{directory}/checkpoint holds no parameters (optimizer/target).")
    flat = traverse_util.flatten_dict(
        target, is_leaf=lambda _, value: isinstance(value, Mapping) and "kvstore" in value
    )
    # All arrays are opened and read at once; TensorStore does the waiting.
    opened = {}
    for name, value in flat.items():
        if isinstance(value, Mapping):
            spec = _zarr_spec(directory, name, value)
            opened[name] = tensorstore.open(spec, open=True, read=True)
    arrays = {}
    for name, value in flat.items():
        if name in opened:
            value = _read_zarr(directory, name, opened[name])
        value = np.asarray(value)
        arrays[name] = value.astype(dtype or value.dtype, copy=False)
    return traverse_util.unflatten_dict(arrays)


def _zarr_folder(name: tuple[str, ...], spec: Mapping[str, Any]) -> str:
    # Checkpoints written to a bucket have the path one level higher, and in both cases
    # only its last part counts: the arrays lie beside the index.
    path = str(spec["kvstore"].get("path") or spec.get("path") or "target." + ".".join(name))
    return path.rstrip("/").rsplit("/", 1)[-1]


def _zarr_spec(directory: Any, name: tuple[str, ...], spec: Mapping[str, Any]) -> dict[str, Any]:
    folder = files.check_name(_zarr_folder(name, spec), f"array folder in {directory}/checkpoint")
    location = str(directory / folder)
    if "://" not in location:
        location = "file://" + str((directory / folder).absolute())
    return {"driver": "zarr", "kvstore": location + "/"}


def _read_zarr(directory: Any, name: tuple[str, ...], opening: Any) -> np.ndarray:
    try:
        store = opening.result()
        stored = {key.decode() for key in store.kvstore.list().result()}
        chunks = store.chunk_layout.read_chunk.shape
        grid = [range(math.ceil(n / c)) for n, c in zip(store.shape, chunks, strict=True)]
        separator = store.spec().to_json()["metadata"].get("dimension_separator", ".")
        for position in itertools.product(*grid):
            key = separator.join(map(str, position)) or "0"
            # TensorStore would read a chunk that is not there as zeros.
            if key not in stored:
                raise ValueError(f"chunk {key} is missing")
        array = store.read().result()
    except Exception as error:  # TensorStore raises errors of many types
        raise UserError(
            f"{directory} is incomplete: parameter {'.'.join(name)} cannot be read "
            f"({str(error).splitlines()[0][:200]}). Copy the checkpoint again."
        ) from error
    # Version 2 wrote bfloat16 as its bits.
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array


# --- Orbax ---


def _orbax_items(directory: Any) -> list[Any]:
    """The folders of a checkpoint that hold trees: itself, or children (`state`, `default`)."""
    if not directory.is_dir():
        return []
    candidates = [directory, *sorted(c for c in directory.iterdir() if c.is_dir())]
    return [folder for folder in candidates if (folder / "_METADATA").is_file()]


def read_orbax(directory: Any, dtype: Any = np.float32) -> Params:
    """Returns the parameters of an Orbax checkpoint: T5X's (`target`) or ours (`params`).

    `dtype` as in `read_params`.

    Raises:
        UserError: no Orbax checkpoint, one without parameters, a broken one.
    """
    import orbax.checkpoint as ocp

    directory = files.as_path(directory)
    items = _orbax_items(directory)
    if not items:
        raise UserError(f"No Orbax checkpoint in {directory}: '_METADATA' is missing.")
    for item in items:
        found = _orbax_names(item)
        if found is None:
            continue
        root, names = found
        try:
            return _restore_orbax(ocp, item, root, names, dtype)
        except Exception as error:  # Orbax and TensorStore raise many types on broken files
            raise UserError(
                f"{directory} is incomplete or damaged: {item.name}/{root} cannot be read "
                f"({str(error).splitlines()[0][:200]}). Copy the checkpoint again."
            ) from error
    raise UserError(
        f"{directory} is an Orbax checkpoint without parameters: none of its trees has "
        f"{' or '.join(map(repr, _ROOTS))}."
    )


def _orbax_names(item: Any) -> tuple[str, list[tuple[str, ...]]] | None:
    """Returns the root ("target" or "params") and the names below it, from Orbax's index."""
    try:
        entries = json.loads((item / "_METADATA").read_text())["tree_metadata"].values()
        paths = [tuple(str(key["key"]) for key in entry["key_metadata"]) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{item}/_METADATA is truncated or damaged; copy the checkpoint again."
        ) from error
    for root in _ROOTS:
        names = [path[1:] for path in paths if path[:1] == (root,) and len(path) > 1]
        if names:
            return root, names
    return None


def _restore_orbax(
    ocp: Any, item: Any, root: str, names: list[tuple[str, ...]], dtype: Any
) -> Params:
    # Orbax wants its own kind of path, and an absolute one.
    from etils import epath

    location = epath.Path(item) if "://" in str(item) else epath.Path(item).absolute()
    # The names come from the index, not from Orbax's `metadata`, which would open every
    # array of the optimizer state too.
    tree = traverse_util.unflatten_dict({(root, *name): 0 for name in names})
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype), tree
    )
    handler = ocp.PyTreeCheckpointHandler()
    try:
        restored = handler.restore(
            location,
            args=ocp.args.PyTreeRestore(item=tree, restore_args=as_numpy, partial_restore=True),
        )
    finally:
        handler.close()
    return jax.tree.map(np.asarray, restored[root])


# --- what a checkpoint should hold ---


def check_params(params: Params, abstract_params: Params, source: Any) -> None:
    """Checks that a checkpoint fits the model.

    Args:
        params: nested dict of arrays, from `read_params`.
        abstract_params: nested dict of shapes, from `parameters.abstract_params`.
        source: where `params` came from, for the message.

    Raises:
        UserError: names every missing and unexpected parameter and every one of another
            shape (with both shapes), and the field of T5Config that is likely wrong.
    """
    have, need = weights.flatten(params), weights.flatten(abstract_params)
    missing = [name for name in need if name not in have]
    unexpected = [name for name in have if name not in need]
    problems, fields = [], []
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"unexpected: {_listed(unexpected)}")
    for name in missing + unexpected:
        fields.append(_field_of_presence(name, have.keys() & need.keys()))
    wrong_shapes = []
    for name in need:
        if name in have and tuple(have[name].shape) != tuple(need[name].shape):
            there, here = tuple(have[name].shape), tuple(need[name].shape)
            wrong_shapes.append(f"{name} is {there} there and {here} here")
            fields.extend(_fields_of_shape(name, there, here))
    if wrong_shapes:
        problems.append(f"other shapes: {_listed(wrong_shapes)}")
    if problems:
        likely = ", ".join(f"T5Config.{field}" for field in dict.fromkeys(fields) if field)
        hint = f" Likely wrong: {likely}." if likely else ""
        raise UserError(f"{source} does not fit the model: {'; '.join(problems)}.{hint}")


def _listed(items: list[str], limit: int = 4) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _field_of_presence(name: str, shared: Set[str]) -> str:
    """The field of T5Config on which it depends whether a parameter exists."""
    if name.endswith("logits_dense.kernel"):
        return "logits_via_embedding"
    layer = re.match(r"(encoder|decoder)\.layers_\d+\.", name)
    if layer and ".mlp.wi" in name and f"{layer[0]}mlp.wo.kernel" in shared:
        return "mlp_activations"
    return f"num_{layer[1]}_layers" if layer else ""


def _fields_of_shape(name: str, there: tuple[int, ...], here: tuple[int, ...]) -> list[str]:
    """The fields of T5Config that a parameter's differing axes depend on."""
    parent = name.split(".")[-2]
    heads = "num_heads or head_dim"
    axes = {
        "token_embedder": ("vocab_size", "emb_dim"),
        "logits_dense": ("emb_dim", "vocab_size"),
        "relpos_bias": ("num_heads", ""),
        "out": (heads, "emb_dim"),
        "wo": ("mlp_dim", "emb_dim"),
    }.get(parent)
    if axes is None and parent in ("query", "key", "value"):
        axes = ("emb_dim", heads)
    elif axes is None and parent.startswith("wi"):
        axes = ("emb_dim", "mlp_dim")
    elif axes is None:
        axes = ("emb_dim",)
    if len(there) != len(here):
        return []
    return [field for field, a, b in zip(axes, there, here) if a != b]
