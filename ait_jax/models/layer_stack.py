"""A stack of equal layers: one by one, or one compiled once and scanned; recomputed or not."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning

REMAT_POLICIES = ("none", "minimal", "full")


def remat(layer: type[nn.Module], config: Any, static_argnums: tuple[int, ...]) -> type[nn.Module]:
    """Returns a layer whose backward pass recomputes what `config.remat_policy` says."""
    if config.remat_policy == "none":
        return layer
    policy = None
    if config.remat_policy == "minimal":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return nn.remat(layer, policy=policy, static_argnums=static_argnums)


def scanned(
    layer_class: type[nn.Module], config: Any, num_layers: int, in_axes: tuple[Any, ...]
) -> nn.Module:
    """Returns one layer, compiled once, that runs over parameters and caches stacked along axis 0.

    Called with (x, *others) it returns (x, what the layers return besides, stacked). Its name in
    the parameters is `layers`, instead of `layers_0`, `layers_1`, ...

    Args:
        in_axes: of every one of the others 0, if it is stacked like the parameters, or
            flax.linen.broadcast.
    """
    return nn_partitioning.scan_with_axes(
        layer_class,
        variable_axes={"params": 0, "cache": 0, "cross_cache": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=num_layers,
        axis_name="layers",
    )(config, name="layers")


def layer_stack(layer_class: type[nn.Module], config: Any, num_layers: int) -> Callable:
    """Returns the function (x, *others) -> x of all layers, one after the other.

    With `config.scan_layers` they are `scanned`.
    """

    def unrolled(x, *others):
        for index in range(num_layers):
            x = layer_class(config, name=f"layers_{index}")(x, *others)[0]
        return x

    def over_stacked(x, *others):
        in_axes = (nn.broadcast,) * len(others)
        return scanned(layer_class, config, num_layers, in_axes)(x, *others)[0]

    return over_stacked if config.scan_layers else unrolled
