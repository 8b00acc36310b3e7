"""Greedy decoding with a KV cache, all inside one jit-able function.

Shape suffixes: B batch, L encoder length, T decode length, V vocab_size.
"""

from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax import lax

from ait_jax.models.likelihood import PAD_ID
from ait_jax.models.t5 import Params, Transformer


class Decoded(NamedTuple):
    """Greedy answers.

    Attributes:
        tokens: int32 (B, T), end-of-sequence included, padded with 0 behind it.
        log_likelihood: float32 (B,), mean over the `lengths` tokens.
        lengths: int32 (B,), tokens including end-of-sequence.
        finished: bool (B,), False where T tokens came without end-of-sequence.
    """

    tokens: jax.Array
    log_likelihood: jax.Array
    lengths: jax.Array
    finished: jax.Array


class _State(NamedTuple):
    step: jax.Array
    last_token_Bx1: jax.Array
    done_B: jax.Array
    tokens_BxT: jax.Array
    sum_B: jax.Array
    cache: Any


def greedy_decode(
    model: Transformer,
    params: Params,
    encoder_tokens_BxL: jax.Array,
    max_decode_length: int,
    eos_id: int = 1,
) -> Decoded:
    """Returns the most likely token at every step until end-of-sequence.

    Stops when all rows have finished. A row of padding alone (a filler) is finished
    from the start: no tokens, length 0, log-likelihood 0. Of equally likely tokens the
    smallest id is taken. A row cut at `max_decode_length` has no end-of-sequence, so its
    log-likelihood is not the one that teacher forcing gives to the answer with
    end-of-sequence appended (the paper's p_i0): score such rows again.

    Args:
        model, max_decode_length, eos_id: static under jit.
        encoder_tokens_BxL: int, 0 is padding.
        max_decode_length: T, at least 1.

    Raises:
        ValueError: `max_decode_length` below 1.
    """
    if max_decode_length < 1:
        raise ValueError(f"max_decode_length is {max_decode_length}; needed: at least 1.")
    batch = encoder_tokens_BxL.shape[0]
    encoded = model.apply(
        {"params": params}, encoder_tokens_BxL, enable_dropout=False, method=Transformer.encode
    )
    cache, cross_cache = _empty_cache(model, params, encoded, encoder_tokens_BxL, max_decode_length)

    def step(state: _State) -> _State:
        logits_Bx1xV, updated = model.apply(
            {"params": params, "cache": state.cache, "cross_cache": cross_cache},
            encoded,
            encoder_tokens_BxL,
            state.last_token_Bx1,
            state.last_token_Bx1,
            enable_dropout=False,
            decode=True,
            max_decode_length=max_decode_length,
            mutable=["cache"],
            method=Transformer.decode,
        )
        logits_BxV = logits_Bx1xV[:, 0].astype(jnp.float32)
        token_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
        # The largest logit is the chosen one: its log-probability needs no gather.
        log_p_B = jnp.max(logits_BxV, axis=-1) - jax.nn.logsumexp(logits_BxV, axis=-1)
        token_B = jnp.where(state.done_B, PAD_ID, token_B)
        return _State(
            step=state.step + 1,
            last_token_Bx1=token_B[:, None],
            done_B=state.done_B | (token_B == eos_id),
            tokens_BxT=lax.dynamic_update_slice_in_dim(
                state.tokens_BxT, token_B[:, None], state.step, axis=1
            ),
            sum_B=state.sum_B + jnp.where(state.done_B, 0.0, log_p_B),
            cache=updated["cache"],
        )

    is_filler_B = jnp.all(encoder_tokens_BxL == PAD_ID, axis=-1)
    state = lax.while_loop(
        lambda state: (state.step < max_decode_length) & ~jnp.all(state.done_B),
        step,
        _State(
            step=jnp.zeros((), jnp.int32),
            last_token_Bx1=jnp.full((batch, 1), PAD_ID, jnp.int32),
            done_B=is_filler_B,
            tokens_BxT=jnp.full((batch, max_decode_length), PAD_ID, jnp.int32),
            sum_B=jnp.zeros((batch,), jnp.float32),
            cache=cache,
        ),
    )
    return _decoded(state, is_filler_B, eos_id)


def _empty_cache(
    model: Transformer,
    params: Params,
    encoded: jax.Array,
    encoder_tokens_BxL: jax.Array,
    max_decode_length: int,
) -> tuple[Any, Any]:
    """Returns the empty self-attention cache and the filled cross-attention one.

    This first call runs over all T positions, but nothing of what it computes is used
    beyond shapes and the cross-attention's projections; under jit the rest is dropped.
    """
    tokens_BxT = jnp.ones((encoder_tokens_BxL.shape[0], max_decode_length), jnp.int32)
    _, variables = model.apply(
        {"params": params},
        encoded,
        encoder_tokens_BxL,
        tokens_BxT,
        tokens_BxT,
        enable_dropout=False,
        decode=True,
        max_decode_length=max_decode_length,
        mutable=["cache", "cross_cache"],
        method=Transformer.decode,
    )
    variables = flax.core.unfreeze(variables)
    return variables["cache"], variables["cross_cache"]


def _decoded(state: _State, is_filler_B: jax.Array, eos_id: int) -> Decoded:
    is_eos_BxT = state.tokens_BxT == eos_id
    finished_B = jnp.any(is_eos_BxT, axis=-1) | is_filler_B
    first_eos_B = jnp.argmax(is_eos_BxT, axis=-1)
    # Not a count of non-zero tokens: a model may well predict token 0 before the end.
    lengths_B = jnp.where(finished_B, first_eos_B + 1, state.tokens_BxT.shape[1])
    lengths_B = jnp.where(is_filler_B, 0, lengths_B).astype(jnp.int32)
    return Decoded(
        tokens=state.tokens_BxT,
        log_likelihood=state.sum_B / jnp.maximum(lengths_B, 1),
        lengths=lengths_B,
        finished=finished_B,
    )
