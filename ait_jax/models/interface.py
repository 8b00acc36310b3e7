"""What trainer, scorer, decoding and plan ask of a model: T5 (`t5`) and LLaMA (`llama`) have it.

To add another: a frozen dataclass that has `ModelConfig`'s fields and methods, a Flax module with
`Model`'s methods whose only attribute is that configuration, and a file in gin/models.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from ait_jax.errors import UserError
from ait_jax.models.likelihood import OutputLayer


class ModelConfig(Protocol):
    """The sizes and switches of a model, a hashable dataclass.

    Attributes:
        vocab_size, emb_dim: sizes.
        dtype: of the multiplications; parameters are float32.
        dropout_rate: 0 where there is none.
        remat_policy: one of `layer_stack.REMAT_POLICIES`.
        scan_layers: whether layers are stacked (`layer_stack.scanned`).
        max_position: the longest prompt and target together, None without a bound.
    """

    vocab_size: int
    emb_dim: int
    dtype: Any
    dropout_rate: float
    remat_policy: str
    scan_layers: bool
    max_position: int | None

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """Returns the FLOPs of one forward pass over that many prompt and target tokens."""

    def reading_flops(self, inputs: int) -> float:
        """Returns the FLOPs of `Model.represent` of so many tokens."""

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """Returns what `remat_policy` adds to the backward pass of one example."""

    def for_scoring(self, platform: str) -> "ModelConfig":
        """Returns the same model in the form that reads fastest on "cpu", "gpu" or "tpu"."""

    def output_layer(self, params: Mapping[str, Any]) -> OutputLayer:
        """Returns what turns hidden states into logits."""


class Model(Protocol):
    """A Flax module. Token 0 pads, 1 ends; prompts are (B, L), targets (B, T), padded at the right.

    `__call__(prompts, shifted targets, targets, *, enable_dropout, return_hidden)` returns the
    logits of the targets, float32 (B, T, V), or what the output layer makes them from, (B, T, E).
    `encode(prompts)` returns what `decode` needs of the prompts: a tree of arrays with B first (or
    second, under a key `layers`). `decode(encoded, prompts, shifted targets, targets)` returns what
    `__call__` does; with `decode=True` it takes one position a step and keeps what it needs in the
    collections `cache` and, once a prompt, `cross_cache` (see `decoding`). `represent(tokens)`
    returns the last layer's hidden states, (B, L, E).
    """

    config: ModelConfig

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def init(self, rng: Any, *args: Any, **kwargs: Any) -> Any: ...

    def clone(self, **attributes: Any) -> "Model": ...


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
            f"The longest prompt, {inputs} tokens, and the longest target, {targets}, are longer than "
            f"{gin_name(config)}.max_position = {config.max_position}; give prompts at most "
            f"{max(0, config.max_position - targets)} tokens (MAX_SOURCE_LENGTH)."
        )


def runs_prefixes(model: Model) -> bool:
    """Says whether texts may follow keys and values of others (`LlamaTransformer.extend`)."""
    return hasattr(model, "extend")


AnyModel = TypeVar("AnyModel", bound=Model)


def changed(model: AnyModel, **values: Any) -> AnyModel:
    """Returns the model with other values in its configuration, of the same class."""
    return model.clone(config=dataclasses.replace(model.config, **values))
