"""A T5 model's parameters: their shapes, first values, layouts, and the output layer among them.

Checkpoints of every kind hold one subtree per layer (`layers_0`, `layers_1`, ...). A model with
`scan_layers` takes them stacked along a first axis, as `layers`.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp

from ait_jax.models.likelihood import OutputLayer
from ait_jax.models.t5 import Params, T5Config, Transformer

_STACKED = "layers"


def output_layer(config: T5Config, params: Params) -> OutputLayer:
    """Returns what turns hidden states into logits: a kernel, or the scaled token table."""
    if config.logits_via_embedding:
        table_VxE = params["token_embedder"]["embedding"]
        return OutputLayer(table_VxE, vocab_axis=0, scale=1 / math.sqrt(config.emb_dim))
    return OutputLayer(params["decoder"]["logits_dense"]["kernel"], vocab_axis=1, scale=1.0)


def _init_variables(model: Transformer, rng: jax.Array) -> dict[str, Any]:
    tokens_1x1 = jnp.ones((1, 1), jnp.int32)
    return flax.core.unfreeze(
        model.init(rng, tokens_1x1, tokens_1x1, tokens_1x1, enable_dropout=False)
    )


def abstract_params(model: Transformer) -> tuple[Params, Params]:
    """Returns shapes and logical axes without allocating anything.

    Returns:
        Two nested dicts with the same keys: jax.ShapeDtypeStruct leaves, and tuples of
        logical axis names ("vocab", "embed", "mlp", "joined_kv", "heads", "relpos_buckets").
    """
    variables = jax.eval_shape(lambda: _init_variables(model, jax.random.PRNGKey(0)))
    return variables["params"], _axes_of(variables["params_axes"])


def _axes_of(tree: Mapping[str, Any]) -> Params:
    axes = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            axes[name] = _axes_of(value)
        else:
            axes[name.removesuffix("_axes")] = tuple(value.names)
    return axes


def init_params(model: Transformer, rng_seed: int) -> tuple[Params, Params]:
    """Returns (parameters, logical axes), the values T5X draws from PRNGKey(rng_seed)."""
    params = jax.jit(lambda rng: _init_variables(model, rng)["params"])(
        jax.random.PRNGKey(rng_seed)
    )
    return params, abstract_params(model)[1]


def num_params(params: Params) -> int:
    """Counts the elements of a tree of arrays or of ShapeDtypeStructs."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def match_layout(params: Params, scan_layers: bool) -> Params:
    """Returns `params` with their layers stacked, or not, whichever they were.

    Args:
        params: nested dicts of arrays, NumPy's or JAX's (also under jit).
    """
    convert = _stacked if scan_layers else _unstacked
    return {
        name: convert(subtree) if name in ("encoder", "decoder") else subtree
        for name, subtree in params.items()
    }


def _stacked(stack: Params) -> Params:
    names = sorted(
        (name for name in stack if name.startswith(f"{_STACKED}_")),
        key=lambda name: int(name.rpartition("_")[2]),
    )
    if not names:
        return stack
    others = {name: value for name, value in stack.items() if name not in names}
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(stack[name] for name in names))
    return {**others, _STACKED: layers}


def _unstacked(stack: Params) -> Params:
    if _STACKED not in stack:
        return stack
    others = {name: value for name, value in stack.items() if name != _STACKED}
    num_layers = jax.tree.leaves(stack[_STACKED])[0].shape[0]

    def layer(index: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[index], stack[_STACKED])

    return {**others, **{f"{_STACKED}_{index}": layer(index) for index in range(num_layers)}}
