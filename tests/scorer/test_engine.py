"""The engine against one prompt at a time, without padding, buckets or mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.models.likelihood import shift_right
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import program_cache
from ait_jax.scorer.batching import LengthBuckets, pad_rows
from ait_jax.scorer.engine import Engine

BUCKETS = LengthBuckets(inputs=(8, 16), targets=(4, 8))


def tokens(length: int, *key) -> list[int]:
    return [randomness.integer(2, 64, *key, i) for i in range(length - 1)] + [1]


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        vocab_size=64,
        emb_dim=16,
        num_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        head_dim=8,
        mlp_dim=32,
        mlp_activations=("gelu", "linear"),
        logits_via_embedding=True,
    )
    return Transformer(config)


@pytest.fixture(scope="module")
def params(model):
    return init_params(model, 3)[0]


@pytest.fixture(scope="module")
def prompts():
    return [tokens(randomness.integer(2, 17, "length", i), "prompt", i) for i in range(21)]


def logits_of(model, params, prompts, targets) -> tuple[np.ndarray, np.ndarray]:
    """Float64 logits of one plain, padded batch, and its targets."""
    inputs = pad_rows(prompts, max(map(len, prompts)))
    outputs = pad_rows(targets, max(map(len, targets)))
    logits = jax.jit(
        lambda *tokens: model.apply({"params": params}, *tokens, enable_dropout=False)
    )(inputs, shift_right(outputs), outputs)
    return np.asarray(logits, np.float64), outputs


def by_hand(model, params, prompts, targets) -> np.ndarray:
    """Mean log-likelihoods in float64 NumPy."""
    logits, outputs = logits_of(model, params, prompts, targets)
    largest = logits.max(-1, keepdims=True)
    log_p = logits - largest - np.log(np.exp(logits - largest).sum(-1, keepdims=True))
    of_targets = np.take_along_axis(log_p, outputs[..., None], -1)[..., 0]
    return np.array([row[: len(t)].mean() for row, t in zip(of_targets, targets, strict=True)])


class Doubled(Transformer):
    """A network of a user's own."""

    def encode(self, *arguments, **options):
        return 2.0 * super().encode(*arguments, **options)


def test_a_users_own_network_is_what_scores_and_decodes(model, params, prompts):
    own = Doubled(model.config)
    engine = Engine(own, Partitioner(), BUCKETS)
    placed = engine.place(params)
    targets = [tokens(4, "target", i) for i in range(len(prompts))]
    found = engine.log_likelihoods(placed, prompts, targets)
    np.testing.assert_allclose(found, by_hand(own, params, prompts, targets), atol=1e-5)
    assert np.abs(found - by_hand(model, params, prompts, targets)).max() > 1e-3
    answers = engine.decode(placed, prompts)
    # Answers of this model never end; a 0 in one is padding to whoever reads it.
    rows = [i for i, answer in enumerate(answers.tokens) if 0 not in answer]
    cut = [[*answers.tokens[i][:-1], 1] for i in rows]
    scored = by_hand(own, params, [prompts[i] for i in rows], cut)
    assert len(rows) > 5 and {len(ids) for ids in answers.tokens} == {BUCKETS.max_target_length}
    np.testing.assert_allclose(answers.log_likelihoods[rows], scored, atol=1e-5)


@pytest.mark.parametrize("num_partitions", [1, 2])
def test_log_likelihoods_are_those_of_single_rows(model, params, prompts, num_partitions):
    engine = Engine(model, Partitioner(num_partitions), BUCKETS, tokens_per_batch=64)
    targets = [tokens(randomness.integer(1, 9, "t", i), "target", i) for i in range(len(prompts))]
    values = engine.log_likelihoods(engine.place(params), prompts, targets)
    expected = by_hand(model, params, prompts, targets)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_the_decoded_tokens_own_likelihood(model, params, prompts):
    """Of ended answers that is the scored one, of cut ones it has no end-of-sequence."""
    engine = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    answers = engine.decode(engine.place(params), prompts)
    longest = BUCKETS.max_target_length
    rows = [i for i, answer in enumerate(answers.tokens) if 0 not in answer]
    ids = [answers.tokens[i] for i in rows]
    decoded = [ids if len(ids) == longest else [*ids, 1] for ids in ids]
    expected = by_hand(model, params, [prompts[i] for i in rows], decoded)
    np.testing.assert_allclose(answers.generated[rows], expected, atol=1e-5)
    cut = [i for i in rows if len(answers.tokens[i]) == longest]
    assert cut and np.abs(answers.generated - answers.log_likelihoods)[cut].min() > 1e-3


def test_answers_may_be_shorter_than_targets(model, params, prompts):
    """As the authors' 127 tokens of 128: the same tokens, the last one left out."""
    whole = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    shorter = dataclasses.replace(BUCKETS, answer=7)
    engine = Engine(model, Partitioner(), shorter, tokens_per_batch=64)
    placed = engine.place(params)
    answers = engine.decode(placed, prompts)
    assert answers.tokens == [ids[:7] for ids in whole.decode(placed, prompts).tokens]
    rows = [i for i, ids in enumerate(answers.tokens) if len(ids) == 7 and 0 not in ids]
    cut = [answers.tokens[i] for i in rows]
    expected = by_hand(model, params, [prompts[i] for i in rows], cut)
    np.testing.assert_allclose(answers.generated[rows], expected, atol=1e-5)
    for wrong in (0, 9, 7.0):
        with pytest.raises(UserError, match="ANSWER_LENGTH is .* from 1 to .* TARGET_LENGTHS, 8"):
            dataclasses.replace(BUCKETS, answer=wrong)


