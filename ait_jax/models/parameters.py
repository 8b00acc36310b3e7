"""Trees of parameters: shapes and first values, dotted names, and how their layers lie.

Names are T5X's. Layers lie one by one, stacked, or as in T5X's scalable_t5.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import core, traverse_util

from ait_jax.errors import UserError, shown_path
from ait_jax.models.interface import Model, Params, changed

# `encoder.layers_0`, `encoder.layers_1`, ...: T5X's T5, and every file that is written here but
# for the checkpoints of a training with scan_layers.
SEPARATE = "separate"
# `encoder.layers`, stacked along the first axis: our network with scan_layers.
STACKED = "stacked"
# `encoder.encoder`, stacked along the second axis, heads with an axis of their own and a table of
# position biases in every layer: t5x/examples/scalable_t5/network.py.
SCALABLE = "scalable_t5"

_LAYERS = "layers"
_STACKS = ("encoder", "decoder")
_BIASES = "relpos_bias.rel_embedding"


def abstract_params(model: Model) -> tuple[Params, Params]:
    """Returns shapes and logical axes without allocating anything.

    Returns:
        Two nested dicts with the same keys: jax.ShapeDtypeStruct leaves, and tuples of
        logical axis names ("vocab", "embed", "mlp", "joined_kv", "heads", "relpos_buckets").
    """
    shapes, axes = _known_params(model)
    return traverse_util.unflatten_dict(shapes), traverse_util.unflatten_dict(axes)


def traced_params(model: Model) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Returns `abstract_params` by path, from a pass through the model that can be watched."""
    variables = jax.eval_shape(lambda: _init_variables(model, jax.random.PRNGKey(0)))
    axes = {
        (*path, name.removesuffix("_axes")): tuple(leaf.names)
        for (*path, name), leaf in by_path(variables["params_axes"]).items()
    }
    return by_path(variables["params"]), axes


_known_params = functools.lru_cache(maxsize=16)(traced_params)


def _init_variables(model: Model, rng: jax.Array) -> dict[str, Any]:
    tokens_1x1 = jnp.ones((1, 1), jnp.int32)
    return core.unfreeze(model.init(rng, tokens_1x1, tokens_1x1, tokens_1x1, enable_dropout=False))


def init_params(
    model: Model, rng_seed: int, shardings: Params | None = None
) -> tuple[Params, Params]:
    """Returns (parameters, logical axes), the values T5X draws from PRNGKey(rng_seed).

    With `shardings`, a tree of them, every device draws its own part.
    """
    draw = jax.jit(lambda rng: _init_variables(model, rng)["params"], out_shardings=shardings)
    return draw(jax.random.PRNGKey(rng_seed)), abstract_params(model)[1]


def num_params(params: Any) -> int:
    """Counts the elements of a tree of arrays or of ShapeDtypeStructs."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def by_path(params: Params) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of a nested dict by their paths."""
    return traverse_util.flatten_dict(params)


def flatten(params: Params) -> dict[str, Any]:
    """Returns {"encoder.layers_0...kernel": array} of a nested dict, sorted by name."""
    return dict(sorted(traverse_util.flatten_dict(dict(params), sep=".").items()))


