"""One pool task as a SeqIO task. Imports TensorFlow and SeqIO: import it late."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from ait_jax import evaluation, randomness
from ait_jax.pool import Task
from ait_jax.prompts import Encoding
from ait_jax.vocabulary import EOS_ID, Vocabulary

_TRAIN = "train"


def hide_accelerators() -> None:
    """Keeps TensorFlow, which only prepares data here, off the devices that JAX needs."""
    for kind in ("GPU", "TPU"):
        try:
            tf.config.set_visible_devices([], kind)
        except (RuntimeError, ValueError):
            # TensorFlow has opened its devices already, or knows none of this kind.
            pass


class PoolTaskSource(seqio.DataSource):
    """The instances of one task, in SeqIO's terms: a split is a list of positions.

    Elements have `id`, `input`, `target` and `references` (strings; the last a vector).
    Instances are read by random access inside tf.data, so that shuffling is a permutation
    of all positions, not of what happens to be in a buffer, and so that any number of
    hosts share a split without overlap. The target is the first reference, in "train" one
    drawn by (seed, task, id).

    Args:
      task: which; its instances may be lazy.
      positions: split name -> positions of its instances.
      seed: for the choice of training targets.
    """

    def __init__(self, task: Task, positions: Mapping[str, Sequence[int]], seed: int):
        self._task = task
        self._positions = positions
        self._seed = seed
        super().__init__(
            splits=positions,
            num_input_examples={split: len(where) for split, where in positions.items()},
            performs_internal_shuffling=True,
        )

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def get_dataset(
        self,
        split: str = _TRAIN,
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        positions = np.asarray(self._positions[split], np.int64)
        dataset = tf.data.Dataset.from_tensor_slices(positions)
        if shard_info and shard_info.num_shards > 1:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)
        if shuffle:
            # Without a seed SeqIO would shuffle differently in every process; nothing here does.
            dataset = dataset.shuffle(
                max(1, len(positions)), seed=0 if seed is None else seed, reshuffle_each_iteration=True
            )

        def read(position: np.ndarray) -> tuple[Any, ...]:
            instance = self._task.instances[int(position)]
            target = instance.outputs[0]
            if split == _TRAIN:
                target = randomness.choice(
                    instance.outputs, self._seed, "training target", self._task.name, instance.id
                )
            texts = [instance.id, instance.input, target]
            return (*(text.encode() for text in texts), np.array([o.encode() for o in instance.outputs], object))

        def features(position: tf.Tensor) -> dict[str, tf.Tensor]:
            identity, text, target, references = tf.numpy_function(read, [position], [tf.string] * 4)
            for scalar in (identity, text, target):
                scalar.set_shape([])
            references.set_shape([None])
            return {"id": identity, "input": text, "target": target, "references": references}

        return dataset.map(features)


class PoolTask(seqio.Task):
    """A SeqIO task that is never cached in memory.

    SeqIO caches sources of fewer than 10,000 examples: for a pool of many tasks that is all of
    it, and the cached order would be repeated in every epoch.
    """

    def get_dataset(self, *args: Any, **kwargs: Any) -> tf.data.Dataset:
        kwargs["try_in_mem_cache"] = False
        return super().get_dataset(*args, **kwargs)


def make_preprocessor(task: Task, encoding: Encoding, vocabulary: Vocabulary):
    """Returns the SeqIO preprocessor that makes prompts and tokens of a source's elements.

    Text and tokens are made in Python, by the very code that the loop uses: a second
    implementation in TensorFlow operations would be faster (here some hundred examples a
    second, for the interpreter lock lets one run at a time) and, sooner or later, different.
    The pipeline therefore runs only in the process that made it, not as a saved graph.

    The element's `inputs` end with end-of-sequence and have at most sequence_length["inputs"]
    tokens, which also takes the place of the encoding's max_source_length; likewise `targets`.
    """

    def preprocess(
        dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        lengths = sequence_length or {}
        used = encoding
        if lengths.get("inputs"):
            used = dataclasses.replace(encoding, max_source_length=lengths["inputs"])

        def tokens(text: str, max_length: int | None) -> np.ndarray:
            ids = vocabulary.encode(text)
            kept = ids[: max_length - 1] if max_length else ids
            return np.array([*kept, EOS_ID], np.int32)

        def encode(text: bytes, target: bytes) -> tuple[Any, ...]:
            prompt = used.encode(
                task.instruction, text.decode(), vocabulary.count_tokens, vocabulary.truncate, task.name
            )
            inputs = tokens(prompt.text, lengths.get("inputs"))
            targets = tokens(target.decode(), lengths.get("targets"))
            return inputs, targets, prompt.text.encode()

        def features(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            inputs, targets, prompt = tf.numpy_function(
                encode, [element["input"], element["target"]], [tf.int32, tf.int32, tf.string]
            )
            inputs.set_shape([None])
            targets.set_shape([None])
            prompt.set_shape([])
            return {
                "inputs": inputs,
                "inputs_pretokenized": prompt,
                "targets": targets,
                "targets_pretokenized": element["target"],
                "id": element["id"],
                "task": tf.constant(task.name),
                "references": element["references"],
            }

        return dataset.map(features)

    return preprocess


def all_references(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """SeqIO's postprocessor: a target becomes the list of all references, an answer stays."""
    if not is_target:
        return text
    return [reference.decode() for reference in example["references"]]


def rouge_l(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """SeqIO metric: mean over instances of the best ROUGE-L over references, 0 to 100."""
    return {evaluation.ROUGE_L: _mean(evaluation.rouge_l, targets, predictions)}


def exact_match(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """SeqIO metric: percentage of answers that equal a reference after normalisation."""
    return {evaluation.EXACT_MATCH: _mean(evaluation.exact_match, targets, predictions)}


def _mean(score: Any, targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    scores = [score(p, references) for p, references in zip(predictions, targets, strict=True)]
    return round(100 * sum(scores) / len(scores), 4)
