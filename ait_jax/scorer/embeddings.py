"""Texts to vectors, for strategies and replay: by the model being trained, or one made for it.

An embedder (EMBEDDER in gin files) is any object with `Embedder`'s method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ait_jax.errors import UserError, shown
from ait_jax.pool import Task
from ait_jax.runtime import disk, distributed
from ait_jax.scorer.asker import Asker


@runtime_checkable
class Embedder(Protocol):
    """Texts -> vectors whose cosines say how alike the texts are."""

    def embed(self, texts: Sequence[str], asker: Asker) -> np.ndarray:
        """Returns float32 [texts, size], the same in every process.

        Args:
          asker: has the model as trained so far.
        """
        ...


@dataclass(frozen=True)
class ModelEncoder:
    """The model as trained so far: the mean of its last layer over a text's tokens.

    Of T5 that is the encoder's. Tokens of a decoder-only model count by their position, as a later
    one has seen more of the text.

    Args:
      max_length: of a text in tokens, longer ones are cut; None is MAX_SOURCE_LENGTH.
    """

    max_length: int | None = None

    def embed(self, texts: Sequence[str], asker: Asker) -> np.ndarray:
        """Returns float32 [texts, emb_dim]; every process embeds its share of the texts."""
        engine, partitioner = asker.engine, asker.engine.partitioner
        longest = engine.buckets.max_source_length
        longest = min(self.max_length or longest, longest)
        tokens = [asker.vocabulary.encode_source(text, longest) for text in partitioner.own(texts)]
        size = engine.model.config.emb_dim
        merged = np.zeros((len(texts), size), np.float32)
        if not len(texts):
            return merged
        # Called even without texts: other processes may have some, and all run the same batches.
        own = engine.embed(asker.params, tokens).tobytes()
        gathered = partitioner.first_of_groups(distributed.all_gather(own))
        for group, data in enumerate(gathered):
            merged[group :: len(gathered)] = np.frombuffer(data, np.float32).reshape(-1, size)
        return merged


@dataclass(frozen=True)
class HuggingFaceEncoder:
    """A sentence encoder in a Hugging Face folder (config.json, model.safetensors, tokenizer).

    Mean over the tokens of the last layer, as all-MiniLM-L6-v2 and all-roberta-large-v1 pool.
    Nothing is downloaded, no code in the folder is run. Every process embeds all texts on its host.

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
        folder = disk.local_path(self.path)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"HuggingFaceEncoder.path = {shown(str(self.path))} has no config.json; give the "
                "folder of a sentence encoder with model.safetensors and tokenizer.json."
            )
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise UserError(
                "HuggingFaceEncoder needs PyTorch and transformers: run pip install torch "
                "transformers, or set EMBEDDER = @embeddings.ModelEncoder()."
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"HuggingFaceEncoder.path = {shown(str(self.path))}: {error}"
            ) from error
        return tokenizer, model.eval()

    def embed(self, texts: Sequence[str], asker: Asker | None = None) -> np.ndarray:
        """Returns float32 [texts, size]; the model being trained takes no part."""
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


def embed_instructions(tasks: Sequence[Task], embedder: Embedder, asker: Asker) -> np.ndarray:
    """Returns an embedding of every task's definition, float32 [tasks, size]."""
    return embedder.embed([task.instruction.definition.strip() for task in tasks], asker)


def embed_data(
    tasks: Sequence[Task], embedder: Embedder, asker: Asker, max_instances: int
) -> np.ndarray:
    """Returns the mean embedding of every task's first inputs, float32 [tasks, size].

    Args:
      tasks: one without instances has the embedding of its definition.
      max_instances: of a task, at least 1.
    """
    inputs = [
        [i.input.strip() for i in task.instances[:max_instances]]
        or [task.instruction.definition.strip()]
        for task in tasks
    ]
    vectors = embedder.embed([text for texts in inputs for text in texts], asker)
    ends = np.cumsum([len(texts) for texts in inputs])[:-1]
    return np.stack([rows.mean(axis=0) for rows in np.split(vectors, ends)])
