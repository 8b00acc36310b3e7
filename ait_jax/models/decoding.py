"""Decoding with a KV cache, all inside one jit-able function: greedy, or by any choice of tokens.

Shape suffixes: B batch, L encoder length, T decode length, V vocab_size, S shards of the batch,
R rows of a shard.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import core
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ait_jax.models.interface import Model, Params, Tokens, changed
from ait_jax.models.likelihood import PAD_ID, logits_of
from ait_jax.models.parameters import layers_apart, match_layout

# Finished rows are dropped when at most a quarter of the rows is left: a row is then carried
# along for at most four times the work it needs, and few programs are compiled.
_COMPACTION = 4


# (logits float32 (B, V), keys of the rows, step) -> (tokens int32 (B,), their logits (B,)).
Choose = Callable[[Array, Any, Array], tuple[Array, Array]]


class Decoded(NamedTuple):
    """Answers.

    Attributes:
        tokens: end-of-sequence included, padded with 0 behind it.
        log_likelihood: float32, mean over the tokens but padding, which a model may choose.
        ended_log_likelihood: mean over the `lengths` tokens with end-of-sequence in place of the
            last: the answer as teacher forcing reads it, also where it was cut.
        lengths: tokens including end-of-sequence.
        finished: False where T tokens came without end-of-sequence.
    """

    tokens: Int[Array, "B T"]
    log_likelihood: Float[Array, " B"]
    ended_log_likelihood: Float[Array, " B"]
    lengths: Int[Array, " B"]
    finished: Bool[Array, " B"]


class Rows(NamedTuple):
    """Answers so far: tokens, how many there are, sums of log p, whether a row is done.

    Padding that was chosen counts as a token and adds nothing to a sum. `ended_sum_B` has
    end-of-sequence in place of the last token.
    """

    tokens_BxT: Int[Array, "B T"]
    count_B: Int[Array, " B"]
    sum_B: Float[Array, " B"]
    ended_sum_B: Float[Array, " B"]
    done_B: Bool[Array, " B"]


def no_answers(done_B: Array, length: int) -> Rows:
    """Returns rows with room for `length` tokens; those of padding alone are done."""
    sum_B = jnp.zeros(done_B.shape, jnp.float32)
    tokens_BxT = jnp.full((*done_B.shape, length), PAD_ID, jnp.int32)
    return Rows(tokens_BxT, jnp.zeros(done_B.shape, jnp.int32), sum_B, sum_B, done_B)


def with_next(
    rows: Rows, logits_BxV: Array, chosen: tuple[Array, Array], eos_id: int
) -> tuple[Rows, Array]:
    """Returns rows with one token more where they are not done, and these tokens, (B, 1).

    Args:
        chosen: as of `Choose`.
    """
    done_B, (token_B, logit_B) = rows.done_B, chosen
    log_z_B = jax.nn.logsumexp(logits_BxV, axis=-1)
    token_B = jnp.where(done_B, PAD_ID, token_B)
    places_T = jnp.arange(rows.tokens_BxT.shape[1])
    is_next_BxT = (places_T == rows.count_B[:, None]) & ~done_B[:, None]
    ended_sum_B = rows.sum_B + logits_BxV[:, eos_id] - log_z_B
    adds_B = ~done_B & (token_B != PAD_ID)
    rows = Rows(
        jnp.where(is_next_BxT, token_B[:, None], rows.tokens_BxT),
        rows.count_B + ~done_B,
        rows.sum_B + jnp.where(adds_B, logit_B - log_z_B, 0.0),
        jnp.where(done_B, rows.ended_sum_B, ended_sum_B),
        done_B | (token_B == eos_id),
    )
    return rows, token_B[:, None]


class _State(NamedTuple):
    step: Array
    last_token_Bx1: Array
    rows: Rows
    cache: Any


class Encoded(NamedTuple):
    """Encoded prompts, whose rows are decoded together.

    Attributes:
        encoder_tokens_BxL: the prompts.
        encoded: of `Model.encode`.
        cross_cache: cross-attention's keys and values, if there are any.
        keys: what `Choose` draws with, arrays with B first; None where nothing is drawn.
    """

    encoder_tokens_BxL: Tokens
    encoded: Any
    cross_cache: Any
    keys: Array | None = None


class Prompts(NamedTuple):
    """Encoded prompts, ready for `decode`, with the model and parameters that continue them."""

    model: Model
    params: Params
    encoded: Encoded
    cache: Any


def greedy_decode(
    model: Model,
    params: Params,
    encoder_tokens_BxL: Tokens,
    max_decode_length: int,
    eos_id: int = 1,
    *,
    unroll_layers: bool = False,
) -> Decoded:
    """Returns the most likely token at every step until end-of-sequence.

    Stops when all rows have finished. Prompts are encoded, and their cross-attention keys and
    values computed, once. Whenever three quarters of the rows have finished, the others are
    gathered and go on by themselves: most answers have a few tokens, and one of a hundred
    must not keep its whole batch. Rows stay in their shard of the mesh's 'data' axis.

    A row of padding alone (a filler) is finished from the start: no tokens, length 0,
    log-likelihood 0. Of equally likely tokens the smallest id is taken. A row cut at
    `max_decode_length` has no end-of-sequence; the paper's p_i0 is its `ended_log_likelihood`.

    Args:
        model, max_decode_length, eos_id, unroll_layers: static under jit.
        encoder_tokens_BxL: 0 is padding.
        max_decode_length: T, at least 1.
        unroll_layers: take the steps layer by layer even of a model with `scan_layers`: its
            stacked caches are then no longer copied at every step, for a longer compilation.

    Raises:
        ValueError: `max_decode_length` below 1.
    """
    prompts = encode_prompts(model, params, encoder_tokens_BxL, max_decode_length, unroll_layers)
    return decode(prompts, max_decode_length, eos_id, largest)


def encode_prompts(
    model: Model,
    params: Params,
    encoder_tokens_BxL: Tokens,
    max_decode_length: int,
    unroll_layers: bool = False,
) -> Prompts:
    """Encodes prompts and makes their caches. Arguments and errors as of `greedy_decode`."""
    if max_decode_length < 1:
        raise ValueError(f"max_decode_length is {max_decode_length}; it must be at least 1.")
    encoded = model.apply(
        {"params": params}, encoder_tokens_BxL, enable_dropout=False, method="encode"
    )
    if unroll_layers:
        model = changed(model, scan_layers=False)
        params = match_layout(params, scan_layers=False)
        encoded = layers_apart(encoded)
    # This first call runs over all T positions, but nothing of what it computes is used beyond
    # shapes and the cross-attention's projections; under jit the rest is dropped.
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
        return_hidden=True,
        mutable=["cache", "cross_cache"],
        method="decode",
    )
    variables = core.unfreeze(variables)
    cross_cache = variables.get("cross_cache", {})
    rows = Encoded(encoder_tokens_BxL, encoded, cross_cache)
    return Prompts(model, params, rows, variables["cache"])


def decode(prompts: Prompts, max_decode_length: int, eos_id: int, choose: Choose) -> Decoded:
    """Returns the tokens that `choose` takes, step by step; see `greedy_decode`."""
    encoded, batch = prompts.encoded, prompts.encoded.encoder_tokens_BxL.shape[0]
    shards = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    shards = shards if batch % shards == 0 else 1
    is_filler_B = jnp.all(encoded.encoder_tokens_BxL == PAD_ID, axis=-1)
    rows = no_answers(is_filler_B, max_decode_length)
    first_token_Bx1 = jnp.full((batch, 1), PAD_ID, jnp.int32)
    state = _State(jnp.zeros((), jnp.int32), first_token_Bx1, rows, prompts.cache)

    result = rows
    places_SxR = jnp.broadcast_to(jnp.arange(batch // shards), (shards, batch // shards))
    for size, next_size in _row_counts(batch // shards):
        if size < places_SxR.shape[1]:
            kept_SxR = jnp.argsort(state.rows.done_B.reshape(shards, -1), axis=1)[:, :size]
            places_SxR = jnp.take_along_axis(places_SxR, kept_SxR, axis=1)
            encoded, state = _gather_rows((encoded, state), kept_SxR)

        def goes_on(state: _State, next_size: int = next_size) -> Array:
            active_S = jnp.sum(~state.rows.done_B.reshape(shards, -1), axis=1)
            return (state.step < max_decode_length) & (jnp.max(active_S) > next_size)

        now = prompts._replace(encoded=encoded)
        step = partial(_step, now, max_decode_length, eos_id, choose)
        state = lax.while_loop(goes_on, step, state)
        result = _scatter_rows(result, state.rows, places_SxR)
    num_real_B = jnp.sum(result.tokens_BxT != PAD_ID, axis=1)
    return Decoded(
        tokens=result.tokens_BxT,
        log_likelihood=result.sum_B / jnp.maximum(num_real_B, 1),
        ended_log_likelihood=result.ended_sum_B / jnp.maximum(result.count_B, 1),
        lengths=result.count_B,
        finished=result.done_B,
    )


def largest(logits_BxV: Array, keys: Any = None, step: Any = None) -> tuple[Array, Array]:
    """Chooses the most likely tokens; their logits need no gather."""
    del keys, step
    return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32), jnp.max(logits_BxV, axis=-1)


def _row_counts(rows: int) -> list[tuple[int, int]]:
    """Returns (rows, unfinished rows at which to compact) of each pass: (32, 8), (8, 2), (2, 0)."""
    counts = [rows]
    while counts[-1] >= _COMPACTION:
        counts.append(counts[-1] // _COMPACTION)
    return list(itertools.pairwise([*counts, 0]))


def _step(
    prompts: Prompts, max_decode_length: int, eos_id: int, choose: Choose, state: _State
) -> _State:
    model, params, encoded, _ = prompts
    hidden_Bx1xE, updated = model.apply(
        {"params": params, "cache": state.cache, "cross_cache": encoded.cross_cache},
        encoded.encoded,
        encoded.encoder_tokens_BxL,
        state.last_token_Bx1,
        state.last_token_Bx1,
        enable_dropout=False,
        decode=True,
        max_decode_length=max_decode_length,
        return_hidden=True,
        mutable=["cache"],
        method="decode",
    )
    logits_BxV = logits_of(hidden_Bx1xE[:, 0], model.config.output_layer(params))
    chosen = choose(logits_BxV, encoded.keys, state.step)
    rows, token_Bx1 = with_next(state.rows, logits_BxV, chosen, eos_id)
    return _State(state.step + 1, token_Bx1, rows, updated["cache"])


def _gather_rows(tree: Any, kept_SxR: Array) -> Any:
    """Keeps the given rows of every shard in all arrays; scalars stay as they are."""
    shards, size = kept_SxR.shape

    def gather(axis: int, leaf: Array) -> Array:
        shape = leaf.shape
        by_shard = leaf.reshape(*shape[:axis], shards, -1, *shape[axis + 1 :])
        taken = jax.vmap(lambda rows, kept: jnp.take(rows, kept, axis=axis), (axis, 0), axis)(
            by_shard, kept_SxR
        )
        return taken.reshape(*shape[:axis], shards * size, *shape[axis + 1 :])

    return map_rows(gather, tree)


def map_rows(function: Callable[..., Array], tree: Any, *others: Any) -> Any:
    """Applies a function of (the axis that is B, arrays) to all arrays of trees; scalars stay.

    B comes behind the layers in caches that are stacked (scan_layers).
    """

    def apply(path: Any, leaf: Array, *more: Array) -> Array:
        keys = [getattr(entry, "key", None) for entry in path]
        if leaf.ndim == 0 or keys[-1:] == ["cache_index"]:
            return leaf
        return function(1 if "layers" in keys else 0, leaf, *more)

    return jax.tree_util.tree_map_with_path(apply, tree, *others)


def repeat_rows(tree: Any, times: int) -> Any:
    """Returns every row of all arrays `times` times, side by side; scalars stay as they are."""
    return map_rows(lambda axis, leaf: jnp.repeat(leaf, times, axis=axis), tree)


def _scatter_rows(everything: Rows, rows: Rows, places_SxR: Array) -> Rows:
    """Writes rows to their places in the whole batch."""
    shards = places_SxR.shape[0]

    def scatter(whole: Array, part: Array) -> Array:
        written = jax.vmap(lambda to, at, values: to.at[at].set(values))(
            whole.reshape(shards, -1, *whole.shape[1:]),
            places_SxR,
            part.reshape(shards, -1, *part.shape[1:]),
        )
        return written.reshape(whole.shape)

    return jax.tree.map(scatter, everything, rows)
