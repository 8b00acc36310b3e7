"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) beside the matrices of any model here.

An adapted `layers.Dense` computes x W + scale (x A) B: W is frozen, A (in, rank) and B
(rank, out) learn. The models know nothing of this: `Adapted` adds the branch from outside, to
layers one by one or scanned, and `merged` gives the parameters W + scale A B of an ordinary model.

Adapters are a tree of the parameters' own form with {"a", "b"} in place of {"kernel"}.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from ait_jax import randomness
from ait_jax.errors import UserError, nearest, shown
from ait_jax.models.interface import Model, Params
from ait_jax.models.layers import Dense, matmul
from ait_jax.models.likelihood import OutputLayer
from ait_jax.models.parameters import abstract_params, by_path, traced_params

# The collection of variables that holds adapters beside the parameters (`layer_stack.scanned`).
COLLECTION = "adapters"
_LAYER = re.compile(r"layers_(\d+)$")


@dataclass(frozen=True)
class Kernel:
    """A matrix of the model that can have an adapter.

    Attributes:
        path: of its module in the parameters.
        shape, axes: sizes and logical axes; scanned layers have "layers" first.
        dtype: of the multiplication.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: Any

    @property
    def name(self) -> str:
        """The path with slashes, the same for layers one by one and scanned."""
        return "/".join(_LAYER.sub("layers", part) for part in self.path)


def kernels_of(model: Model) -> list[Kernel]:
    """Returns the matrices that a model's `Dense` modules multiply with."""
    dtypes: dict[tuple[str, ...], Any] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_product(context):
            dtypes[context.module.path] = context.module.dtype
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes, axes = traced_params(model)
    return [
        Kernel(path, shapes[(*path, "kernel")].shape, axes[(*path, "kernel")], dtype)
        for path, dtype in sorted(dtypes.items())
    ]


def targeted(kernels: Sequence[Kernel], targets: Sequence[str], gin_name: str) -> list[Kernel]:
    """Returns the kernels that any of `targets` names.

    Args:
        targets: last parts of `Kernel.name`, with * and ?: "query", "wi_*", "decoder/*/value".
        gin_name: of the targets, for the message.

    Raises:
        UserError: a target that names none.
    """
    if isinstance(targets, str):
        raise UserError(
            f"{gin_name} = {shown(targets)} must be a tuple: write ({shown(targets)},)."
        )
    if not targets:
        raise UserError(
            f"{gin_name} = {shown(targets)} names no kernel to adapt; name at least one."
        )

    def names(target: str, kernel: Kernel) -> bool:
        return any(fnmatch.fnmatchcase(kernel.name, form) for form in (target, f"*/{target}"))

    last_parts = list(dict.fromkeys(kernel.path[-1] for kernel in kernels))
    for target in targets:
        if not any(names(target, kernel) for kernel in kernels):
            near = nearest(target, last_parts + [kernel.name for kernel in kernels])
            raise UserError(
                f"{gin_name} names {shown(target)}, but the model has no such kernel.{near} Its "
                f"kernels: {', '.join(last_parts)}; part of the path may precede a name, as in "
                f"{shown('/'.join(kernels[0].name.split('/')[-2:]))}, and * matches anything."
            )
    return [kernel for kernel in kernels if any(names(target, kernel) for target in targets)]


def abstract_adapters(kernels: Sequence[Kernel], rank: int) -> tuple[Params, Params]:
    """Returns shapes (float32) and logical axes of adapters; the rank is never sharded."""
    shapes, axes = {}, {}
    for kernel in kernels:
        *layers, inputs, outputs = kernel.shape
        *layers_axis, of_inputs, of_outputs = kernel.axes
        for name, shape, own in (
            ("a", (inputs, rank), (of_inputs, None)),
            ("b", (rank, outputs), (None, of_outputs)),
        ):
            shapes[*kernel.path, name] = jax.ShapeDtypeStruct((*layers, *shape), jnp.float32)
            axes[*kernel.path, name] = (*layers_axis, *own)
    return traverse_util.unflatten_dict(shapes), traverse_util.unflatten_dict(axes)


