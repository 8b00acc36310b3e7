"""Batches as a pure function of (seed, step), through Grain."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ait_jax.errors import UserError
from ait_jax.runtime import distributed

Batch = dict[str, np.ndarray]


class ExampleSource(Protocol):
    """Random access to training examples, and how they become a batch.

    A batch has "inputs" int32 [batch, length] and "targets" int32 [batch, length], padded
    with 0; packed ones also "inputs_segments" and "targets_segments" (1, 2, ..., 0 is padding).
    Those of a source with `feature_lengths` are padded to fit `longest`, where it is given: the
    longest input and target of the batch that `examples` are a part of.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def collate(self, examples: Sequence[Any], *longest: tuple[int, int]) -> Batch: ...


def in_order(source: ExampleSource, *, seed: int, num_examples: int) -> Any:
    """Returns the examples in the order in which they are trained on, for random access.

    Every epoch is a new permutation. What lies at a position depends on `source`, `seed` and
    the position alone.

    Args:
      num_examples: the result has at least so many.

    Raises:
      UserError: `source` is empty.
    """
    import grain

    if not len(source):
        raise UserError("There is nothing to train on: the chosen tasks have no instances.")
    epochs = math.ceil(num_examples / len(source))
    return grain.MapDataset.source(source).shuffle(seed=seed % 2**32).repeat(epochs)


def batches(
    source: ExampleSource,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    rows: slice = slice(None),
    num_threads: int = 2,
) -> Iterator[Batch]:
    """Yields the batches of steps start..stop-1, read ahead in threads.

    The batch of step s, the examples from s x batch_size on of `in_order`, depends on
    `source`, `seed` and s alone, so a run continues at any step as if it had never stopped.

    Args:
      rows: the part of every batch that this process reads, padded like the whole batch.

    Raises:
      UserError: `source` is empty.
    """
    import grain

    parts = len(range(batch_size)[rows]) < batch_size
    lengths = _lengths_of_all(source) if parts and hasattr(source, "feature_lengths") else None

    def make(indices: np.ndarray) -> Batch:
        examples = [source[int(index)] for index in indices[rows]]
        if lengths is None:
            return source.collate(examples)
        return source.collate(examples, tuple(lengths[indices].max(axis=0).tolist()))

    dataset = (
        in_order(range(len(source)), seed=seed, num_examples=stop * batch_size)
        .batch(batch_size)
        .map(make)
        .slice(slice(start, stop))
    )
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))


def _lengths_of_all(source: ExampleSource) -> np.ndarray:
    """Returns int32[examples, 2], input and target lengths; each process counts its share."""
    own = distributed.own(range(len(source)))
    counted = np.array([[len(part) for part in source[i]] for i in own], np.int32).reshape(-1, 2)
    table = np.zeros((len(source), 2), np.int32)
    for index, data in enumerate(distributed.all_gather(counted.tobytes())):
        table[index :: distributed.process_count()] = np.frombuffer(data, np.int32).reshape(-1, 2)
    return table
