"""Sampled decoding against plain sampling without a cache, softmax frequencies and other meshes."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from tiny_training import TINY, OnDevices, model_and_params

from ait_jax import randomness
from ait_jax.models import decoding, likelihood, parameters, t5
from ait_jax.models.sampling import Restriction, key_data, restricted_logits, sample_decode

MODEL = t5.Transformer(TINY)
FORWARD = jax.jit(partial(MODEL.apply, enable_dropout=False))
MAX_LENGTH = 5


@pytest.fixture(scope="module")
def params(prompts):
    """Probabilities that differ, and a likely end-of-sequence: as likely as the best token."""
    params = jax.tree.map(lambda x: x * 1.5 if x.ndim == 2 else x, model_and_params()[1])
    kernel = params["decoder"]["logits_dense"]["kernel"]
    kernel *= 0.4
    kernel[:, 1] = kernel[:, np.argmax(first_logits(params, prompts[:1])[2:]) + 2]
    return params


@pytest.fixture(scope="module")
def prompts():
    tokens = np.random.default_rng(0).integers(2, 64, (4, 7)).astype(np.int32)
    tokens[1, 3:] = 0
    return tokens


def keys(batch, samples, seed=0):
    numbers = [
        key_data(randomness.stable_hash(seed, row, sample))
        for row in range(batch)
        for sample in range(samples)
    ]
    return np.array(numbers, np.uint32).reshape(batch, samples, 2)


def sampled(params, prompts, keys, length=MAX_LENGTH, model=MODEL, unroll=False, **options):
    restriction = Restriction(**options)
    function = jax.jit(
        lambda p, x, k: sample_decode(model, p, x, k, length, restriction, unroll_layers=unroll)
    )
    return jax.tree.map(np.asarray, function(params, prompts, keys))


def plain_samples(params, prompts, keys, length=MAX_LENGTH):
    """One sample at a time, every token from a whole pass over the prompt and what came so far."""
    answers = []
    for prompt, row_keys in zip(prompts, keys, strict=True):
        for key in row_keys:
            targets = np.zeros((1, length), np.int32)
            for position in range(length):
                logits = FORWARD(
                    {"params": params},
                    prompt[None],
                    likelihood.shift_right(targets),
                    0 * targets + 1,
                )
                logits = np.array(logits[0, position], np.float64)
                logits[0] = -np.inf
                one = jax.random.fold_in(jax.random.wrap_key_data(key), position)
                targets[0, position] = np.argmax(logits + jax.random.gumbel(one, (64,)))
                if targets[0, position] == 1:
                    break
            answers.append(targets[0])
    return np.array(answers)


@pytest.fixture(scope="module")
def some(params, prompts):
    return sampled(params, prompts, keys(4, 6))


def test_samples_equal_plain_sampling(params, prompts, some):
    np.testing.assert_array_equal(some.tokens, plain_samples(params, prompts, keys(4, 6)))
    assert len(np.unique(some.tokens, axis=0)) > 12
    ends = (some.tokens == 1).any(-1)
    assert 2 < ends.sum() < 24 and np.array_equal(ends, some.finished)
    # The tokens of an answer are the non-zero ones.
    np.testing.assert_array_equal((some.tokens > 0).sum(-1), some.lengths)


def test_log_likelihoods_are_those_of_teacher_forcing(params, prompts, some):
    repeated, shifted = np.repeat(prompts, 6, axis=0), likelihood.shift_right(some.tokens)
    logits = FORWARD({"params": params}, repeated, shifted, some.tokens)
    expected = likelihood.sum_log_likelihood(logits, some.tokens) / some.lengths
    np.testing.assert_allclose(some.log_likelihood, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["not compacted", "unrolled", "scanned"])
def test_the_form_of_decoding_changes_no_sample(params, prompts, some, form, monkeypatch):
    model = MODEL
    if form == "not compacted":
        monkeypatch.setattr(decoding, "_COMPACTION", 10**9)
    else:
        model = t5.Transformer(dataclasses.replace(TINY, scan_layers=True))
        params = parameters.match_layout(params, True)
    other = sampled(params, prompts, keys(4, 6), model=model, unroll=form == "unrolled")
    np.testing.assert_array_equal(other.tokens, some.tokens)


@pytest.mark.parametrize("num_devices, num_partitions", [(4, 1), (8, 2), (2, 2)])
def test_the_mesh_changes_no_sample(params, prompts, some, num_devices, num_partitions):
    partitioner = OnDevices(num_partitions=num_partitions, num_devices=num_devices)
    with partitioner.activate():
        rows = partitioner.shard_batch({"prompts": prompts, "keys": keys(4, 6)})
        assert len(rows["prompts"].sharding.device_set) == num_devices
        other = sampled(params, rows["prompts"], rows["keys"])
    np.testing.assert_array_equal(other.tokens, some.tokens)
    np.testing.assert_allclose(other.log_likelihood, some.log_likelihood, atol=1e-5)


def test_a_sample_depends_on_its_key_alone(params, prompts, some):
    # Other rows, another place in the batch, more padding, fewer samples.
    order, first_two = [2, 0], keys(4, 6)[[2, 0], :2]
    other = sampled(params, np.pad(prompts[order], ((0, 0), (0, 5))), first_two)
    expected = some.tokens.reshape(4, 6, -1)[order, :2].reshape(4, -1)
    np.testing.assert_array_equal(other.tokens, expected)
    changed = sampled(params, prompts, keys(4, 6, seed=1))
    assert (changed.tokens != some.tokens).any(-1).sum() > 12


def test_a_row_of_padding_has_no_answers(params, prompts):
    prompts = np.concatenate([prompts[:1], np.zeros_like(prompts[:1])])
    decoded = sampled(params, prompts, keys(2, 3))
    assert (
        not decoded.tokens[3:].any()
        and not decoded.lengths[3:].any()
        and decoded.finished[3:].all()
    )
    assert decoded.lengths[:3].all()


def first_logits(params, prompt):
    ones = np.ones((1, 1), np.int32)
    logits = FORWARD({"params": params}, prompt, 0 * ones, ones)
    return np.asarray(logits[0, 0], np.float64)


def chi_square(counts, p):
    """Returns chi-square by degrees of freedom; rare outcomes are taken together."""
    expected = counts.sum() * p
    rare = expected < 10
    groups = [(counts[i], expected[i]) for i in np.flatnonzero(~rare)]
    if expected[rare].sum() > 0:
        groups.append((counts[rare].sum(), max(expected[rare].sum(), 1e-9)))
    assert len(groups) > 3
    return sum((c - e) ** 2 / e for c, e in groups) / (len(groups) - 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 8},
        {"top_p": 0.6},
        {"temperature": 0.8, "top_k": 30, "top_p": 0.9},
    ],
)
def test_frequencies_are_the_softmax(params, prompts, options):
    samples = 4000
    decoded = sampled(params, prompts[:1], keys(1, samples), length=1, **options)
    counts = np.bincount(decoded.tokens[:, 0], minlength=64)
    logits = first_logits(params, prompts[:1])
    logits[0] = -np.inf
    p = np.exp(logits / options.get("temperature", 1.0))
    if "top_k" in options:
        p[np.argsort(-p)[options["top_k"] :]] = 0
    p /= p.sum()
    if "top_p" in options:
        order = np.argsort(-p)
        needed = np.searchsorted(np.cumsum(p[order]), options["top_p"]) + 1
        assert 3 < needed < 60
        p[order[needed:]] = 0
    p /= p.sum()
    assert not counts[p == 0].any()
    assert chi_square(counts, p) < 1.6
    # The test can tell: uniform frequencies over the same tokens are far away.
    assert chi_square(counts, (p > 0) / (p > 0).sum()) > 10


def test_pairs_of_tokens_have_the_products_of_probabilities(params, prompts):
    """Step 2 draws anew, given the token of step 1."""
    decoded = sampled(params, prompts[:1], keys(1, 6000), length=2)
    p_first = np.exp(restricted_logits(first_logits(params, prompts[:1])[None], Restriction())[0])
    p_first = np.asarray(p_first, np.float64) / p_first.sum()
    likely = (
        int(np.argsort(-p_first)[0]) if np.argmax(p_first) != 1 else int(np.argsort(-p_first)[1])
    )
    targets = np.array([[likely, 2]], np.int32)
    shifted = likelihood.shift_right(targets)
    logits = FORWARD({"params": params}, prompts[:1], shifted, targets)
    p = np.asarray(jax.nn.softmax(restricted_logits(logits[0, 1:], Restriction())[0]), np.float64)
    second = decoded.tokens[decoded.tokens[:, 0] == likely, 1]
    assert len(second) > 300
    assert chi_square(np.bincount(second, minlength=64), p) < 1.6


def test_restrictions_by_hand():
    logits = np.log(np.array([[0.3, 0.4, 0.2, 0.07, 0.03]], np.float32))

    def kept(**options):
        restricted = restricted_logits(logits, Restriction(**options))
        return np.flatnonzero(np.isfinite(restricted[0])).tolist()

    # Token 0 is padding. What is left has the probabilities 0.571, 0.286, 0.1, 0.043.
    assert kept() == [1, 2, 3, 4]
    assert kept(top_k=2) == [1, 2] and kept(top_k=1) == [1] and kept(top_k=99) == [1, 2, 3, 4]
    assert kept(top_p=0.5) == [1] and kept(top_p=0.6) == [1, 2] and kept(top_p=0.9) == [1, 2, 3]
    assert kept(top_p=1.0) == [1, 2, 3, 4]
    halved = restricted_logits(logits, Restriction(temperature=2.0))
    np.testing.assert_allclose(halved[0, 1:], logits[0, 1:] / 2)


def test_keys_hold_all_bits():
    assert key_data(0x0123456789ABCDEF) == (0x01234567, 0x89ABCDEF)
