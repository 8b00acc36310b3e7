"""What all networks are built from: projections, token table, norm, feed-forward, layer stack.

Parameter names, shapes, initial values and logical axis names follow T5X
(t5x/examples/t5/layers.py), so that its checkpoints and its partitioning rules
apply unchanged. Sharding annotations name logical axes and do nothing until axis
rules are set (flax.linen.partitioning.axis_rules).

Shape suffixes: B batch, L length, E emb_dim, M mlp_dim, V vocab_size.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from flax.linen.spmd import with_logical_constraint
from jax import lax
from jaxtyping import Float, Num

from ait_jax.models.interface import ModelConfig, Tokens
from ait_jax.runtime.hardware import target_platform

param_with_axes = nn_partitioning.param_with_axes
with_sharding_constraint = with_logical_constraint

ACTIVATIONS = ("linear", "relu", "gelu", "silu", "swish", "tanh", "sigmoid")

attention_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
dense_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Dense(nn.Module):
    """A linear map of the last axis, by default without bias; the kernel is two-dimensional.

    Attributes:
        features: size of the output axis.
        kernel_axes: logical names of the kernel's two axes.
        dtype: of the multiplication; the kernel is float32.
        output_dtype: of the result, `dtype` if None.
        use_bias: add a float32 vector to the result.
    """

    features: int
    kernel_axes: tuple[str, str]
    dtype: Any = jnp.float32
    output_dtype: Any = None
    kernel_init: Callable[..., jax.Array] = dense_kernel_init
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, inputs: Num[jax.Array, "*batch inputs"], return_kernel: bool = False
    ) -> jax.Array:
        """Returns `inputs` times the kernel or, if asked, the kernel itself."""
        kernel = param_with_axes(
            "kernel",
            self.kernel_init,
            (inputs.shape[-1], self.features),
            jnp.float32,
            axes=self.kernel_axes,
        ).astype(self.dtype)
        if return_kernel:
            return kernel
        output_dtype = self.output_dtype or self.dtype
        outputs = matmul(inputs.astype(self.dtype), kernel, output_dtype)
        if not self.use_bias:
            return outputs
        bias = param_with_axes(
            "bias", nn.initializers.zeros, (self.features,), jnp.float32, axes=self.kernel_axes[1:]
        )
        return outputs + bias.astype(output_dtype)


def matmul(
    inputs: Float[jax.Array, "*batch inputs"],
    kernel: Float[jax.Array | np.ndarray, "inputs outputs"],
    output_dtype: Any,
) -> Float[jax.Array, "*batch outputs"]:
    """Returns inputs times kernel, summed in float32.

    Accelerators sum products of bfloat16 in float32 whatever the result's dtype. XLA's CPU
    backend takes its bfloat16 instructions, two to three times as fast, only where the
    result is float32.
    """
    if target_platform() != "cpu":
        return jnp.dot(inputs, kernel, preferred_element_type=output_dtype)
    return jnp.dot(inputs, kernel, preferred_element_type=jnp.float32).astype(output_dtype)


# --- heads of attention ---


def heads_projection(
    config: ModelConfig,
    name: str,
    num_heads: int,
    kernel_init: Callable[..., jax.Array] = attention_kernel_init,
    use_bias: bool = False,
) -> Dense:
    """Returns the layer that makes queries, keys or values, their heads joined."""
    dtypes, features = (config.dtype, config.activation_dtype), num_heads * config.head_dim
    return Dense(features, ("embed", "joined_kv"), *dtypes, kernel_init, use_bias, name=name)


def project_heads(
    config: ModelConfig, name: str, num_heads: int, x_BxLxE: jax.Array, **options: Any
) -> Float[jax.Array, "B L H D"]:
    """Returns queries, keys or values; `options` as of `heads_projection`.

    Heads that the mesh does not divide are whole on every device.
    """
    joined = heads_projection(config, name, num_heads, **options)(x_BxLxE)
    heads = joined.reshape(*x_BxLxE.shape[:2], num_heads, -1)
    axis = None if num_heads % model_shards() else "heads"
    return with_sharding_constraint(heads, ("batch", "length", axis, "kv"))


def model_shards() -> int:
    """Returns the size of the mesh's 'model' axis."""
    return jax.sharding.get_abstract_mesh().shape.get("model", 1)


def attention_output(
    config: ModelConfig, attended_BxLxHxD: Float[jax.Array, "B L H D"], use_bias: bool = False
) -> Float[jax.Array, "B L E"]:
    """Returns the attended values of all heads together, projected: the kernel `out`."""
    dtypes, axes = (config.dtype, config.activation_dtype), ("joined_kv", "embed")
    out = Dense(config.emb_dim, axes, *dtypes, attention_kernel_init, use_bias, name="out")
    return out(attended_BxLxHxD.reshape(*attended_BxLxHxD.shape[:2], -1))


def check_one_position(length: int) -> None:
    """Refuses several positions in a step of decoding (ValueError)."""
    if length != 1:
        raise ValueError(
            f"Decoding takes one position a step; got {length} positions together with a filled "
            "cache."
        )


