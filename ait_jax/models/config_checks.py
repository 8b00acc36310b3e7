"""What the configurations of all models check: gin passes strings and lists, modules need more."""

from typing import Any

import jax.numpy as jnp

from ait_jax.errors import UserError, nearest
from ait_jax.models.attention import KERNELS
from ait_jax.models.layer_stack import REMAT_POLICIES

_ACTIVATIONS = ("linear", "relu", "gelu", "silu", "swish", "tanh", "sigmoid")


def check_common(config: Any, sizes: tuple[str, ...]) -> None:
    """Puts dtypes in the place of their names, and checks what every model's configuration has.

    Args:
        config: a frozen dataclass.
        sizes: fields that must be at least 1.

    Raises:
        UserError: an unknown dtype, remat policy or attention kernel, a size below 1.
    """
    kind = type(config).__name__
    object.__setattr__(config, "dtype", float_dtype(config.dtype, kind))
    if config.intermediate_dtype is not None:
        between = float_dtype(config.intermediate_dtype, kind)
        object.__setattr__(config, "intermediate_dtype", between)
    for field, known in (("remat_policy", REMAT_POLICIES), ("attention_kernel", KERNELS)):
        value = getattr(config, field)
        if value not in known:
            raise UserError(
                f"{kind}.{field} is {value!r}; needed: one of "
                f"{', '.join(known)}.{nearest(str(value), known)}"
            )
    for field in sizes:
        if getattr(config, field) < 1:
            raise UserError(f"{kind}.{field} is {getattr(config, field)}; needed: at least 1.")
    if not 0.0 <= config.dropout_rate < 1.0:
        raise UserError(f"{kind}.dropout_rate is {config.dropout_rate}; needed: from 0 to below 1.")


def check_activations(config: Any) -> None:
    """Makes `mlp_activations` a tuple of known names."""
    activations = config.mlp_activations
    activations = (activations,) if isinstance(activations, str) else tuple(activations)
    object.__setattr__(config, "mlp_activations", activations)
    for name in activations or ("",):
        if name not in _ACTIVATIONS:
            raise UserError(
                f"{type(config).__name__}.mlp_activations has {name!r}; needed: one or two of "
                f"{', '.join(_ACTIVATIONS)}.{nearest(str(name), _ACTIVATIONS)}"
            )


def float_dtype(dtype: Any, kind: str) -> jnp.dtype:
    """Returns the floating-point dtype that a configuration of `kind` was given."""
    try:
        resolved = jnp.dtype(dtype)
    except TypeError:
        resolved = None
    if resolved is None or not jnp.issubdtype(resolved, jnp.floating):
        names = ("float32", "bfloat16")
        raise UserError(
            f"{kind}.dtype is {dtype!r}; needed: 'float32' or 'bfloat16'."
            f"{nearest(str(dtype), names)}"
        )
    return resolved
