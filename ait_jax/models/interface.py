"""What trainer, scorer, decoding and plan ask of a model; `t5` and `llama` provide it.

To add another: a `ModelConfig`, a Flax module with `Model`'s methods whose only attribute is that
configuration, and a file in gin/models.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeAlias, TypedDict, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from ait_jax.errors import UserError, nearest, shown
from ait_jax.models.attention import KERNELS, kernel_in_training, kernel_of
from ait_jax.models.likelihood import OutputLayer

REMAT_POLICIES = ("none", "minimal", "full")

# A tree of parameters, or of what belongs to each: shapes, logical axes, shardings, dtypes.
Params: TypeAlias = Mapping[str, Any]

# Token ids. T5X's eval asks for shapes with float tokens.
Tokens: TypeAlias = Num[jax.Array | np.ndarray, "batch length"]
# Those of the decoder, in the same call: of another length, and where prompts share prefixes of
# another number of rows.
Targets: TypeAlias = Num[jax.Array | np.ndarray, "target_batch target_length"]


class Packing(TypedDict, total=False):
    """What T5X passes with packed examples.

    Segment ids (1, 2, ... per example, 0 for padding) keep examples of a row apart. Positions are
    accepted and unused: those of our networks follow from the tokens.
    """

    encoder_segment_ids: Any
    decoder_segment_ids: Any
    encoder_positions: Any
    decoder_positions: Any


class Masks(Packing, total=False):
    """What says which positions rows of `decode` see.

    `seen_BxT`, with decode=True: which places of the cache are a row's, the one that is written
    included; without it all positions so far.
    """

    seen_BxT: Any


AnyConfig = TypeVar("AnyConfig", bound="ModelConfig")


@dataclasses.dataclass(frozen=True)
class ModelConfig(abc.ABC):
    """The sizes and switches that every network has, under T5X's names.

    Attributes:
        vocab_size: rows of the token table.
        dtype: of matrix products ("float32" or "bfloat16"); parameters are always float32.
        dropout_rate: applied only where `enable_dropout` is true.
        logits_via_embedding: the output layer is the token table (tied).
        remat_policy: what the backward pass recomputes: "none", "minimal" (all but the
            matrix products without batch axes) or "full" (everything inside a layer).
        scan_layers: compile one layer and loop over stacked parameters: compilation time and
            program size no longer grow with depth (`parameters.match_layout` converts).
            Optimizers see one array of all layers: Adafactor then scales and clips them together.
        attention_kernel: "plain"; "blocked", a few rows at a time, for CPU caches; "recomputed", of
            T5, a few queries at a time, forward and backward; "fused", one kernel for TPUs (run
            without one, as in tests, it is slow); or "auto", what suits the platform. All give the
            same result, up to rounding.
        intermediate_dtype: of what lies between matrix products; None is `dtype`. float32
            beside a bfloat16 `dtype` is more exact and, on CPUs, faster.

    Raises:
        UserError: an unknown dtype, remat policy or kernel, a size below 1.
    """

    vocab_size: int
    dtype: Any = jnp.float32
    emb_dim: int = 512
    num_heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 2048
    dropout_rate: float = 0.0
    logits_via_embedding: bool = False
    remat_policy: str = "none"
    scan_layers: bool = False
    attention_kernel: str = "auto"
    intermediate_dtype: Any = None

    # Whether training multiplies the output layer in float32 whatever `dtype` is, as T5X's T5 does.
    float32_logits: ClassVar[bool] = False
    # The longest prompt and target together; None without a bound.
    max_position: ClassVar[int | None] = None
    # Fields that say how a network is computed, not which one it is.
    computing: ClassVar[tuple[str, ...]] = (
        *("dtype", "dropout_rate", "remat_policy", "scan_layers"),
        *("attention_kernel", "intermediate_dtype"),
    )
    # Fields that must be at least 1.
    sizes: ClassVar[tuple[str, ...]] = ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim")

    def __post_init__(self) -> None:
        # Gin passes strings; modules need dtypes.
        for field in ("dtype", "intermediate_dtype"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, self._float_dtype(getattr(self, field)))
        for field, known in (("remat_policy", REMAT_POLICIES), ("attention_kernel", KERNELS)):
            if getattr(self, field) not in known:
                raise self.unknown(field, getattr(self, field), known)
        kind = type(self).__name__
        for field in self.sizes:
            if getattr(self, field) < 1:
                raise UserError(f"{kind}.{field} is {getattr(self, field)}; it must be at least 1.")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise UserError(
                f"{kind}.dropout_rate is {self.dropout_rate}; it must be at least 0 and below 1."
            )

    def unknown(self, field: str, value: Any, known: tuple[str, ...]) -> UserError:
        """Returns the error for a value of `field` that is not among the known ones."""
        return UserError(
            f"{type(self).__name__}.{field} is {shown(value)}; choose from {', '.join(known)}."
            f"{nearest(str(value), known)}"
        )

    def _float_dtype(self, dtype: Any) -> np.dtype:
        try:
            resolved = jnp.dtype(dtype)
        except TypeError:
            resolved = None
        if resolved is None or not jnp.issubdtype(resolved, jnp.floating):
            raise self.unknown("dtype", dtype, ("float32", "bfloat16"))
        return resolved

    def network(self) -> dict[str, Any]:
        """Returns the fields that say which network it is, not how it is computed."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in self.computing}

    @property
    def activation_dtype(self) -> Any:
        """The dtype of what lies between matrix products."""
        return self.intermediate_dtype or self.dtype

    @property
    def kernel(self) -> str:
        """`attention_kernel`, or what suits training on the platform that is compiled for."""
        is_open = self.attention_kernel == "auto"
        return kernel_in_training() if is_open else self.attention_kernel

    def for_scoring(self: AnyConfig, platform: str) -> AnyConfig:
        """Returns the same model in the form that reads fastest on "cpu", "gpu" or "tpu".

        Results differ by rounding only. On CPUs attention goes row by row, and beside bfloat16
        products everything else is float32.
        """
        on_cpu = platform == "cpu"
        is_open = on_cpu or self.attention_kernel == "auto"
        return dataclasses.replace(
            self,
            scan_layers=True,
            attention_kernel=kernel_of(platform) if is_open else self.attention_kernel,
            intermediate_dtype=jnp.float32 if on_cpu else self.intermediate_dtype,
        )

    @abc.abstractmethod
    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """Returns the FLOPs of one forward pass of one example of that many tokens.

        Counts two per multiply-add of every matrix product: projections, attention (the
        causal one halved), feed-forward and output layer; not the token table, norms or
        softmax. A training step is three times as much.
        """

    def reading_flops(self, inputs: int) -> float:
        """Returns the FLOPs of `Model.represent` of a text of that many tokens."""
        return self.flops_per_example(inputs, 0)

    @abc.abstractmethod
    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """Returns what `remat_policy` adds to the backward pass of one example.

        "full": all products of the layers but the last one of each, whose result no gradient
        needs. "minimal": the two of every attention, which have batch axes, over all pairs of
        positions: no form here leaves the masked half out.
        """

    @property
    @abc.abstractmethod
    def kept_values(self) -> int:
        """How many numbers decoding keeps of a token: keys and values of all decoder layers."""

    @abc.abstractmethod
    def output_layer(self, params: Params) -> OutputLayer:
        """Returns what makes logits from hidden states: a kernel, or the token table."""


