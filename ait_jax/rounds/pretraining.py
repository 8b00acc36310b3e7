"""Pre-training a small T5 from random weights: span corruption on text, mixed with tasks.

`ait-jax pretrain` made the weights in `assets/mini`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.models.interface import Model, check_positions
from ait_jax.models.parameters import init_params
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime import files, reporter
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.parts import check_vocabulary
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.interface import TrainingJob

MAX_EXAMPLES_PER_ROW = 32


def span_corruption(
    tokens: Sequence[int],
    sentinel: Callable[[int], int],
    *,
    key: tuple[randomness.KeyPart, ...],
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
) -> tuple[list[int], list[int]]:
    """Hides random spans behind sentinels; the target spells them out (T5 paper, section 3.1.4).

    Args:
      tokens: ids without end-of-sequence; at least 2 of them.
      sentinel: index -> id of `<extra_id_index>`.
      key: of the random draw of spans.

    Returns:
      (input ids, target ids), both without end-of-sequence.
    """
    if len(tokens) < 2:
        raise ValueError(f"Span corruption needs at least 2 tokens, got {len(tokens)}.")
    num_noise = min(max(round(len(tokens) * noise_density), 1), len(tokens) - 1)
    num_spans = min(max(round(num_noise / mean_span_length), 1), len(tokens) - num_noise)
    noise = _partition(num_noise, num_spans, (*key, "noise"))
    kept = _partition(len(tokens) - num_noise, num_spans, (*key, "kept"))
    inputs: list[int] = []
    targets: list[int] = []
    position = 0
    for i, (kept_length, noise_length) in enumerate(zip(kept, noise, strict=True)):
        inputs += [*tokens[position : position + kept_length], sentinel(i)]
        position += kept_length
        targets += [sentinel(i), *tokens[position : position + noise_length]]
        position += noise_length
    return inputs, targets


def _partition(total: int, parts: int, key: tuple[randomness.KeyPart, ...]) -> list[int]:
    """Splits `total` into `parts` positive integers, every way equally likely."""
    cuts = sorted(randomness.shuffled(range(1, total), *key)[: parts - 1])
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


@dataclass(frozen=True)
class PretrainingExamples:
    """The rows that a pretraining needs of an endless stream, each packed from short examples.

    Row i is a function of (seed, i): its examples (i, 0), (i, 1), ... are packed until the next
    one does not fit.
    """

    settings: "Pretraining"

    def __len__(self) -> int:
        return (self.settings.trainer.steps or 0) * self.settings.trainer.batch_size

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        lengths = {"inputs": self.settings.input_length, "targets": self.settings.target_length}
        packed = {
            name: np.zeros(length, np.int32)
            for feature, length in lengths.items()
            for name in (feature, f"{feature}_segments")
        }
        used = {"inputs": 0, "targets": 0}
        for segment in range(1, MAX_EXAMPLES_PER_ROW + 1):
            example = self._example(row, segment)
            if any(used[f] + len(t) > len(packed[f]) for f, t in example.items()):
                if segment > 1:
                    break
                example = {f: [*t[: len(packed[f]) - 1], EOS_ID] for f, t in example.items()}
            for feature, tokens in example.items():
                place = slice(used[feature], used[feature] + len(tokens))
                packed[feature][place] = tokens
                packed[f"{feature}_segments"][place] = segment
                used[feature] += len(tokens)
        return packed

    def collate(self, rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Stacks rows to a batch."""
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _example(self, row: int, segment: int) -> dict[str, list[int]]:
        settings, vocabulary = self.settings, self.settings.vocabulary
        index = row * MAX_EXAMPLES_PER_ROW + segment - 1
        key = (settings.seed, "pretrain", index)
        if randomness.uniform(*key, "kind") < settings.text_fraction:
            first = index * settings.passages
            passages = [settings.text(settings.seed, first + i) for i in range(settings.passages)]
            tokens = vocabulary.encode(" ".join(passages))
            inputs, targets = span_corruption(tokens, vocabulary.sentinel, key=key)
        else:
            inputs, targets = vocabulary.encode_batch(settings.task_example(settings.seed, index))
        return {"inputs": [*inputs, EOS_ID], "targets": [*targets, EOS_ID]}


@dataclass(frozen=True)
class Pretraining:
    """`ait-jax pretrain`: trains a model from random weights, saved as model.safetensors.

    Args:
      model_dir: gets checkpoints, metrics and model.safetensors; the same command continues.
      text: (seed, index) -> a passage to corrupt.
      task_example: (seed, index) -> (input text, target text).
      trainer: with `steps` set.
      text_fraction: share of corrupted texts among the examples; the rest are tasks.
      passages: of one text.
      input_length, target_length: tokens of a packed row.
      seed: of weights, data order and dropout.
    """

    model_dir: str
    model: Model
    vocabulary: Vocabulary
    text: Callable[[int, int], str]
    task_example: Callable[[int, int], tuple[str, str]]
    trainer: EmbeddedTrainer
    partitioner: Partitioner = Partitioner()
    text_fraction: float = 0.4
    passages: int = 2
    input_length: int = 128
    target_length: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trainer.steps is None:
            raise UserError(
                "pretraining.Pretraining needs embedded.EmbeddedTrainer.steps (and epochs = None), "
                "because its text has no end."
            )
        check_vocabulary(self.vocabulary, self.model)
        check_positions(self.model.config, self.input_length, self.target_length)

    def run(self) -> Path:
        """Trains, or continues training; returns the path of the weights."""
        with RunDirectory(self.model_dir).lock():
            return self._run()

    def _run(self) -> Path:
        from ait_jax.models.checkpoints.weights import save_weights, stored_dtype

        directory = files.as_path(self.model_dir)
        params, _ = init_params(self.model, self.seed)
        examples = PretrainingExamples(self)
        job = TrainingJob(examples, params, directory, self.model, self.partitioner, self.seed)
        trained = self.trainer.train(job)
        path = directory / "model.safetensors"
        metadata = {"steps": str(trained.step), "seed": str(self.seed)}
        metadata |= {"command": "ait-jax pretrain"}
        small = jax.tree.map(partial(np.asarray, dtype=stored_dtype("bfloat16")), trained.params)
        save_weights(path, small, metadata)
        reporter.say(f"weights: {path}")
        return path