def unflatten(flat: Params) -> dict[str, Any]:
    """Inverts `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep=".")


# --- layouts of layers ---


def layout_of(names: Iterable[str]) -> str:
    """Returns the layout of parameters with these dotted names."""
    prefixes = {".".join(name.split(".")[:2]) for name in names}
    if any(f"{stack}.{stack}" in prefixes for stack in _STACKS):
        return SCALABLE
    return STACKED if any(f"{stack}.{_LAYERS}" in prefixes for stack in _STACKS) else SEPARATE


def abstract_params_in(
    model: Model, layout: str
) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, tuple[str, ...]]]:
    """Returns a model's shapes and logical axes, by dotted name, in a layout.

    Args:
        model: whatever its own layout is.
        layout: SEPARATE, STACKED or SCALABLE.
    """
    model = changed(model, scan_layers=layout != SEPARATE)
    config = model.config
    shapes, axes = map(flatten, abstract_params(model))
    if layout != SCALABLE:
        return shapes, axes
    num_layers = {
        name.partition(".")[0]: shape.shape[0]
        for name, shape in shapes.items()
        if axes[name][0] == _LAYERS
    }
    heads = {"joined_kv": (("heads", config.num_heads), ("kv", config.head_dim))}
    moved_shapes, moved_axes = {}, {}
    for name, shape in shapes.items():
        sized = list(zip(axes[name], shape.shape, strict=True))
        stack, _, rest = name.partition(".")
        moved = name
        if rest.startswith(f"{_LAYERS}."):
            moved = f"{stack}.{stack}.{rest.removeprefix(_LAYERS + '.')}"
            layers, *sized = [pair for axis in sized for pair in heads.get(axis[0], (axis,))]
            sized.insert(1, layers)
        elif rest == _BIASES:
            moved = f"{stack}.{stack}.{_BIASES}"
            sized.insert(1, (_LAYERS, num_layers[stack]))
        moved_axes[moved], size = zip(*sized, strict=True)
        moved_shapes[moved] = jax.ShapeDtypeStruct(size, shape.dtype)
    return moved_shapes, moved_axes


def from_scalable(params: Params, place: Any) -> dict[str, Any]:
    """Returns parameters in SCALABLE layout, by dotted name, in STACKED layout.

    Args:
        params: arrays of the host or of a mesh; others may be missing.
        place: where they came from, for the message.

    Raises:
        UserError: layers have different position biases; our network shares one table.
    """
    stacked = {}
    for name, array in params.items():
        stack, _, rest = name.partition(".")
        if not rest.startswith(f"{stack}."):
            stacked[name] = array
            continue
        rest = rest.removeprefix(f"{stack}.")
        if array.ndim < 2 or 0 in array.shape:
            raise UserError(
                f"{shown_path(place)}: {shown_path(name)} of shape {array.shape} is not stacked by "
                "layers, as T5X's scalable_t5 has it."
            )
        if rest == _BIASES:
            if not bool(jnp.all(array == array[:, :1])):
                raise UserError(
                    f"{place}: its {stack}'s layers have position biases of their own ({name}), as "
                    "T5X's scalable_t5 trains them; this network shares one table among its layers."
                )
            stacked[f"{stack}.{_BIASES}"] = array[:, 0]
        else:
            stacked[f"{stack}.{_LAYERS}.{rest}"] = _joined_heads(rest, array.swapaxes(0, 1))
    return stacked


def _joined_heads(name: str, array: Any) -> Any:
    """Returns (layers, embed, joined_kv) for (layers, embed, heads, kv), out's the other way."""
    if array.ndim < 4:
        return array
    first = 1 if name.endswith("out.kernel") else 2
    return array.reshape(*array.shape[:first], -1, *array.shape[first + 2 :])


def match_layout(params: Params, scan_layers: bool) -> Params:
    """Returns `params` with their layers stacked, or not, whichever they were.

    Args:
        params: nested dicts of arrays, NumPy's or JAX's (also under jit), SEPARATE or STACKED.
    """
    convert = _stacked if scan_layers else _unstacked
    return {
        name: convert(subtree) if name in _STACKS else subtree for name, subtree in params.items()
    }


def layers_apart(tree: Any) -> Any:
    """Returns a tree such as `Model.encode` makes with its layers one by one."""
    return _unstacked(tree) if isinstance(tree, Mapping) else tree


def _stacked(stack: Params) -> Params:
    names = sorted(
        (name for name in stack if re.fullmatch(rf"{_LAYERS}_\d{{1,9}}", name)),
        key=lambda name: int(name.rpartition("_")[2]),
    )
    if not names:
        return stack
    others = {name: value for name, value in stack.items() if name not in names}
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(stack[name] for name in names))
    return {**others, _LAYERS: layers}


def _unstacked(stack: Params) -> Params:
    if _LAYERS not in stack:
        return stack
    others = {name: value for name, value in stack.items() if name != _LAYERS}
    num_layers = jax.tree.leaves(stack[_LAYERS])[0].shape[0]

    def layer(index: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[index], stack[_LAYERS])

    return {**others, **{f"{_LAYERS}_{index}": layer(index) for index in range(num_layers)}}
