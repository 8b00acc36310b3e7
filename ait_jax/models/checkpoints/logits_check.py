"""Whether two sets of parameters are the same model: their logits for a few fixed prompts."""

import dataclasses
import importlib.util
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ait_jax.errors import UserError, first_line
from ait_jax.models.interface import Model, Params
from ait_jax.models.llama import LlamaConfig, LlamaTransformer
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.prompts.token_order import TokenOrder

# The longest exceeds the 128 tokens beyond which all distances share a position bias.
_INPUT_LENGTHS = (160, 48, 9)
_TARGET_LENGTHS = (24, 8, 3)


@dataclasses.dataclass(frozen=True)
class FixedPrompts:
    """Fixed token ids, the same for every model of a vocabulary size.

    Attributes:
        inputs, targets: 0 pads.
        vocab_size: logits beyond it are left out of comparisons.
    """

    inputs: Int[np.ndarray, "3 160"]
    targets: Int[np.ndarray, "3 24"]
    vocab_size: int

    @property
    def decoder_inputs(self) -> Int[np.ndarray, "3 24"]:
        """The targets shifted right by one."""
        return np.pad(self.targets, ((0, 0), (1, 0)))[:, :-1]

    def real(self, logits_BxTxV: Any) -> Float[np.ndarray, "N V"]:
        """Returns the logits where there is a target, float32."""
        return np.asarray(logits_BxTxV, np.float32)[self.targets > 0][:, : self.vocab_size]


def prompts(vocab_size: int, max_position: int | None = None) -> FixedPrompts:
    """Returns prompts whose ids are below `vocab_size`, with targets up to `max_position` long."""
    random = np.random.default_rng(0)

    def rows(lengths: tuple[int, ...]) -> np.ndarray:
        padded = np.zeros((len(lengths), max(lengths)), np.int32)
        for row, length in zip(padded, lengths, strict=True):
            row[:length] = random.integers(1, max(vocab_size, 2), length)
        return padded

    inputs, targets = rows(_INPUT_LENGTHS), rows(_TARGET_LENGTHS)
    if max_position is not None:
        targets[:, max(1, max_position // 2) :] = 0
        inputs[:, max(1, max_position - int((targets > 0).sum(1).max())) :] = 0
    return FixedPrompts(inputs, targets, vocab_size)


def model_of(config: T5Config | LlamaConfig) -> Model:
    """Returns the network of a configuration."""
    return LlamaTransformer(config) if isinstance(config, LlamaConfig) else Transformer(config)


def our_logits(
    params: Params, config: T5Config | LlamaConfig, asked: FixedPrompts
) -> Float[np.ndarray, "N V"]:
    """Returns our network's logits in float32, on the CPU, of unscanned parameters.

    Args:
        params: nested dict of host arrays of any float dtype.
        config: their model, with float32 activations.
        asked: the prompts.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu), jax.default_matmul_precision("highest"):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        logits = _forward(config, params, asked.inputs, asked.decoder_inputs, asked.targets)
    return asked.real(logits)


@partial(jax.jit, static_argnums=0)
def _forward(config: T5Config | LlamaConfig, params: Params, *arrays: jax.Array) -> jax.Array:
    return model_of(config).apply({"params": params}, *arrays, enable_dropout=False)


def has_torch() -> bool:
    """Whether Hugging Face's torch models can run here."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def torch_logits(
    folder: Any, asked: FixedPrompts, order: TokenOrder | None = None
) -> Float[np.ndarray, "N V"]:
    """Returns the logits of Hugging Face's torch model of a folder, in float32.

    Only safetensors are read, and nothing is fetched from anywhere.

    Args:
        folder: T5's, or a LLaMA's.
        asked: the prompts, in our order of tokens.
        order: of a LLaMA's tokens there; None for T5.

    Raises:
        UserError: transformers refuses the folder.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind = "AutoModelForSeq2SeqLM" if order is None else "AutoModelForCausalLM"
    options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    try:
        model = getattr(transformers, kind).from_pretrained(str(folder), **options).eval()
    except Exception as error:  # transformers raises many types on what it cannot read
        raise UserError(f"transformers cannot read {folder}: {first_line(error)}") from error
    with torch.no_grad():
        if order is not None:
            return _continued(model, asked, order)
        logits = model(
            input_ids=torch.tensor(asked.inputs, dtype=torch.long),
            attention_mask=torch.tensor(asked.inputs > 0, dtype=torch.long),
            decoder_input_ids=torch.tensor(asked.decoder_inputs, dtype=torch.long),
        ).logits
    return asked.real(logits.float().numpy())


def _continued(model: Any, asked: FixedPrompts, order: TokenOrder) -> np.ndarray:
    """Returns a causal torch model's logits of the targets behind their prompts."""
    import torch

    columns = order.to_own(range(asked.vocab_size))
    rows = []
    for padded in zip(asked.inputs, asked.targets, strict=True):
        prompt, target = (tokens[tokens > 0] for tokens in padded)
        text = order.to_own([*prompt.tolist(), *target.tolist()])
        logits = model(input_ids=torch.tensor([text], dtype=torch.long)).logits[0]
        rows.append(logits[len(prompt) - 1 : len(text) - 1].float().numpy()[:, columns])
    return np.concatenate(rows)


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest absolute difference; infinity where anything is not finite."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.max(np.abs(one - other), initial=0.0))
