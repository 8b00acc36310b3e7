"""A checkpoint's parameters, from disk straight to the devices that hold them.

Every process reads the parts of its own devices only, so no host holds a model as a whole.
"""

import dataclasses
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from ait_jax.errors import UserError
from ait_jax.models import parameters
from ait_jax.models.checkpoints import llama_settings
from ait_jax.models.checkpoints.checkpoints import FORMS, Checkpoint, open_checkpoint
from ait_jax.models.interface import Model, Params, changed
from ait_jax.models.llama import LlamaConfig
from ait_jax.models.parameters import abstract_params, flatten, init_params, num_params, unflatten
from ait_jax.runtime.partitioning import Partitioner

# The field of a model's configuration that a logical axis is as long as.
_FIELDS = {
    "vocab": "vocab_size",
    "embed": "emb_dim",
    "mlp": "mlp_dim",
    "joined_kv": "num_heads or head_dim",
    "heads": "num_heads",
    "kv": "head_dim",
}


@dataclass(frozen=True)
class Restored:
    """Parameters on the mesh, and how the checkpoint fit the model.

    Attributes:
        params: nested dict of float32 arrays in the model's layout.
        checkpoint: where they came from.
        drawn: names that it lacks, drawn at random.
        left_out: names that the model lacks.
    """

    params: Params
    checkpoint: Checkpoint
    drawn: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns a line: what was restored, what was reset, what was missing."""
        checkpoint, stored = self.checkpoint, self.checkpoint.stored
        restored = [shape for name, shape in stored.shapes.items() if name not in self.left_out]
        dtypes = ", ".join(sorted({str(shape.dtype) for shape in restored}))
        step = "" if checkpoint.step is None else f" of step {checkpoint.step:,}"
        layout = "" if checkpoint.layout == parameters.SEPARATE else f", layers {checkpoint.layout}"
        parts = [
            f"restored {num_params(restored):,} parameters in {len(restored)} arrays ({dtypes}"
            f"{layout}) from {checkpoint.place}, {FORMS[checkpoint.form]}{step}"
        ]
        if stored.num_others:
            parts.append(f"reset: its optimizer state ({stored.num_others} arrays)")
        missing = f", drawn at random: {listed(self.drawn)}" if self.drawn else ": none"
        parts.append(f"missing{missing}")
        if self.left_out:
            parts.append(f"not in the model, left out: {listed(self.left_out)}")
        return "; ".join(parts)


def restore_params(
    path: Any,
    model: Model,
    partitioner: Partitioner,
    *,
    fallback_to_scratch: bool = False,
    rng_seed: int = 0,
) -> Restored:
    """Reads a checkpoint's parameters onto the mesh.

    Args:
        path: as in `checkpoints.find`.
        model: what they are for; layouts may differ.
        partitioner: the mesh and its rules.
        fallback_to_scratch: draw what the checkpoint lacks from `rng_seed` and leave out what
            the model lacks (T5X's name); else either is refused.

    Raises:
        UserError: no checkpoint, an incomplete one, one that does not fit the model.
    """
    checkpoint, missing, unexpected = open_fitting(
        path, model, fallback_to_scratch=fallback_to_scratch
    )
    stored, layout = checkpoint.stored, checkpoint.layout
    shapes, axes = parameters.abstract_params_in(model, layout)
    names = [name for name in shapes if name not in missing]
    shardings = partitioner.param_shardings(shapes, axes)
    params = stored.load(names, np.float32, shardings)
    if layout == parameters.SCALABLE:
        params, layout = parameters.from_scalable(params, checkpoint.place), parameters.STACKED
    if missing:
        completed = changed(model, scan_layers=layout == parameters.STACKED)
        params = _completed(params, completed, partitioner, rng_seed)
    params = _in_layout_of(model, layout, partitioner, unflatten(params))
    return Restored(params, checkpoint, tuple(missing), tuple(unexpected))


def open_fitting(
    path: Any, model: Model, *, fallback_to_scratch: bool = False
) -> tuple[Checkpoint, list[str], list[str]]:
    """Returns a checkpoint that fits the model, reading none of its parameters.

    Arguments and errors are those of `restore_params`.

    Returns:
        The checkpoint, the names that only the model has, and those that only it has.
    """
    checkpoint = open_checkpoint(path)
    if isinstance(checkpoint.config, LlamaConfig) and not fallback_to_scratch:
        # Shapes do not show rotations, norms or how heads divide a kernel.
        llama_settings.check_same(checkpoint.config, model.config, checkpoint.place)
    shapes, axes = parameters.abstract_params_in(model, checkpoint.layout)
    missing, unexpected = check_params(
        checkpoint.stored.shapes,
        shapes,
        axes,
        checkpoint.place,
        type(model.config),
        partly=fallback_to_scratch,
    )
    return checkpoint, missing, unexpected


def _completed(
    params: dict[str, Any], model: Model, partitioner: Partitioner, rng_seed: int
) -> dict[str, Any]:
    """Returns `params`, by dotted name, with what they lack drawn at random."""
    shardings = partitioner.param_shardings(*abstract_params(model))
    return flatten(init_params(model, rng_seed, shardings)[0]) | params


def _in_layout_of(model: Model, layout: str, partitioner: Partitioner, params: Params) -> Params:
    """Stacks or unstacks layers on the mesh, as the model has them."""
    scan_layers = model.config.scan_layers
    if scan_layers == (layout == parameters.STACKED):
        return params
    shardings = partitioner.param_shardings(*abstract_params(model))
    change = partial(parameters.match_layout, scan_layers=scan_layers)
    return jax.jit(change, out_shardings=shardings)(params)


# --- what a checkpoint should hold ---


def check_params(
    have: Mapping[str, Any],
    need: Mapping[str, Any],
    axes: Mapping[str, tuple[str, ...]],
    place: Any,
    config_class: type,
    *,
    partly: bool = False,
) -> tuple[list[str], list[str]]:
    """Checks that a checkpoint fits the model.

    Args:
        have: what has a shape, by dotted name: the checkpoint's parameters.
        need: the same of the model.
        axes: the model's logical axes.
        place: where `have` came from, for the message.
        config_class: of the model's configuration, for the message.
        partly: names may differ, shapes not.

    Returns:
        The names that only the model has, and those that only the checkpoint has.

    Raises:
        UserError: names every missing and unexpected parameter and every one of another
            shape (with both shapes), and the field of the configuration that is likely wrong.
    """
    missing = [name for name in need if name not in have]
    unexpected = [name for name in have if name not in need]
    problems, fields = [], []
    if partly and len(missing) == len(need):
        problems.append(f"it has none of the model's parameters, only {listed(unexpected)}")
    elif not partly:
        problems += [f"missing: {listed(missing)}"] if missing else []
        problems += [f"unexpected: {listed(unexpected)}"] if unexpected else []
        fields += [_field_of_presence(n, have.keys() & need.keys()) for n in missing + unexpected]
    wrong_shapes = []
    for name in need:
        if name in have and tuple(have[name].shape) != tuple(need[name].shape):
            there, here = tuple(have[name].shape), tuple(need[name].shape)
            wrong_shapes.append(f"{name} is {there} there and {here} here")
            fields += _fields_of_shape(name, axes[name], there, here)
    problems += [f"other shapes: {listed(wrong_shapes)}"] if wrong_shapes else []
    if problems:
        likely = ", ".join(_qualified(fields, config_class))
        hint = f" Likely wrong: {likely}." if likely else ""
        raise UserError(f"{place} does not fit the model: {'; '.join(problems)}.{hint}")
    return missing, unexpected


def _qualified(fields: list[str], config_class: type) -> list[str]:
    """Returns the fields under the configuration's name, each once."""
    known = {field.name for field in dataclasses.fields(config_class)}
    # A model of one stack has one number of layers.
    own = ["num_layers" if f not in known and f.endswith("_layers") else f for f in fields]
    return [f"{config_class.__name__}.{field}" for field in dict.fromkeys(own) if field]


def listed(items: Any, limit: int = 4) -> str:
    """Returns the first of many items, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _field_of_presence(name: str, shared: Set[str]) -> str:
    """The field of the configuration on which it depends whether a parameter exists."""
    if name.endswith("logits_dense.kernel"):
        return "logits_via_embedding"
    layer = re.match(r"(encoder|decoder)\.(layers_\d+|layers|encoder|decoder)\.", name)
    if layer and ".mlp.wi" in name and f"{layer[0]}mlp.wo.kernel" in shared:
        return "mlp_activations"
    return f"num_{layer[1]}_layers" if layer else ""


def _fields_of_shape(
    name: str, axes: tuple[str, ...], there: tuple[int, ...], here: tuple[int, ...]
) -> list[str]:
    """The fields of the configuration that a parameter's differing axes depend on."""
    if len(there) != len(here):
        return []
    fields = _FIELDS | {"layers": f"num_{name.partition('.')[0]}_layers"}
    differing = [axis for axis, a, b in zip(axes, there, here, strict=True) if a != b]
    return [fields[axis] for axis in differing if axis in fields]
