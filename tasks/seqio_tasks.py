"""Pool tasks, one or many, as a SeqIO task. Imports TensorFlow and SeqIO: import it late."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from ait_jax import randomness
from ait_jax.evaluation import evaluation
from ait_jax.evaluation.rouge import AUTO, ROUGE_L, chosen
from ait_jax.pool import Task
from ait_jax.prompts.prompts import Encoding
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary

_TRAIN = "train"


def hide_accelerators() -> None:
    """Keeps TensorFlow, which only prepares data here, off the devices that JAX needs."""
    for kind in ("GPU", "TPU"):
        # Fails if TensorFlow has already opened its devices, or knows none of this kind.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.set_visible_devices([], kind)


class PositionSource(seqio.DataSource):
    """A SeqIO data source whose elements are read by position, by random access inside tf.data.

    Shuffling permutes all positions, not just a buffer, and any number of hosts share a split
    without overlap. Subclasses have `positions` and `elements`.
    """

    supports_arbitrary_sharding = property(lambda self: True)

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns one shard: `get_dataset` divides a split by itself."""
        return [split]

    def positions(self, split: str) -> range:
        """Returns those of a split."""
        raise NotImplementedError

    def elements(self, split: str, positions: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the elements at positions of a split."""
        raise NotImplementedError

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
        """Returns the elements of a split; arguments as in SeqIO."""
        positions = self.positions(split)
        dataset = tf.data.Dataset.range(positions.start, positions.stop)
        if shard_info and shard_info.num_shards > 1:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)
        if shuffle and self.performs_internal_shuffling:
            # Without a seed SeqIO would shuffle differently in every process.
            dataset = dataset.shuffle(
                max(1, len(positions)), seed=seed or 0, reshuffle_each_iteration=True
            )
        return self.elements(split, dataset)


class PoolSource(PositionSource):
    """Instances of pool tasks: a split is a list of places.

    Elements have `task`, `id`, `input`, `target` and `references` (strings; the last a vector).
    The target is the first reference, in "train" one drawn by (seed, task, id); it is empty if
    there is none.

    Args:
      tasks: their instances may be lazy.
      places: split name -> int[n, 2], index in `tasks` and position among its instances.
      seed: for the choice of training targets.
    """

    def __init__(self, tasks: Sequence[Task], places: Mapping[str, np.ndarray], seed: int) -> None:
        self._tasks = tasks
        self._places = places
        self._seed = seed
        super().__init__(
            splits=places,
            num_input_examples={split: len(where) for split, where in places.items()},
            performs_internal_shuffling=True,
        )

    def positions(self, split: str) -> range:
        """See `PositionSource`."""
        return range(len(self._places[split]))

    def elements(self, split: str, positions: tf.data.Dataset) -> tf.data.Dataset:
        """See `PositionSource`."""
        places = self._places[split]

        def read(index: np.integer) -> tuple[Any, ...]:
            task_index, position = places[int(index)].tolist()
            task = self._tasks[task_index]
            instance = task.instances[position]
            outputs = instance.outputs or ("",)
            target = outputs[0]
            if split == _TRAIN:
                key = (self._seed, "training target", task.name, instance.id)
                target = randomness.choice(outputs, *key)
            texts = [task.name, instance.id, instance.input, target]
            return (
                *(text.encode() for text in texts),
                np.array([o.encode() for o in instance.outputs], object),
            )

        def features(index: tf.Tensor) -> dict[str, tf.Tensor]:
            *texts, references = tf.numpy_function(read, [index], [tf.string] * 5)
            for scalar in texts:
                scalar.set_shape([])
            references.set_shape([None])
            keys = ("task", "id", "input", "target")
            return dict(zip(keys, texts, strict=True), references=references)

        return positions.map(features)


class PoolTask(seqio.Task):
    """A SeqIO task that is never cached in memory.

    SeqIO caches sources of fewer than 10,000 examples: for a pool of many tasks that is everything,
    and the cached order would be repeated in every epoch.
    """

    def get_dataset(self, *args: Any, **kwargs: Any) -> tf.data.Dataset:
        """Returns the examples; arguments as in SeqIO."""
        kwargs["try_in_mem_cache"] = False
        return super().get_dataset(*args, **kwargs)


def make_preprocessor(
    tasks: Sequence[Task], encoding: Encoding, vocabulary: Vocabulary | TokenizersVocabulary
) -> Callable[..., tf.data.Dataset]:
    """Returns the SeqIO preprocessor that turns a `PoolSource` into prompts and tokens.

    Text and tokens are made in Python, by the loop's own code: TensorFlow operations would be
    faster (this makes some hundred examples a second, one at a time under the interpreter lock)
    and, sooner or later, different. So the pipeline runs only in the process that made it.

    An element's `inputs` are what the model reads (T5's end with end-of-sequence), at most
    sequence_length["inputs"] tokens, which also replaces the encoding's max_source_length;
    `targets` end with end-of-sequence, likewise.
    """
    task_of = {task.name: task for task in tasks}

    def preprocess(
        dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        lengths = sequence_length or {}
        used = encoding
        if lengths.get("inputs"):
            as_dataclass: Any = encoding
            used = dataclasses.replace(as_dataclass, max_source_length=lengths["inputs"])

        def encode(name: bytes, text: bytes, target: bytes) -> tuple[Any, ...]:
            task = task_of[name.decode()]
            prompt = used.encode(
                task.instruction,
                text.decode(),
                vocabulary.count_tokens,
                vocabulary.truncate,
                task.name,
            )
            # Without a length nothing is cut.
            longest = lengths.get("inputs") or vocabulary.count_tokens(prompt.text)
            inputs, ids = vocabulary.encode_example(prompt.text, target.decode(), longest)
            if lengths.get("targets"):
                ids = ids[: lengths["targets"] - 1]
            targets = np.array([*ids, EOS_ID], np.int32)
            return np.array(inputs, np.int32), targets, prompt.text.encode()

        return dataset.map(functools.partial(_features, encode))

    return preprocess


def _features(
    encode: Callable[[bytes, bytes, bytes], tuple[Any, ...]], element: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Returns an element of a `PoolSource` with what `encode` makes of its texts."""
    inputs, targets, prompt = tf.numpy_function(
        encode,
        [element[key] for key in ("task", "input", "target")],
        [tf.int32, tf.int32, tf.string],
    )
    inputs.set_shape([None])
    targets.set_shape([None])
    prompt.set_shape([])
    return {
        "inputs": inputs,
        "inputs_pretokenized": prompt,
        "targets": targets,
        "targets_pretokenized": element["target"],
        **{key: element[key] for key in ("id", "task", "references")},
    }


def all_references(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Any:
    """SeqIO postprocessor: replaces a target by all references, leaves an answer unchanged."""
    if not is_target or example is None:
        return text
    return [reference.decode() for reference in example["references"]]


def rouge_l(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """SeqIO metric: mean over instances with references of the best ROUGE-L over them, 0 to 100."""
    measure = chosen(AUTO, {"": [text for texts in targets for text in texts]})
    score = lambda *pair: measure.scores(*pair)[ROUGE_L]  # noqa: E731
    return {ROUGE_L: _mean(score, targets, predictions)}


def exact_match(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """SeqIO metric: percentage of answers that equal a reference after normalization."""
    return {evaluation.EXACT_MATCH: _mean(evaluation.exact_match, targets, predictions)}


def _mean(score: Any, targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    pairs = zip(predictions, targets, strict=True)
    scores = [score(prediction, references) for prediction, references in pairs if len(references)]
    return round(100 * sum(scores) / len(scores), 4) if scores else float("nan")