def test_answers_are_the_argmax_at_every_step(model, params, prompts):
    engine = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    answers = engine.decode(engine.place(params), prompts).tokens
    logits, _ = logits_of(model, params, prompts, [[*answer, 1] for answer in answers])
    for row, answer in zip(logits, answers, strict=True):
        assert len(answer) <= BUCKETS.max_target_length and 1 not in answer
        best = row.argmax(axis=-1)[: len(answer) + 1].tolist()
        ended = [1] if len(answer) < BUCKETS.max_target_length else best[len(answer) :]
        assert best == [*answer, *ended]


def test_work_counts_real_and_padded_tokens(model, params, prompts):
    engine = Engine(model, Partitioner(), BUCKETS, tokens_per_batch=64)
    engine.decode(engine.place(params), prompts)
    summary = engine.work.summary()
    assert summary["prompts"] == len(prompts)
    assert summary["tokens"] == sum(map(len, prompts))
    assert engine.work.padded_tokens >= summary["tokens"]
    assert 0 <= summary["padding_fraction"] < 1 and summary["tokens_per_second"] > 0
    engine.work.clear()
    assert engine.work.summary() == {} and engine.work.describe() == ""


def test_parameters_are_sharded_over_the_model_axis(model, params):
    engine = Engine(model, Partitioner(num_partitions=2), BUCKETS)
    placed = engine.place(params)
    kernel = placed["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    shapes = {shard.data.shape for shard in kernel.addressable_shards}
    assert shapes == {(1, 16, 16)} and len(jax.devices()) == 8


@pytest.fixture(scope="module")
def wide():
    """A model whose heads and vocabulary divide over four shards."""
    config = T5Config(
        vocab_size=96,
        emb_dim=32,
        num_heads=4,
        num_encoder_layers=1,
        num_decoder_layers=1,
        head_dim=8,
        mlp_dim=64,
        mlp_activations=("gelu", "linear"),
    )
    model = Transformer(config)
    params = init_params(model, 5)[0]
    # Few lengths far apart: every padded length is another program to compile.
    prompts = [tokens((4, 22, 31, 59)[i % 4], "wide", i) for i in range(37)]
    targets = [tokens(randomness.integer(1, 17, "t", i), "target", i) for i in range(37)]
    return model, params, prompts, targets


@pytest.fixture(scope="module")
def plain(wide):
    return by_hand(*wide)


@pytest.mark.parametrize(
    ("num_partitions", "inputs", "tokens_per_batch", "growth"),
    [(1, (64,), 1024, 1.06), (2, (16, 64), 512, 1.3), (4, (64,), 256, 2.0), (4, (60,), 64, 1.5)],
)
def test_any_mesh_and_any_layouts_of_buckets_give_the_plain_numbers(
    wide, plain, num_partitions, inputs, tokens_per_batch, growth
):
    model, params, prompts, targets = wide
    buckets = LengthBuckets(inputs=inputs, targets=(16,))
    engine = Engine(model, Partitioner(num_partitions), buckets, tokens_per_batch, growth)
    placed = engine.place(params)
    values = engine.log_likelihoods(placed, prompts, targets)
    np.testing.assert_allclose(values, plain, atol=1e-5)

    answers = engine.decode(placed, prompts[:9])
    ended = [[*ids[:15], 1] for ids in answers.tokens]
    np.testing.assert_allclose(
        answers.log_likelihoods, by_hand(model, params, prompts[:9], ended), atol=1e-5
    )


def test_bfloat16_stays_near_float32(wide, plain):
    model, params, prompts, targets = wide
    half = Transformer(dataclasses.replace(model.config, dtype="bfloat16"))
    engine = Engine(half, Partitioner(), LengthBuckets((64,), (16,)), 1024)
    values = engine.log_likelihoods(engine.place(params), prompts, targets)
    assert 1e-5 < np.abs(values - plain).max() < 0.1


@pytest.mark.parametrize(("platform", "kept"), [("tpu", "bfloat16"), ("cpu", "float32")])
def test_matrices_are_kept_as_the_platform_reads_them(wide, monkeypatch, platform, kept):
    monkeypatch.setattr(Partitioner, "platform", platform)
    half = Transformer(dataclasses.replace(wide[0].config, dtype="bfloat16"))
    placed = Engine(half, Partitioner(), LengthBuckets((64,), (16,))).placed_params
    assert placed["encoder"]["layers"]["mlp"]["wo"]["kernel"].dtype == kept
    assert placed["encoder"]["layers"]["pre_mlp_layer_norm"]["scale"].dtype == "float32"


def test_an_interrupted_call_leaves_no_compilations_behind(wide):
    model, _params, _prompts, _ = wide
    engine = Engine(model, Partitioner(), LengthBuckets((64,), (16,)), 64)
    shapes = [(8, length) for length in engine.input_lengths]
    program_of = engine._programs.in_order(shapes)
    program_of(shapes[0])
    assert len(engine._programs._futures) == 1 + program_cache._AHEAD < len(shapes)