def init_adapters(
    kernels: Sequence[Kernel], rank: int, seed: int, shardings: Params | None = None
) -> Params:
    """Draws A from a normal distribution of variance 1 / in; B is 0, so the model is unchanged.

    A layer's A depends on the seed, the kernel's name and the layer's number alone: layers scanned
    and one by one begin alike.
    """

    def draw_a(kernel: Kernel) -> jax.Array:
        key = jax.random.key(randomness.stable_hash(seed, "adapter", kernel.name) % 2**31)
        inputs = kernel.shape[-2]

        def of_layer(number: int | jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, number)
            return jax.random.normal(own, (inputs, rank), jnp.float32) / np.sqrt(inputs)

        if len(kernel.shape) == 3:
            return jax.vmap(of_layer)(jnp.arange(kernel.shape[0]))
        numbers = [int(found[1]) for part in kernel.path if (found := _LAYER.match(part))]
        return of_layer(numbers[0] if numbers else 0)

    def draw() -> Params:
        flat = {}
        for kernel in kernels:
            flat[*kernel.path, "a"] = draw_a(kernel)
            flat[*kernel.path, "b"] = jnp.zeros((*kernel.shape[:-2], rank, kernel.shape[-1]))
        return traverse_util.unflatten_dict(flat)

    return jax.jit(draw, out_shardings=shardings)()


def frozen_dtypes(model: Model, kernels: Sequence[Kernel]) -> Params:
    """Returns the dtype that every parameter may be kept in while it does not learn.

    Matrices have the dtype of their multiplication, which they are cast to in every pass; a token
    table that is not also the output layer has that of activations; the rest stays float32. So the
    model's results do not change by a bit.

    Args:
        kernels: all of the model's.
    """
    shapes, _ = abstract_params(model)
    dtypes = by_path(jax.tree.map(lambda x: np.dtype(x.dtype), shapes))
    dtypes |= {(*kernel.path, "kernel"): np.dtype(kernel.dtype) for kernel in kernels}
    if not getattr(model.config, "logits_via_embedding", True):
        activations = np.dtype(model.config.activation_dtype)
        dtypes |= {path: activations for path in dtypes if path[-1] == "embedding"}
    return traverse_util.unflatten_dict(dtypes)


class Adapted:
    """A model whose parameters are adapters; what they adapt is fixed.

    Has what a training step asks of a model: `config`, `apply` and `output_layer`.

    Args:
        frozen: the parameters that do not learn.
        scale: of the branch, alpha / rank.
        dropout: share of the branch's inputs that are set to 0, which needs a key `dropout`.
    """

    def __init__(self, model: Model, frozen: Params, scale: float, dropout: float = 0.0) -> None:
        self.model, self.frozen, self.scale, self.dropout = model, frozen, scale, dropout
        self.config = model.config

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Applies the model; `variables["params"]` are the adapters."""
        together = {**variables, "params": self.frozen, COLLECTION: variables["params"]}
        with nn.intercept_methods(self._with_branch):
            return self.model.apply(together, *args, **kwargs)

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns the adapted model's output layer; an adapter of it has no dropout here."""
        return self.config.output_layer(merged(self.frozen, params, self.scale))

    def _with_branch(self, call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        result, module = call(*args, **kwargs), context.module
        if not (_is_product(context) and module.has_variable(COLLECTION, "a")):
            return result
        a, b = (module.get_variable(COLLECTION, name) for name in ("a", "b"))
        if kwargs.get("return_kernel"):
            return result + (self.scale * (a @ b)).astype(result.dtype)
        inputs = args[0].astype(module.dtype)
        if self.dropout:
            kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - self.dropout, inputs.shape)
            inputs = jnp.where(kept, inputs / (1 - self.dropout), jnp.zeros_like(inputs))
        narrow = matmul(inputs, a.astype(module.dtype), module.dtype)
        return result + self.scale * matmul(narrow, b.astype(module.dtype), result.dtype)


@jax.jit
def _summed(kernel: jax.Array, adapter: Mapping[str, jax.Array], scale: jax.Array) -> jax.Array:
    product = jnp.matmul(adapter["a"], adapter["b"], precision="highest")
    return kernel + scale * product


def merged(params: Params, adapters: Params, scale: float) -> Params:
    """Returns the parameters of the ordinary model that equals the adapted one.

    Args:
        params: float32, what was adapted; what has no adapter is shared, not copied.
    """
    kernels, factors = by_path(params), by_path(adapters)
    for path in {path[:-1] for path in factors}:
        adapter = {name: factors[*path, name] for name in ("a", "b")}
        kernels[*path, "kernel"] = _summed(kernels[*path, "kernel"], adapter, np.float32(scale))
    return traverse_util.unflatten_dict(kernels)


def _is_product(context: Any) -> bool:
    return isinstance(context.module, Dense) and context.method_name == "__call__"
