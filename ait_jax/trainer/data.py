"""Batches as a pure function of (seed, step), through Grain."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from ait_jax.errors import UserError
from ait_jax.runtime import distributed
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.trainer.packing import Packing, packed

Batch = dict[str, np.ndarray]


@runtime_checkable
class Examples(Protocol):
    """Random access to training examples, and how they become a batch.

    A batch has "inputs" int32 [batch, length] and "targets" int32 [batch, length], padded
    with 0; packed ones also "inputs_segments" and "targets_segments" (1, 2, ..., 0 is padding).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def collate(self, examples: Sequence[Any], /) -> Batch:
        """Returns a batch of examples."""
        ...


@runtime_checkable
class TokenPairs(Examples, Protocol):
    """Examples that are (input ids, target ids), which `Packing` puts into rows."""

    @property
    def buckets(self) -> LengthBuckets:
        """The lengths of rows, of which the last hold the longest "inputs" and "targets"."""
        ...


def indices_in_order(examples: Examples, *, seed: int, num_examples: int) -> Any:
    """Returns indices of examples in the order of training, for random access.

    Every epoch is a new permutation. What is at a position depends on `examples`, `seed` and the
    position alone. Of examples that are drawn anew in every epoch (their `redraws` is true), the
    indices of epoch e begin at e x their number.

    Args:
      num_examples: the least length of the result.

    Raises:
      UserError: `examples` is empty.
    """
    import grain

    count = len(examples)
    if not count:
        raise UserError("There is nothing to train on: the chosen tasks have no instances.")
    epochs = math.ceil(num_examples / count)
    indices = grain.MapDataset.source(range(count)).shuffle(seed=seed % 2**32).repeat(epochs)
    if not _redraws(examples):
        return indices
    return indices.map_with_index(lambda position, index: position // count * count + index)


def in_order(examples: Examples, *, seed: int, num_examples: int) -> Any:
    """Returns the examples themselves; see `indices_in_order`."""
    indices = indices_in_order(examples, seed=seed, num_examples=num_examples)
    return indices.map(lambda index: examples[int(index)])


def _redraws(examples: Examples) -> bool:
    return getattr(examples, "redraws", False)


def batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    packing: Packing | None = None,
    own_rows: Callable[[int], slice] = lambda count: slice(0, count),
    num_threads: int = 2,
) -> Iterator[list[Batch]]:
    """Yields the batches of steps start..stop-1, each in one or more parts, read ahead in threads.

    The batch of step s, the examples from s x batch_size on of `in_order`, depends on `examples`,
    `seed` and s alone, so a run continues at any step as if it had never stopped.

    Args:
      packing: how `TokenPairs` share rows; others, and all without it, are collated.
      own_rows: number of rows -> those of them that this process reads.

    Raises:
      UserError: `examples` is empty.
    """
    import grain

    epochs = math.ceil(stop * batch_size / max(1, len(examples))) if _redraws(examples) else 1
    shared = packing is not None and distributed.process_count() > 1
    lengths = _lengths_of_all(examples, len(examples) * epochs) if shared else None

    def make(indices: np.ndarray) -> list[Batch]:
        if packing is None:
            return [examples.collate([examples[int(i)] for i in indices[own_rows(len(indices))]])]
        own: list[Any] = [None] * len(indices)
        if lengths is None:
            own = [examples[int(index)] for index in indices]
            parts = packing.parts(_lengths(own))
        else:
            parts = packing.parts(lengths[indices])
            for part in parts:
                for index in itertools.chain(*part.rows[own_rows(len(part.rows))]):
                    own[index] = examples[int(indices[index])]
        return [packed(part, own, own_rows(len(part.rows))) for part in parts]

    dataset = (
        indices_in_order(examples, seed=seed, num_examples=stop * batch_size)
        .batch(batch_size)
        .map(make)
        .slice(slice(start, stop))
    )
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))


def _lengths(pairs: Sequence[Any]) -> Int[np.ndarray, "count 2"]:
    return np.array([[len(part) for part in pair] for pair in pairs], np.int32).reshape(-1, 2)


def _lengths_of_all(pairs: Examples, count: int) -> Int[np.ndarray, "count 2"]:
    """Returns input and target lengths of indices below `count`; each process counts its share."""
    own = distributed.own(range(count))
    counted = _lengths([pairs[i] for i in own])
    table = np.zeros((count, 2), np.int32)
    for index, data in enumerate(distributed.all_gather(counted.tobytes())):
        table[index :: distributed.process_count()] = np.frombuffer(data, np.int32).reshape(-1, 2)
    return table
