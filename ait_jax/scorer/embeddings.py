"""Texts to vectors, for replay: the T5 encoder at work by default, or a model made for it.

An embedder is any object with `embed(texts, encoder) -> float32 [texts, size]`; gin's name for it
is EMBEDDER.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ait_jax.errors import UserError
from ait_jax.pool.pool import Task
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.runtime import distributed
from ait_jax.scorer.engine import Engine


@dataclass(frozen=True)
class TextEncoder:
    """The current model's encoder.

    Args:
      engine: batches by length and spreads them over the mesh, as in scoring.
      params: parameters from `Engine.place`.
      vocabulary: of the model.
    """

    engine: Engine
    params: Any
    vocabulary: Vocabulary

    def embed(self, texts: Sequence[str], max_length: int | None = None) -> np.ndarray:
        """Returns the mean of the last layer over a text's tokens, float32 [texts, emb_dim].

        Every process embeds its own share and all get all of them.

        Args:
          max_length: of a text in tokens; what is longer is cut. None: as long as prompts may be.
        """
        engine = self.engine
        longest = min(
            max_length or engine.buckets.max_source_length, engine.buckets.max_source_length
        )
        own = engine.partitioner.own(list(texts))
        tokens = [self.vocabulary.encode_source(text, longest) for text in own]
        size = engine.model.config.emb_dim
        embedded = (
            engine.embed(self.params, tokens) if tokens or _several() else np.zeros((0, size))
        )
        gathered = engine.partitioner.first_of_groups(
            distributed.all_gather(np.asarray(embedded, np.float32).tobytes())
        )
        merged = np.zeros((len(texts), size), np.float32)
        for group, data in enumerate(gathered):
            merged[group :: len(gathered)] = np.frombuffer(data, np.float32).reshape(-1, size)
        return merged


def _several() -> bool:
    """Whether a process without texts must take part in the others' batches."""
    return distributed.process_count() > 1


class Embedder(Protocol):
    """Texts -> vectors whose cosines say how alike the texts are."""

    def embed(self, texts: Sequence[str], encoder: TextEncoder) -> np.ndarray:
        """Returns float32 [texts, size]; the same texts give the same vectors in every process."""
        ...


@dataclass(frozen=True)
class T5Encoder:
    """The encoder of the model as it is trained so far, mean over tokens.

    Args:
      max_length: of a text in tokens; None: as long as prompts may be (MAX_SOURCE_LENGTH).
    """

    max_length: int | None = None

    def embed(self, texts: Sequence[str], encoder: TextEncoder) -> np.ndarray:
        return encoder.embed(texts, self.max_length)


@dataclass(frozen=True)
class HuggingFaceEncoder:
    """A sentence encoder in a Hugging Face folder (config.json, model.safetensors, tokenizer).

    Mean over the tokens of the last layer, as all-MiniLM-L6-v2, all-roberta-large-v1 and their
    like pool. Nothing is downloaded, no code of the folder is run. Every process embeds everything, on its
    host, with PyTorch.

    Args:
      path: the folder.
      max_length: of a text in tokens.
      batch_size: texts at a time.

    Raises:
      UserError: PyTorch or transformers is missing, or the folder holds no such model.
    """

    path: Any
    max_length: int = 256
    batch_size: int = 64

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        folder = Path(self.path).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"HuggingFaceEncoder.path = {str(self.path)!r} has no config.json; give the folder of "
                "a sentence encoder with model.safetensors and tokenizer.json."
            )
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise UserError(
                "HuggingFaceEncoder needs PyTorch and transformers: pip install torch transformers; or "
                "set EMBEDDER = @embeddings.T5Encoder()."
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"HuggingFaceEncoder.path = {str(self.path)!r}: {error}") from error
        return tokenizer, model.eval()

    def embed(self, texts: Sequence[str], encoder: TextEncoder | None = None) -> np.ndarray:
        tokenizer, model = self._loaded
        import torch

        vectors = []
        for start in range(0, len(texts), self.batch_size):
            batch = tokenizer(
                list(texts[start : start + self.batch_size]),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            with torch.no_grad():
                hidden_BxLxE = model(**batch).last_hidden_state
            real_BxLx1 = batch["attention_mask"][..., None].to(hidden_BxLxE.dtype)
            vectors.append((hidden_BxLxE * real_BxLx1).sum(1) / real_BxLx1.sum(1))
        return torch.cat(vectors).float().numpy()


def embed_instructions(
    tasks: Sequence[Task], embedder: Embedder, encoder: TextEncoder
) -> np.ndarray:
    """Returns an embedding of every task's definition, float32 [tasks, size]."""
    return embedder.embed([task.instruction.definition.strip() for task in tasks], encoder)


def embed_data(
    tasks: Sequence[Task], embedder: Embedder, encoder: TextEncoder, max_instances: int
) -> np.ndarray:
    """Returns the mean embedding of the first instances' inputs of every task, float32 [tasks, size].

    Args:
      max_instances: of a task; at least 1. Every task has an instance.
    """
    inputs = [[i.input.strip() for i in task.instances[:max_instances]] for task in tasks]
    vectors = embedder.embed([text for texts in inputs for text in texts], encoder)
    ends = np.cumsum([len(texts) for texts in inputs])[:-1]
    return np.stack([rows.mean(axis=0) for rows in np.split(vectors, ends)])
