"""Monte Carlo dropout: a model's own dropout layers at work while it scores.

The layers are reached from outside (`flax.linen.intercept_methods`), so that any network that has
them can do it. A row's draw is a function of its key, the layer and the place in the row: not of
other rows, of padding or of the mesh. Every element is drawn by itself, as in PyTorch; in training
T5X's layers drop a feature at all positions at once, and attention's weights, too.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Int

# Layers differ in what flax makes of this key; rows have keys of their own.
LAYER_SEED = 0


def layer_keys() -> dict[str, Array]:
    """Returns what `apply` takes as `rngs`."""
    return {"dropout": jax.random.key(LAYER_SEED)}


def drawn_rows(
    keys: Sequence[int] | np.ndarray, rates: Sequence[float] | np.ndarray
) -> Int[np.ndarray, "rows 3"]:
    """Returns what `dropping` draws rows with.

    Args:
      keys: of 64 bits (`randomness.stable_hash`).
      rates: the share of each row's values that is set to 0; 0 drops nothing.
    """
    halves = np.array(keys, np.uint64).reshape(-1, 1) >> np.array([32, 0], np.uint64)
    shares = np.array(rates, np.float32).reshape(-1, 1)
    return np.concatenate([halves.astype(np.uint32).view(np.int32), shares.view(np.int32)], axis=1)


def dropping(rows_Bx3: Int[Array, "B 3"]) -> AbstractContextManager[Any]:
    """Returns a context in which `apply` drops, given `layer_keys()` and rows in this order.

    Args:
      rows_Bx3: as of `drawn_rows`.
    """
    bits = jax.lax.bitcast_convert_type
    keys_Bx2, rate_B = bits(rows_Bx3[:, :2], jnp.uint32), bits(rows_Bx3[:, 2], jnp.float32)

    def drop(call: Any, arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        if not isinstance(context.module, nn.Dropout) or context.method_name != "__call__":
            return call(*arguments, **options)
        layer_key = context.module.make_rng("dropout")

        def of_row(x: Array, key: Array, rate: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(layer_key, key[0]), key[1])
            kept = jax.random.bernoulli(key, 1 - rate, x.shape)
            return jnp.where(kept, x / (1 - rate).astype(x.dtype), jnp.zeros_like(x))

        return jax.vmap(of_row)(arguments[0], keys_Bx2, rate_B)

    return nn.intercept_methods(drop)
