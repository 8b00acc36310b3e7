"""A model's parameters: their shapes and first values, and the output layer among them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import weights
from ait_jax.models.interface import Model, ModelConfig
from ait_jax.models.likelihood import OutputLayer
from ait_jax.models.t5 import Params, T5Config


def output_layer(config: ModelConfig, params: Params) -> OutputLayer:
    """Returns what turns a model's hidden states into logits: a kernel, or the token table."""
    return config.output_layer(params)


def _init_variables(model: Model, rng: jax.Array) -> dict[str, Any]:
    tokens_1x1 = jnp.ones((1, 1), jnp.int32)
    return flax.core.unfreeze(
        model.init(rng, tokens_1x1, tokens_1x1, tokens_1x1, enable_dropout=False)
    )


def abstract_params(model: Model) -> tuple[Params, Params]:
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


def init_params(
    model: Model, rng_seed: int, shardings: Params | None = None
) -> tuple[Params, Params]:
    """Returns (parameters, logical axes), the values T5X draws from PRNGKey(rng_seed).

    With `shardings`, a tree of them, every device draws its own part.
    """
    draw = jax.jit(lambda rng: _init_variables(model, rng)["params"], out_shardings=shardings)
    return draw(jax.random.PRNGKey(rng_seed)), abstract_params(model)[1]


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
            raise UserError(f"no T5 1.0 or 1.1 under T5X's names: it lacks the matrix {name}.")
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
