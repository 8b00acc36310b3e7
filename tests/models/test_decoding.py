"""Greedy decoding against T5X's answers and against teacher forcing."""

import dataclasses
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_data import GOLDEN_T5X, needs_shared

from ait_jax.models import decoding, likelihood, parameters, t5

CONFIG = t5.T5Config(
    vocab_size=384,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    mlp_activations=("gelu", "linear"),
)
MODEL = t5.Transformer(CONFIG)
FORWARD = jax.jit(partial(MODEL.apply, enable_dropout=False))
MAX_LENGTH = 12


@pytest.fixture(scope="module")
def params():
    # Larger than initial values, so that answers differ from row to row.
    params = parameters.init_params(MODEL, 1)[0]
    return jax.tree.map(lambda x: x * 2 if x.ndim == 2 else x, params)


@pytest.fixture(scope="module")
def decode(params):
    jitted = jax.jit(
        lambda tokens, eos_id: decoding.greedy_decode(MODEL, params, tokens, MAX_LENGTH, eos_id),
        static_argnums=1,
    )
    return lambda tokens, eos_id=1: jax.tree.map(np.asarray, jitted(tokens, eos_id))


@pytest.fixture(scope="module")
def prompts():
    tokens = np.random.default_rng(0).integers(2, 384, (5, 9)).astype(np.int32)
    tokens[1, 4:] = 0
    tokens[4] = 0
    return tokens


@pytest.fixture(scope="module")
def free(decode, prompts):
    """Answers that never end: token 383 stands for an end-of-sequence that does not come."""
    decoded = decode(prompts, 383)
    assert not (decoded.tokens == 383).any()
    return decoded


def teacher_forced(params, prompts, targets):
    # All targets count, so that a predicted 0 is not taken for padding.
    ones = jnp.ones_like(targets)
    return FORWARD({"params": params}, prompts, likelihood.shift_right(targets), ones)


@needs_shared
def test_tokens_equal_t5x():
    arrays = dict(np.load(GOLDEN_T5X / "params.npz"))
    golden = flax.traverse_util.unflatten_dict(arrays, sep="/")
    io = np.load(GOLDEN_T5X / "io.npz")
    decoded = jax.jit(lambda p, x: decoding.greedy_decode(MODEL, p, x, 16))(
        golden, io["encoder_input_tokens"]
    )
    np.testing.assert_array_equal(decoded.tokens, io["greedy_tokens"])
    # The golden targets are the greedy answers, so T5X's scores are the decode's.
    lengths = (io["greedy_tokens"] > 0).sum(-1)
    np.testing.assert_array_equal(decoded.lengths, lengths)
    np.testing.assert_allclose(decoded.log_likelihood, io["score_batch"] / lengths, atol=1e-5)
    assert np.all(decoded.finished)


def test_answers_are_the_arg_max_of_teacher_forcing(params, prompts, free):
    assert len(np.unique(free.tokens[:4], axis=0)) == 4
    logits = teacher_forced(params, prompts[:4], free.tokens[:4])
    np.testing.assert_array_equal(np.argmax(logits, -1), free.tokens[:4])
    expected = likelihood.token_log_likelihoods(logits, free.tokens[:4]).mean(-1)
    np.testing.assert_allclose(free.log_likelihood[:4], expected, atol=1e-5)


def test_cached_logits_equal_teacher_forced_position_by_position(params, prompts):
    targets = np.random.default_rng(1).integers(2, 384, (5, MAX_LENGTH)).astype(np.int32)
    inputs = np.asarray(likelihood.shift_right(targets))
    expected = teacher_forced(params, prompts, targets)
    encode = partial(MODEL.apply, enable_dropout=False, method=MODEL.encode)
    encoded = jax.jit(encode)({"params": params}, prompts)
    # As T5X drives it: the cache is made by a whole pass over ones, without `cross_cache`.
    ones = np.ones_like(targets)
    whole = partial(MODEL.apply, enable_dropout=False, decode=True, mutable=["cache"])
    _, variables = jax.jit(whole)({"params": params}, np.ones_like(prompts), ones, ones)
    cache = flax.core.unfreeze(variables["cache"])
    attention = cache["decoder"]["layers_0"]["self_attention"]
    assert set(attention) == {"cached_key", "cached_value", "cache_index"}
    assert attention["cached_key"].shape == (5, 4, 8, MAX_LENGTH)
    assert set(cache["decoder"]["layers_0"]) == {"self_attention"}

    @jax.jit
    def step(cache, token):
        logits, new = MODEL.apply(
            {"params": params, "cache": cache},
            encoded,
            prompts,
            token,
            token,
            enable_dropout=False,
            decode=True,
            max_decode_length=MAX_LENGTH,
            mutable=["cache"],
            method=MODEL.decode,
        )
        return new["cache"], logits[:, 0]

    for position in range(MAX_LENGTH):
        cache, logits = step(cache, inputs[:, position : position + 1])
        np.testing.assert_allclose(logits, expected[:, position], atol=1e-4)
    assert cache["decoder"]["layers_1"]["self_attention"]["cache_index"] == MAX_LENGTH


def test_end_of_sequence_cuts_the_row(decode, prompts, free):
    eos_id = int(free.tokens[0, 3])
    decoded = decode(prompts, eos_id)
    for row in range(4):
        ends = np.flatnonzero(free.tokens[row] == eos_id)
        length = ends[0] + 1 if len(ends) else MAX_LENGTH
        assert decoded.lengths[row] == length
        assert decoded.finished[row] == bool(len(ends))
        np.testing.assert_array_equal(decoded.tokens[row, :length], free.tokens[row, :length])
        assert not decoded.tokens[row, length:].any()
    assert decoded.lengths[0] <= 4