@runtime_checkable
class Model(Protocol):
    """A Flax module. Token 0 pads, 1 ends; prompts are (B, L), targets (B, T), padded at the right.

    `__call__(prompts, shifted targets, targets, *, enable_dropout, return_hidden)` returns the
    logits of the targets, float32 (B, T, V), or what the output layer makes them from, (B, T, E).
    `encode(prompts)` returns what `decode` needs of the prompts: a tree of arrays with B first (or
    second, under a key `layers`). `decode(encoded, prompts, shifted targets, targets)` returns what
    `__call__` does; with `decode=True` it takes one position a step and keeps what it needs in the
    collections `cache` and, once a prompt, `cross_cache` (see `decoding`). `represent(tokens)`
    returns the last layer's hidden states, (B, L, E).

    Slots (see `slots`) need `extend`, or a `ring_cache`: `decode=True` then takes any number of
    steps, of which `cache` keeps the last T, and `seen_BxT` (`Masks`).
    """

    config: Any  # a ModelConfig; each network annotates its own

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a method with parameters (flax.linen.Module.apply)."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Draws parameters (flax.linen.Module.init)."""
        ...

    def clone(self, **updates: Any) -> Any:
        """Returns the module with other attributes (flax.linen.Module.clone)."""
        ...


def gin_name(config: ModelConfig) -> str:
    """Returns what gin files call the class of a configuration: "t5.T5Config"."""
    return f"{type(config).__module__.rpartition('.')[2]}.{type(config).__name__}"


def check_positions(config: ModelConfig, inputs: int, targets: int) -> None:
    """Refuses prompts and targets that are longer together than the model has positions.

    Raises:
        UserError: they are.
    """
    if config.max_position is not None and inputs + targets > config.max_position:
        raise UserError(
            f"The longest prompt, {inputs} tokens, and the longest target, {targets}, exceed "
            f"{gin_name(config)}.max_position = {config.max_position} together; give prompts at "
            f"most {max(0, config.max_position - targets)} tokens (MAX_SOURCE_LENGTH)."
        )


def runs_prefixes(model: Model) -> bool:
    """Says whether texts may follow keys and values of others (`LlamaTransformer.extend`)."""
    return hasattr(model, "extend")


def decodes_in_slots(model: Model) -> bool:
    """Says whether rows that ended may be replaced while others go on (`slots`).

    A class with a `decode` of its own says of itself that its `ring_cache` is one.
    """
    owner = next((kind for kind in type(model).__mro__ if "decode" in vars(kind)), object)
    return runs_prefixes(model) or vars(owner).get("ring_cache", False)


AnyModel = TypeVar("AnyModel", bound=Model)


def changed(model: AnyModel, **values: Any) -> AnyModel:
    """Returns the model with other values in its configuration, of the same class."""
    return model.clone(config=dataclasses.replace(model.config, **values))
