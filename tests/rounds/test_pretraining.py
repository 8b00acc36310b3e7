"""Pre-training: span corruption, packed rows, and a whole tiny run."""

import dataclasses

import numpy as np
import pytest
import safetensors
from tiny_training import TINY, OnDevices, assert_trees_equal, trainer

from ait_jax import randomness
from ait_jax.assets import mini_vocabulary
from ait_jax.errors import UserError
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.models.t5 import Transformer
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.rounds.pretraining import Pretraining, PretrainingExamples, span_corruption

VOCABULARY = Vocabulary(mini_vocabulary())
WORDS = "the cat sat on a mat and saw two birds in the old tree near our house".split()


def text(seed, index):
    length = randomness.integer(6, 16, seed, index, "length")
    return " ".join(randomness.choice(WORDS, seed, index, i) for i in range(length))


def task_example(seed, index):
    word = randomness.choice(WORDS, seed, index, "word")
    return f"Repeat the word {word}.", word


def corrupted(length, key=0, **changes):
    tokens = list(range(100, 100 + length))
    return tokens, *span_corruption(tokens, lambda i: -1 - i, key=("test", key), **changes)


def restored(inputs, targets):
    """Puts the spans that `targets` spells out back where `inputs` has their sentinels."""
    spans = {}
    for token in targets:
        if token < 0:
            spans[token] = current = []
        else:
            current.append(token)
    return [t for token in inputs for t in (spans[token] if token < 0 else [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 333])
def test_span_corruption_hides_nothing_for_good(length):
    for key in range(20):
        tokens, inputs, targets = corrupted(length, key)
        assert restored(inputs, targets) == tokens
        sentinels = [t for t in inputs if t < 0]
        assert sentinels == [-1 - i for i in range(len(sentinels))]
        assert [t for t in targets if t < 0] == sentinels
        assert inputs[0] == 100 and inputs != tokens


def test_span_corruption_density_and_span_length():
    _, _inputs, targets = corrupted(1000)
    noise = [t for t in targets if t >= 0]
    assert len(noise) == 150 and len(targets) - len(noise) == 50
    _, _, targets = corrupted(1000, noise_density=0.5, mean_span_length=10.0)
    assert sum(t >= 0 for t in targets) == 500 and sum(t < 0 for t in targets) == 50


def test_span_corruption_is_a_function_of_its_key():
    assert corrupted(50, 1) == corrupted(50, 1) != corrupted(50, 2)
    starts = {corrupted(100, key)[1].index(-1) for key in range(50)}
    assert len(starts) > 10


def test_span_corruption_needs_two_tokens():
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        corrupted(1)


def rows(seed=5, **changes):
    arguments = {
        "trainer": trainer(steps=10, batch_size=4),
        "seed": seed,
        "text_fraction": 0.5,
        "passages": 1,
        "input_length": 64,
        "target_length": 32,
    }
    return PretrainingExamples(pretraining("unused", **(arguments | changes)))


def parts(row, feature):
    tokens, segments = row[feature], row[f"{feature}_segments"]
    return [tokens[segments == s].tolist() for s in range(1, segments.max() + 1)]


def test_packed_rows_hold_whole_examples():
    source = rows()
    counts = []
    for index in range(len(source)):
        row = source[index]
        for feature, length in (("inputs", 64), ("targets", 32)):
            segments = row[f"{feature}_segments"]
            assert row[feature].shape == segments.shape == (length,)
            assert ((row[feature] > 0) == (segments > 0)).all()
            real = segments[segments > 0]
            assert (np.diff(real) >= 0).all() and (segments[len(real) :] == 0).all()
        inputs, targets = parts(row, "inputs"), parts(row, "targets")
        assert len(inputs) == len(targets)
        for number, (one, other) in enumerate(zip(inputs, targets, strict=True), start=1):
            expected = source._example(index, number)
            assert {"inputs": one, "targets": other} == expected
            assert one[-1] == other[-1] == 1
        counts.append(len(inputs))
    assert np.mean(counts) > 2


def test_both_kinds_of_examples_come_up():
    source = rows()
    kinds = [inputs[0] for index in range(40) for inputs in parts(source[index], "inputs")]
    repeat = VOCABULARY.encode("Repeat")[0]
    share = np.mean([first != repeat for first in kinds])
    assert 0.3 < share < 0.7
    only = rows(text_fraction=0.0)
    assert all(p[0] == repeat for i in range(5) for p in parts(only[i], "inputs"))


def test_rows_are_functions_of_seed_and_index():
    for name, value in rows()[3].items():
        np.testing.assert_array_equal(value, rows()[3][name])
    assert (rows()[3]["inputs"] != rows()[4]["inputs"]).any()
    assert (rows()[3]["inputs"] != rows(seed=6)[3]["inputs"]).any()


def test_an_example_longer_than_a_row_is_cut():
    row = rows(input_length=6, target_length=3)[0]
    assert row["inputs"][-1] == 1 and row["inputs_segments"].tolist() == [1] * 6
    assert np.count_nonzero(row["targets"]) <= 3


def test_collate_stacks():
    source = rows()
    batch = source.collate([source[0], source[1]])
    assert {name: value.shape for name, value in batch.items()} == {
        "inputs": (2, 64),
        "inputs_segments": (2, 64),
        "targets": (2, 32),
        "targets_segments": (2, 32),
    }


def pretraining(directory, **changes):
    arguments = {
        "model_dir": str(directory),
        "model": Transformer(dataclasses.replace(TINY, vocab_size=4096)),
        "vocabulary": VOCABULARY,
        "text": text,
        "task_example": task_example,
        "trainer": trainer(steps=3, batch_size=4),
        "partitioner": OnDevices(),
        "input_length": 32,
        "target_length": 16,
    }
    return Pretraining(**(arguments | changes))


def test_a_whole_run_leaves_weights(tmp_path, said):
    path = pretraining(tmp_path / "a").run()
    assert path == tmp_path / "a" / "model.safetensors" and said[-1] == f"weights: {path}"
    params = open_checkpoint(path).load()
    trained = open_checkpoint(tmp_path / "a" / "checkpoint_3").load()
    # bfloat16 on disk: 8 bits of mantissa.
    for name in ("encoder", "decoder", "token_embedder"):
        assert name in params
    np.testing.assert_allclose(
        params["token_embedder"]["embedding"], trained["token_embedder"]["embedding"], rtol=2**-8
    )
    metadata = safetensors.safe_open(path, framework="np").metadata()
    assert metadata["steps"] == "3" and metadata["seed"] == "0"
    whole = path.read_bytes()
    assert pretraining(tmp_path / "a").run().read_bytes() == whole
    assert pretraining(tmp_path / "b").run().read_bytes() == whole
    assert_trees_equal(open_checkpoint(tmp_path / "b" / "checkpoint_3").load(), trained)


def test_wrong_settings_are_named(tmp_path):
    with pytest.raises(UserError, match="EmbeddedTrainer.steps"):
        pretraining(tmp_path, trainer=trainer(steps=None, epochs=2))
    with pytest.raises(UserError, match="4096 ids.*T5Config.vocab_size = 64"):
        pretraining(tmp_path, model=Transformer(TINY))
