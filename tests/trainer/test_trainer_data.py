"""Batches: a pure function of (seed, step), every epoch a permutation."""

import numpy as np
import pytest

from ait_jax.errors import UserError
from ait_jax.trainer.data import batches, in_order


class Numbers:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index

    def collate(self, examples):
        return {"inputs": np.asarray(examples, np.int32)}


def drawn(size=10, batch_size=4, seed=1, start=0, stop=12, **options):
    stream = batches(
        Numbers(size), batch_size=batch_size, seed=seed, start=start, stop=stop, **options
    )
    return [batch["inputs"].tolist() for (batch,) in stream]


def test_every_step_has_a_full_batch():
    assert [len(batch) for batch in drawn()] == [4] * 12


@pytest.mark.parametrize("start", [1, 5, 11, 12])
def test_starting_in_the_middle_gives_the_same_batches(start):
    whole = drawn()
    assert drawn(start=start) == whole[start:]
    # Nor does a step's batch depend on where the run will stop.
    assert drawn(start=start, stop=40)[: 12 - start] == whole[start:]


def test_threads_do_not_matter():
    assert drawn(num_threads=1) == drawn(num_threads=8)


def test_every_epoch_is_another_permutation():
    order = [index for batch in drawn(stop=25) for index in batch]
    epochs = [order[i : i + 10] for i in range(0, 100, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10


def test_epochs_are_told_apart_where_examples_are_redrawn():
    class Redrawn(Numbers):
        redraws = True

    stream = batches(Redrawn(10), batch_size=4, seed=1, start=0, stop=25)
    order = [index for (batch,) in stream for index in batch["inputs"].tolist()]
    plain = [index for batch in drawn(stop=25) for index in batch]
    assert order == [position // 10 * 10 + index for position, index in enumerate(plain)]
    # T5X reads the examples themselves, in the same order.
    source = in_order(Redrawn(10), seed=1, num_examples=100)
    assert [source[i] for i in range(100)] == order


def test_the_seed_matters_and_may_be_any_integer():
    assert drawn(seed=1) != drawn(seed=2)
    assert drawn(seed=2**40 + 1) == drawn(seed=1)
    assert len(drawn(seed=-1)) == 12


def test_a_batch_larger_than_the_source():
    assert sorted(drawn(size=3, batch_size=6, stop=1)[0]) == [0, 0, 1, 1, 2, 2]


def test_an_empty_source():
    with pytest.raises(UserError, match="nothing to train on"):
        drawn(size=0)


def test_errors_of_the_source_come_through():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise UserError("instance 3 has no output")

    with pytest.raises(UserError, match="instance 3 has no output"):
        list(batches(Broken(4), batch_size=2, seed=0, start=0, stop=2))
