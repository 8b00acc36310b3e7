"""Answers from slots that are filled anew against the plain form."""

import numpy as np
import pytest
from tiny_llama import config_of, random_params
from tiny_training import OnDevices

from ait_jax import randomness
from ait_jax.models.llama import LlamaTransformer
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import continuous
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.slot_pools import SlotPool

BUCKETS = LengthBuckets(inputs=(64,), targets=(12,))


def draw(length, *key):
    return [randomness.integer(2, 300, *key, i) for i in range(length)]


@pytest.mark.parametrize(("num_partitions", "tokens_per_batch"), [(8, 64), (4, 512)])
def test_answers_are_those_of_the_plain_form(num_partitions, tokens_per_batch, monkeypatch):
    """More groups than slots, of one or four rows, some of which never end."""
    monkeypatch.setattr(continuous, "_LEAST_ON_CPU", 0)
    prompts = [
        draw(18 + task, "instruction", task)
        + draw(randomness.integer(1, 13, "length", task, i), "instance", task, i)
        for task, instances in enumerate((4, 1, 4, 4, 1, 4))
        for i in range(instances)
    ]
    config = config_of(num_layers=1, num_heads=8, num_kv_heads=8 if num_partitions == 8 else 2)
    model, params = LlamaTransformer(config), random_params(config, 3)
    # Its logit is spread wider than others': ends come often, and at different steps.
    params["decoder"]["token_embedder"]["embedding"][1] *= 3
    found, work = {}, {}
    for share in (True, False):
        engine = Engine(
            model, Partitioner(num_partitions), BUCKETS, tokens_per_batch, 2.0,
            share_prefixes=share, in_slots=share,
        )  # fmt: skip
        found[share] = engine.decode(engine.place(params), prompts)
        work[share] = engine.work
    plain = found[False]
    lengths = set(map(len, plain.tokens))
    assert len(lengths) > 2 and max(lengths) == BUCKETS.max_target_length, "some never end"
    assert found[True].tokens == plain.tokens
    np.testing.assert_allclose(found[True].log_likelihoods, plain.log_likelihoods, atol=1e-5)
    np.testing.assert_allclose(found[True].generated, plain.generated, atol=1e-5)
    assert work[True].flops < work[False].flops and work[True].shared_tokens > 0


def test_prefixes_are_not_padded_beyond_their_slots():
    """The lengths that prompts are padded to lie closer together than those of slots."""
    prompts = [draw(245, "instruction") + draw(5, "instance", i) for i in range(2)]
    config = config_of(num_layers=1)
    params = random_params(config, 3)
    found = {}
    for share in (True, False):
        engine = Engine(
            LlamaTransformer(config), Partitioner(), LengthBuckets((320,), (4,)), 512,
            share_prefixes=share, in_slots=share,
        )  # fmt: skip
        found[share] = engine.decode(engine.place(params), prompts).tokens
    assert found[True] == found[False]


@pytest.fixture(scope="module")
def t5():
    """A model, its parameters, prompts of unlike lengths and their answers in batches."""
    config = T5Config(
        vocab_size=96, emb_dim=32, num_heads=4, num_encoder_layers=1, num_decoder_layers=1,
        head_dim=8, mlp_dim=64, mlp_activations=("gelu", "linear"),
    )  # fmt: skip
    model, (params, _) = Transformer(config), init_params(Transformer(config), 5)
    kernel = params["decoder"]["logits_dense"]["kernel"]
    params["decoder"]["logits_dense"]["kernel"] = 2 * kernel.at[:, 1].multiply(2)
    lengths = (4, 59, 22, 31, 5, 17, 40, 9)
    prompts = [[token % 94 + 2 for token in draw(lengths[i % 8], "t5", i)] for i in range(21)]
    engine = Engine(model, Partitioner(), BUCKETS, 1024, 2.0, in_slots=False)
    plain = engine.decode(engine.place(params), prompts)
    found = set(map(len, plain.tokens))
    assert len(found) > 3 and max(found) == BUCKETS.max_target_length, "some never end"
    return model, params, prompts, plain


def check_answers(found, plain):
    assert found.tokens == plain.tokens
    np.testing.assert_allclose(found.log_likelihoods, plain.log_likelihoods, atol=1e-5)
    np.testing.assert_allclose(found.generated, plain.generated, atol=1e-5)


@pytest.mark.parametrize(("num_partitions", "tokens_per_batch"), [(4, 128), (1, 512)])
def test_t5_answers_are_those_of_batches(t5, monkeypatch, num_partitions, tokens_per_batch):
    """More prompts than slots; the same bits again, and the same answers in another order."""
    monkeypatch.setattr(continuous, "_LEAST_ON_CPU", 0)
    model, params, prompts, plain = t5
    engine = Engine(model, Partitioner(num_partitions), BUCKETS, tokens_per_batch, 2.0)
    placed = engine.place(params)
    found, again = (engine.decode(placed, prompts) for _ in range(2))
    check_answers(found, plain)
    assert again.tokens == found.tokens
    np.testing.assert_array_equal(again.log_likelihoods, found.log_likelihoods)
    np.testing.assert_array_equal(again.generated, found.generated)
    other = engine.decode(placed, prompts[::-1])
    check_answers(other, plain._replace(
        tokens=plain.tokens[::-1], log_likelihoods=plain.log_likelihoods[::-1],
        generated=plain.generated[::-1],
    ))  # fmt: skip
    assert not engine._programs._futures, "no batch was decoded"


def test_prompts_with_slots_of_their_own_end_in_fewer_slots(t5, monkeypatch):
    """Nothing waits: those that never end go on without the others."""
    model, params, prompts, plain = t5
    longest = BUCKETS.max_target_length
    endless = [row for row, tokens in enumerate(plain.tokens) if len(tokens) == longest]
    rows = [row for row in range(len(prompts)) if row not in endless[1:]]
    engine = Engine(model, OnDevices(), BUCKETS)
    monkeypatch.setattr(continuous, "pooled", lambda shapes, groups, budget: [
        SlotPool(max(shapes), tuple(groups))
    ])  # fmt: skip
    sizes, run = [], engine._decoder._run
    engine._decoder._run = lambda *args, num_slots: (
        sizes.append(num_slots) or run(*args, num_slots=num_slots)
    )
    found = engine.decode(engine.place(params), [prompts[row] for row in rows])
    check_answers(found, plain._replace(
        tokens=[plain.tokens[row] for row in rows], log_likelihoods=plain.log_likelihoods[rows],
        generated=plain.generated[rows],
    ))  # fmt: skip
    assert sizes[0] == len(rows) > 8 and sizes[-1] < len(rows) // 2


class Renamed(Transformer):
    """A user's own decoding, which knows no rings."""

    def decode(self, encoded, prompts, inputs, targets, *, enable_dropout=True, decode=False,
               max_decode_length=None, return_hidden=False):  # fmt: skip
        return super().decode(
            encoded, prompts, inputs, targets, enable_dropout=enable_dropout, decode=decode,
            max_decode_length=max_decode_length, return_hidden=return_hidden,
        )  # fmt: skip


def test_a_users_own_decoding_goes_in_batches(t5):
    model, params, prompts, plain = t5
    engine = Engine(Renamed(model.config), OnDevices(), BUCKETS, length_growth=2.0)
    found = engine.decode(engine.place(params), prompts[:3])
    assert found.tokens == plain.tokens[:3] and engine._programs._futures
