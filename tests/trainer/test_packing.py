"""Packing: whole examples in few rows, the same loss as apart, parts of few shapes."""

import jax
import numpy as np
import optax
import pytest
from tiny_training import (
    TINY,
    FirstTokens,
    OnDevices,
    assert_trees_equal,
    metric_lines,
    model_and_params,
    train,
    trainer,
)

from ait_jax.models import t5
from ait_jax.models.llama import LlamaConfig, LlamaTransformer
from ait_jax.models.parameters import init_params
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.trainer import interface
from ait_jax.trainer.data import batches
from ait_jax.trainer.packing import Packing, packed
from ait_jax.trainer.step import (
    CompiledStep,
    StepScalars,
    init_state,
    make_train_step,
    supervised_sums,
)

GRADIENT = optax.sgd(1.0)
BUCKETS = LengthBuckets((32, 64, 96, 128), (8, 16))


def drawn_lengths(count, seed=0):
    random = np.random.default_rng(seed)
    inputs = random.integers(3, 128, count)
    return np.stack([inputs, random.integers(1, 9, count)], axis=1)


def area(inputs, targets):
    return float(inputs + targets)


@pytest.mark.parametrize("tokens_of_a_part", [512, None])
@pytest.mark.parametrize("multiple_of, rows_at_once", [(1, 16), (1, 3), (4, 16), (4, 4)])
def test_every_example_is_in_one_row_that_holds_it(multiple_of, rows_at_once, tokens_of_a_part):
    chosen = Packing(BUCKETS, area, multiple_of, rows_at_once, tokens_of_a_part)
    for seed in range(20):
        lengths = drawn_lengths(seed + 1, seed)
        parts = chosen.parts(lengths)
        assert parts == chosen.parts(lengths)
        placed = [i for part in parts for row in part.rows for i in row]
        assert sorted(placed) == list(range(len(lengths)))
        for part in parts:
            assert len(part.rows) % multiple_of == 0
            assert part.shape[0] in BUCKETS.inputs and part.shape[1] in (8, 16)
            for row in part.rows:
                assert (lengths[row].sum(axis=0) <= part.shape).all()
            microbatches = -(-len(part.rows) // rows_at_once)
            assert len(part.rows) % (microbatches * multiple_of) == 0
            assert microbatches == 1 or tokens_of_a_part is None
        assert tokens_of_a_part or len(parts) == 1


def test_little_is_padding():
    lengths = drawn_lengths(128)
    parts = Packing(BUCKETS, area, 1, 128, 512).parts(lengths)
    places = sum(len(part.rows) * sum(part.shape) for part in parts)
    assert 1 - lengths.sum() / places < 0.08
    rows = {(32, 8): 16, (64, 8): 8, (64, 16): 8, (96, 8): 4, (128, 8): 4, (128, 16): 4}
    assert all(len(part.rows) == rows[part.shape] for part in parts)


def test_the_length_of_rows_that_costs_least_is_taken():
    lengths = np.array([[40, 2]] * 12)
    # Rows of 128 hold three without much padding; where length is dear, each has a row of 64.
    for cost, length in ((area, 128), (lambda inputs, targets: inputs**3, 64)):
        parts = Packing(BUCKETS, cost, 1, 128, 512).parts(lengths)
        assert {part.shape[0] for part in parts} == {length}


def test_arrays_of_a_part():
    lengths = np.array([[20, 2], [10, 3], [4, 1]])
    examples = [(list(range(5, 5 + a)), [*range(50, 49 + b), 1]) for a, b in lengths.tolist()]
    (part,) = Packing(LengthBuckets((40,), (8,)), area, 1, 4, None).parts(lengths)
    assert part.rows == [[0, 1, 2]] and part.shape == (40, 8)
    arrays = packed(part, examples)
    assert arrays["inputs"].shape == (1, 40) and arrays["inputs"].dtype == np.int32
    assert arrays["inputs"][0].tolist() == [
        *examples[0][0], *examples[1][0], *examples[2][0], *[0] * 6
    ]  # fmt: skip
    assert arrays["inputs_segments"][0].tolist() == [1] * 20 + [2] * 10 + [3] * 4 + [0] * 6
    assert arrays["targets"][0].tolist() == [50, 1, 50, 51, 1, 1, 0, 0]
    assert arrays["targets_segments"][0].tolist() == [1, 1, 2, 2, 2, 3, 0, 0]


def test_a_process_makes_its_own_rows_alone():
    chosen = Packing(LengthBuckets((8, 16), (4, 8)), area, 4, 8, None)

    def drawn(own_rows):
        stream = batches(
            FirstTokens(), batch_size=8, seed=3, start=0, stop=4, packing=chosen, own_rows=own_rows
        )
        return [parts[0] for parts in stream]

    whole = drawn(lambda count: slice(0, count))
    halves = [drawn(lambda n: slice(0, n // 2)), drawn(lambda n: slice(n // 2, n))]
    for all_rows, *parts in zip(whole, *halves, strict=True):
        for name, rows in all_rows.items():
            np.testing.assert_array_equal(rows, np.concatenate([part[name] for part in parts]))


LLAMA = LlamaConfig(
    vocab_size=64, emb_dim=16, num_heads=4, num_kv_heads=2, num_layers=2, head_dim=4, mlp_dim=32
)


@pytest.mark.parametrize(
    "model", [t5.Transformer(TINY), LlamaTransformer(LLAMA)], ids=["t5", "llama"]
)
def test_packed_rows_have_loss_and_gradient_of_their_examples(model):
    params = init_params(model, 0)[0]
    examples = [FirstTokens()[i] for i in range(9)]
    lengths = np.array([[len(part) for part in pair] for pair in examples])
    buckets = LengthBuckets((24,), (12,))
    (part,) = Packing(buckets, area, 1, 16, None).parts(lengths)
    assert len(part.rows) < 5
    step = jax.jit(make_train_step(supervised_sums(model), GRADIENT))
    results = [
        step(init_state(params, GRADIENT), batch, np.uint32(0))
        for batch in (packed(part, examples), LengthBuckets((8,), (4,)).collate(examples))
    ]
    (together, of_packed), (alone, of_rows) = results
    for name, value in of_rows.items():
        np.testing.assert_allclose(of_packed[name], value, rtol=1e-5)
    assert_trees_equal(together.params, alone.params, atol=1e-5)


class Words(FirstTokens):
    """The same with other lengths of rows."""

    def __init__(self, inputs, targets):
        super().__init__()
        self.buckets = LengthBuckets(inputs, targets)


def test_trainings_on_packed_rows_are_those_on_single_ones(tmp_path, monkeypatch):
    """One part of several examples a row, parts that are added up, several devices."""
    single = train(tmp_path / "single", examples=Words((8,), (4,)))
    monkeypatch.setattr(interface, "tokens_that_suit_a_cpu", lambda num_params: 8)
    forms = {
        "one row": {"examples": Words((128,), (64,))},
        "parts": {"examples": Words((8, 16), (4, 8))},
        "devices": {"examples": Words((16,), (8,)), "partitioner": OnDevices(num_devices=2)},
    }
    expected = metric_lines(tmp_path / "single")
    for name, job in forms.items():
        trained = train(tmp_path / name, **job)
        assert_trees_equal(trained.params, single.params, atol=1e-5)
        for ours, theirs in zip(metric_lines(tmp_path / name), expected, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["tokens"] == theirs["tokens"]
        assert trained.work.tokens == single.work.tokens
        assert trained.work.flops == pytest.approx(single.work.flops)


def test_microbatches_of_packed_rows():
    model, params = model_and_params()
    examples = [FirstTokens()[i] for i in range(8)]
    lengths = np.array([[len(part) for part in pair] for pair in examples])
    (part,) = Packing(LengthBuckets((16,), (8,)), area, 1, 2, None).parts(lengths)
    batch = {name: jax.numpy.asarray(rows) for name, rows in packed(part, examples).items()}
    (state,) = trainer(optimizer=lambda schedule: GRADIENT).compiled_step(model, OnDevices())[1]
    losses = []
    for rows_at_once in (2, 8):
        step = CompiledStep(
            lambda: supervised_sums(model),
            lambda schedule: GRADIENT,
            (state,),
            OnDevices(),
            "float32",
            rows_at_once,
        )
        own = jax.tree.map(jax.numpy.array, init_state(params, GRADIENT))
        losses.append(step(own, [batch], StepScalars(np.uint32(0), np.float32(1)))[1]["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)