class Embed(nn.Module):
    """The token table (V, E), shared by encoder, decoder and, in T5 1.0, the output layer."""

    num_embeddings: int
    features: int
    dtype: Any = jnp.float32
    stddev: float = 1.0

    def setup(self) -> None:
        """Makes the table."""
        self.embedding = param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=self.stddev),
            (self.num_embeddings, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens_BxL: Tokens) -> Float[jax.Array, "batch length E"]:
        """Returns the rows of the table, (B, L, E) in `dtype`."""
        # Gathering before the cast spares a cast of the whole table at every step.
        # t5x.eval asks for the parameters' shapes with float tokens.
        ids_BxL = tokens_BxL.astype(jnp.int32)
        x_BxLxE = jnp.take(self.embedding, ids_BxL, axis=0, mode="clip").astype(self.dtype)
        return with_sharding_constraint(x_BxLxE, ("batch", "length", "embed"))

    def attend(self, x_BxLxE: Float[jax.Array, "B L E"]) -> Float[jax.Array, "B L V"]:
        """Returns x times the transposed table, float32: the tied output layer."""
        return jnp.dot(x_BxLxE.astype(jnp.float32), self.embedding.T)


class LayerNorm(nn.Module):
    """Root-mean-square norm with a scale: T5 subtracts no mean and adds no bias.

    Attributes:
        axis: logical name of the last axis.
    """

    dtype: Any = jnp.float32
    epsilon: float = 1e-6
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*batch E"]) -> Float[jax.Array, "*batch E"]:
        """Returns the normalized x in `dtype`."""
        scale = param_with_axes(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=(self.axis,)
        )
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
        return (x * lax.rsqrt(mean_square + self.epsilon) * scale).astype(self.dtype)


class MlpBlock(nn.Module):
    """The feed-forward block: one projection per activation, multiplied, then projected back.

    ("relu",) is T5 1.0 with kernels `wi` and `wo`; ("gelu", "linear") is T5 1.1's gated
    GELU with kernels `wi_0`, `wi_1` and `wo`.
    """

    config: ModelConfig
    activations: Sequence[str]

    @nn.compact
    def __call__(
        self, inputs_BxLxE: Float[jax.Array, "B L E"], deterministic: bool = False
    ) -> Float[jax.Array, "B L E"]:
        """Returns the block's output, without the residual."""
        config, branches = self.config, []
        dtypes = (config.dtype, config.activation_dtype)
        for index, activation in enumerate(self.activations):
            name = "wi" if len(self.activations) == 1 else f"wi_{index}"
            x_BxLxM = Dense(config.mlp_dim, ("embed", "mlp"), *dtypes, name=name)(inputs_BxLxE)
            branches.append(x_BxLxM if activation == "linear" else getattr(nn, activation)(x_BxLxM))
        x_BxLxM = functools.reduce(operator.mul, branches)
        x_BxLxM = feature_dropout(config)(x_BxLxM, deterministic=deterministic)
        x_BxLxM = with_sharding_constraint(x_BxLxM, ("batch", "length", "mlp"))
        return Dense(inputs_BxLxE.shape[-1], ("mlp", "embed"), *dtypes, name="wo")(x_BxLxM)


def feed_forward(
    config: ModelConfig,
    activations: Sequence[str],
    x_BxLxE: jax.Array,
    deterministic: bool,
    epsilon: float = 1e-6,
) -> jax.Array:
    """Returns the second half of a layer: norm and `MlpBlock` with the residual around them."""
    y = LayerNorm(config.dtype, epsilon, name="pre_mlp_layer_norm")(x_BxLxE)
    y = MlpBlock(config, activations, name="mlp")(y, deterministic)
    y = x_BxLxE + feature_dropout(config)(y, deterministic=deterministic)
    return with_sharding_constraint(y, ("batch", "length", "embed"))


# --- stacks of equal layers ---


def feature_dropout(config: ModelConfig) -> nn.Dropout:
    """Dropout of whole features, the same at every position (T5X's broadcast dropout)."""
    return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


def remat(
    layer: type[nn.Module], config: ModelConfig, static_argnums: tuple[int, ...]
) -> type[nn.Module]:
    """Returns a layer whose backward pass recomputes what `config.remat_policy` says."""
    if config.remat_policy == "none":
        return layer
    policy = None
    if config.remat_policy == "minimal":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return nn.remat(layer, policy=policy, static_argnums=static_argnums)


def scanned(
    layer_class: type[nn.Module], config: ModelConfig, num_layers: int, in_axes: tuple[Any, ...]
) -> nn.Module:
    """Returns one layer, compiled once, that runs over parameters and caches stacked along axis 0.

    Adapters (`adapters.COLLECTION`) are stacked alike. Called with (x, *others) it returns
    (x, what the layers return besides, stacked). Its name in the parameters is `layers`, instead
    of `layers_0`, `layers_1`, ...

    Args:
        in_axes: for each of the others 0, if it is stacked like the parameters, or
            flax.linen.broadcast.
    """
    return nn_partitioning.scan_with_axes(
        layer_class,
        variable_axes={"params": 0, "adapters": 0, "cache": 0, "cross_cache": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,  # pyright: ignore[reportArgumentType]  # flax's default is an int
        length=num_layers,
        axis_name="layers",
    )(config, name="layers")


def layer_stack(
    layer_class: type[nn.Module], config: ModelConfig, num_layers: int
) -> Callable[..., jax.Array]:
    """Returns the function (x, *others) -> x of all layers; `scanned` with `config.scan_layers`."""

    def stack(x: jax.Array, *others: Any) -> jax.Array:
        if config.scan_layers:
            in_axes = (nn.broadcast,) * len(others)
            return scanned(layer_class, config, num_layers, in_axes)(x, *others)[0]
        for index in range(num_layers):
            x = layer_class(config, name=f"layers_{index}")(x, *others)[0]
        return x

    return stack
