"""A T5 model's parameters: their shapes, first values, layouts, and the output layer among them.

Checkpoints of every kind hold one subtree per layer (`layers_0`, `layers_1`, ...). A model with
`scan_layers` takes them stacked along a first axis, as `layers`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp

from ait_jax.errors import UserError
from ait_jax.models import weights
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


def config_of(params: Params, mlp_activations: Sequence[str] | None = None) -> T5Config:
    """Returns the T5Config that unscanned parameters fit, read off their names and shapes.

    Args:
        params: nested dict of arrays.
        mlp_activations: what shapes cannot tell; by default as in T5 1.1 where the feed-forward
            layer is gated, ("gelu", "linear"), and as in T5 1.0 where it is not, ("relu",).

    Raises:
        UserError: names that no T5 of ours has.
    """
    shapes = {name: tuple(array.shape) for name, array in weights.flatten(params).items()}

    def shape(name: str) -> tuple[int, int]:
        if len(shapes.get(name, ())) != 2:
            why = f"it lacks the matrix {name}"
            if "encoder.encoder.relpos_bias.rel_embedding" in shapes:
                why = "each of its layers has position biases of its own (T5X's scalable_t5)"
            raise UserError(f"no T5 1.0 or 1.1 under T5X's names: {why}.")
        return shapes[name]

    def num_layers(stack: str) -> int:
        found = (re.match(rf"{stack}\.layers_(\d+)\.", name) for name in shapes)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    gated = "encoder.layers_0.mlp.wi_0.kernel" in shapes
    vocab_size, emb_dim = shape("token_embedder.embedding")
    num_heads = shape("encoder.relpos_bias.rel_embedding")[0]
    joined_kv = shape("encoder.layers_0.attention.query.kernel")[1]
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers("encoder"),
        num_decoder_layers=num_layers("decoder"),
        head_dim=joined_kv // num_heads,
        mlp_dim=shape("encoder.layers_0.mlp.wo.kernel")[0],
        mlp_activations=mlp_activations or (("gelu", "linear") if gated else ("relu",)),
        logits_via_embedding="decoder.logits_dense.kernel" not in shapes,
    )


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
