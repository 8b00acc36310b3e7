"""A trainer's examples as a SeqIO mixture. Imports TensorFlow and SeqIO: import this late."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import seqio
import tensorflow as tf

from ait_jax.errors import UserError
from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.trainer.data import Examples, in_order

_SPLIT = "train"


class OrderedExamples(seqio.DataSource):
    """The (inputs, targets) examples of steps start..stop-1, in the embedded trainer's order.

    The examples of a step do not depend on where a run stopped, so a run that continues at `start`
    skips what it has seen without reading it.
    """

    def __init__(
        self, examples: Examples, *, batch_size: int, seed: int, start: int, stop: int
    ) -> None:
        self._examples = in_order(examples, seed=seed, num_examples=stop * batch_size)
        self._positions = range(start * batch_size, stop * batch_size)
        self.error: UserError | None = None
        super().__init__(splits=[_SPLIT])

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """SeqIO asks: true."""
        return True

    def list_shards(self, split: str) -> list[str]:
        """Returns the only one."""
        return [split]

    def get_dataset(
        self,
        split: str = _SPLIT,
        shuffle: bool = False,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Returns elements with "inputs" and "targets", int32 vectors of token ids."""
        positions = self._positions
        dataset = tf.data.Dataset.range(positions.start, positions.stop)
        if shard_info and shard_info.num_shards > 1:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)

        def read(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            try:
                inputs, targets = self._examples[int(position)]
            except UserError as error:
                self.error = error
                raise
            return np.asarray(inputs, np.int32), np.asarray(targets, np.int32)

        def features(position: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs, targets = tf.numpy_function(read, [position], [tf.int32, tf.int32])
            inputs.set_shape([None])
            targets.set_shape([None])
            return {"inputs": inputs, "targets": targets}

        return dataset.map(features)


@contextmanager
def mixture(
    name: str,
    examples: Examples,
    *,
    vocab_size: int,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
) -> Iterator[str]:
    """Registers the examples of steps start..stop-1 with SeqIO while the block runs.

    Args:
      name: letters, digits and underscores; replaces what had it before.
      vocab_size: of the model; the examples are already token ids.

    Yields:
      The mixture's name. Its only task has the split "train".
    """
    task = f"{name}_examples"
    vocabulary = seqio.PassThroughVocabulary(vocab_size, eos_id=EOS_ID)
    feature = seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    ordered = OrderedExamples(examples, batch_size=batch_size, seed=seed, start=start, stop=stop)
    _remove(name, task)
    seqio.TaskRegistry.add(
        task,
        source=ordered,  # pyright: ignore - SeqIO's protocol and base class differ
        preprocessors=[],
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=None,
    )
    seqio.MixtureRegistry.add(name, [(task, 1.0)])
    try:
        yield name
    except Exception as error:
        # TensorFlow passes on the text of an error, not the error.
        if ordered.error is not None:
            raise ordered.error from error
        raise
    finally:
        _remove(name, task)


def _remove(name: str, task: str) -> None:
    seqio.MixtureRegistry.remove(name)
    seqio.TaskRegistry.remove(task)
