"""Slots of an encoder-decoder model against the plain form, prompt by prompt."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ait_jax.models import decoding, parameters, slots, t5
from ait_jax.models.prompt_slots import PromptModel

CONFIG = t5.T5Config(
    vocab_size=96,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    mlp_activations=("gelu", "linear"),
    scan_layers=True,
)
LENGTH, LONGEST, EOS_ID = 6, 9, 1


@pytest.fixture(scope="module")
def params():
    params = parameters.init_params(t5.Transformer(CONFIG), 1)[0]
    # Larger than initial values: answers differ, and position biases matter.
    params = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, params)
    params["decoder"]["logits_dense"]["kernel"] *= jnp.ones(96).at[EOS_ID].set(2.0)
    return params


@pytest.fixture(scope="module")
def prompts():
    tokens = np.random.default_rng(0).integers(2, 96, (9, LONGEST)).astype(np.int32)
    for row, length in enumerate((9, 2, 5, 9, 1, 7, 3, 8, 4)):
        tokens[row, length:] = 0
    return tokens


@pytest.fixture(scope="module")
def plain(params, prompts):
    model = t5.Transformer(CONFIG)
    decoded = jax.jit(lambda x: decoding.greedy_decode(model, params, x, LENGTH))(prompts)
    lengths = set(decoded.lengths.tolist())
    assert len(lengths) > 2 and LENGTH in lengths and not np.all(decoded.finished)
    return jax.tree.map(np.asarray, decoded)


def check(rows, expected, expected_row):
    tokens, count, total, ended, done = (np.asarray(x) for x in rows)
    assert done and count == expected.lengths[expected_row]
    np.testing.assert_array_equal(tokens, expected.tokens[expected_row])
    real = np.sum(tokens != 0)
    np.testing.assert_allclose(total / real, expected.log_likelihood[expected_row], atol=1e-5)
    of_ended = expected.ended_log_likelihood[expected_row]
    np.testing.assert_allclose(ended / count, of_ended, atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_rows_that_begin_at_any_step_answer_as_by_themselves(params, prompts, plain, apart):
    """Three slots, each refilled as it empties: the ring goes round several times."""
    model = PromptModel(t5.Transformer(CONFIG), apart)
    step_params = model.step_params(params)
    begin = jax.jit(model.begin, static_argnames="lengths")
    fill = jax.jit(slots.fill)
    run = jax.jit(partial(slots.run, model, eos_id=EOS_ID), static_argnames="num_slots")
    state = slots.empty(model, params, (3, LONGEST, 1, 0), LENGTH)
    waiting, at_work, steps = list(range(len(prompts))), {}, []
    while waiting or at_work:
        for slot in range(3):
            if slot not in at_work and waiting:
                at_work[slot] = waiting.pop()
                # As short as it is, beside what an earlier prompt has left behind.
                length = np.count_nonzero(prompts[at_work[slot]])
                tokens = prompts[at_work[slot] : at_work[slot] + 1, :length]
                state = fill(state, begin(params, tokens, lengths=(LONGEST, 0)), np.array([slot]))
        state = run(step_params, state, 1 if waiting else 3, num_slots=3)
        steps.append(int(state.step))
        for slot in [slot for slot in at_work if state.rows.done_B[slot]]:
            check([x[slot] for x in state.rows], plain, at_work.pop(slot))
    assert len(set(steps)) > 4 and steps[-1] > 2 * LENGTH


def test_chosen_slots_go_on(params, prompts, plain):
    model = PromptModel(t5.Transformer(CONFIG), False)
    state = slots.empty(model, params, (4, LONGEST, 1, 0), LENGTH)
    begin = partial(jax.jit(model.begin, static_argnames="lengths"), lengths=(LONGEST, 0))
    state = slots.fill(state, begin(params, prompts[:4]), np.arange(4))
    run = jax.jit(partial(slots.run, model, eos_id=EOS_ID), static_argnames="num_slots")
    state = run(params, state, 1, num_slots=4)
    left = np.flatnonzero(~np.asarray(state.rows.done_B))
    assert 0 < len(left) < 4
    state = slots.chosen(state, left, num_slots=4)
    state = run(params, state, len(left), num_slots=len(left))
    for slot, row in enumerate(left.tolist()):
        check([x[slot] for x in state.rows], plain, row)