def test_mean_likelihood_includes_end_of_sequence(params, decode, prompts, free):
    decoded = decode(prompts, int(free.tokens[0, 3]))
    logits = teacher_forced(params, prompts, decoded.tokens)
    log_p = likelihood.token_log_likelihoods(logits, decoded.tokens)
    for row, length in enumerate(decoded.lengths[:4]):
        expected = np.mean(log_p[row, :length])
        np.testing.assert_allclose(decoded.log_likelihood[row], expected, atol=1e-5)


def test_a_cut_answer_is_also_scored_as_if_it_had_ended(params, decode, prompts, free):
    eos_id = int(free.tokens[0, 3])
    decoded = decode(prompts, eos_id)
    ended = np.array(decoded.tokens)
    for row, length in enumerate(decoded.lengths[:4]):
        ended[row, length - 1] = eos_id
    log_p = likelihood.token_log_likelihoods(teacher_forced(params, prompts, ended), ended)
    assert 0 < np.sum(decoded.finished[:4]) < 4
    for row, length in enumerate(decoded.lengths[:4]):
        expected = np.mean(log_p[row, :length])
        np.testing.assert_allclose(decoded.ended_log_likelihood[row], expected, atol=1e-5)
    done = decoded.finished
    np.testing.assert_array_equal(decoded.ended_log_likelihood[done], decoded.log_likelihood[done])


def test_padding_that_a_model_chooses_is_not_in_the_mean(params, prompts):
    def choose(logits, keys, step):
        token = jnp.where(step == 1, 0, jnp.argmax(logits, axis=-1).astype(jnp.int32))
        return token, jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]

    encoded = decoding.encode_prompts(MODEL, params, prompts[:4], 5)
    decoded = decoding.decode(encoded, 5, 383, choose)
    log_p = likelihood.token_log_likelihoods(
        teacher_forced(params, prompts[:4], decoded.tokens), decoded.tokens
    )
    kept = np.array(decoded.tokens) != 0
    assert not kept[:, 1].any() and (decoded.lengths == 5).all()
    for row in range(4):
        expected = np.mean(log_p[row][kept[row]])
        np.testing.assert_allclose(decoded.log_likelihood[row], expected, atol=1e-5)


def test_filler_rows_neither_decode_nor_hold_up_the_others(free, decode, prompts):
    assert free.lengths[4] == 0 and free.finished[4] and free.log_likelihood[4] == 0.0
    assert not free.tokens[4].any()
    alone = decode(np.zeros_like(prompts))
    assert not alone.tokens.any() and alone.finished.all()


def test_padding_and_neighbours_change_nothing(decode, prompts, free):
    padded = np.pad(prompts[1:3], ((0, 0), (0, 6)))
    np.testing.assert_array_equal(decode(padded, 383).tokens, free.tokens[1:3])


def test_cross_attention_keys_are_projected_once(params, prompts, monkeypatch):
    def loop_body(jaxpr):
        (loop,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "while"]
        return loop.params["body_jaxpr"].jaxpr

    monkeypatch.setattr(decoding, "_COMPACTION", 10**9)
    jaxpr = jax.make_jaxpr(lambda x: decoding.greedy_decode(MODEL, params, x, MAX_LENGTH))(prompts)
    text = str(loop_body(jaxpr.jaxpr))
    # Inside the loop nothing of the encoder's length goes through a projection.
    assert "f32[5,1,32]" in text and "f32[5,9,32]" not in text.split("let", 1)[1]


@pytest.mark.parametrize("scan_layers", [False, True])
def test_compaction_changes_no_answer(params, scan_layers, monkeypatch):
    # 70 rows and an end-of-sequence that most meet, soon or late: all stages run.
    params = flax.core.copy(params)
    kernel = params["decoder"]["logits_dense"]["kernel"]
    params["decoder"]["logits_dense"]["kernel"] = kernel.at[:, 1].multiply(2.5)
    rng = np.random.default_rng(2)
    prompts = rng.integers(2, 384, (70, 6)).astype(np.int32)
    model = t5.Transformer(dataclasses.replace(CONFIG, scan_layers=scan_layers))
    layout = parameters.match_layout(params, scan_layers)

    def decoded():
        function = jax.jit(lambda x: decoding.greedy_decode(model, layout, x, MAX_LENGTH))
        return jax.tree.map(np.asarray, function(prompts))

    compacted = decoded()
    monkeypatch.setattr(decoding, "_COMPACTION", 10**9)
    plain = decoded()
    assert len(set(plain.lengths.tolist())) > 5
    for ours, reference in zip(compacted, plain, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_rows_shrink_by_four():
    assert decoding._row_counts(70) == [(70, 17), (17, 4), (4, 1), (1, 0)]
    assert decoding._row_counts(3) == [(3, 0)]


def test_wrong_calls_are_refused(params, prompts):
    with pytest.raises(ValueError, match="max_decode_length is 0"):
        decoding.greedy_decode(MODEL, params, prompts, 0)
    with pytest.raises(ValueError, match="encoder_segment_ids"):
        MODEL.apply(
            {"params": params},
            np.zeros((5, 9, 32), np.float32),
            prompts,
            prompts,
            prompts,
            encoder_segment_ids=prompts,
            decode=True,
            method=MODEL.decode,
        )
