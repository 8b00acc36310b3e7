"""Decoding with a KV cache, all inside one jit-able function: greedy, or by any choice of tokens.

Shape suffixes: B batch, L encoder length, T decode length, V vocab_size, S shards of the batch,
R rows of a shard.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax import lax

from ait_jax.models.checkpoints.layouts import layers_apart, match_layout
from ait_jax.models.interface import Model, changed
from ait_jax.models.likelihood import PAD_ID, logits_of
from ait_jax.models.parameters import output_layer
from ait_jax.models.t5 import Params

# Finished rows are dropped when at most a quarter of the rows is left: a row is then carried
# along for at most four times the work it needs, and few programs are compiled.
_COMPACTION = 4


# (logits float32 (B, V), keys of the rows, step) -> (tokens int32 (B,), their logits (B,)).
Choose = Callable[[jax.Array, jax.Array | None, jax.Array], tuple[jax.Array, jax.Array]]


class Decoded(NamedTuple):
    """Answers.

    Attributes:
        tokens: int32 (B, T), end-of-sequence included, padded with 0 behind it.
        log_likelihood: float32 (B,), mean over the `lengths` tokens.
        ended_log_likelihood: float32 (B,), the same with end-of-sequence in place of the last
            token: the answer as teacher forcing reads it, also where it was cut.
        lengths: int32 (B,), tokens including end-of-sequence.
        finished: bool (B,), False where T tokens came without end-of-sequence.
    """

    tokens: jax.Array
    log_likelihood: jax.Array
    ended_log_likelihood: jax.Array
    lengths: jax.Array
    finished: jax.Array


class _Rows(NamedTuple):
    """What is known of every row, arrays with B first; `ended_sum_B` if it ended here."""

    tokens_BxT: jax.Array
    sum_B: jax.Array
    ended_sum_B: jax.Array
    done_B: jax.Array


class _State(NamedTuple):
    step: jax.Array
    last_token_Bx1: jax.Array
    rows: _Rows
    cache: Any


class Stage(NamedTuple):
    """Rows that are decoded together, and what does not change while they are.

    Attributes:
        keys: what `Choose` draws with, arrays with B first; None where nothing is drawn.
    """

    encoder_tokens_BxL: jax.Array
    encoded: Any
    cross_cache: Any
    keys: jax.Array | None = None


def greedy_decode(
    model: Model,
    params: Params,
    encoder_tokens_BxL: jax.Array,
    max_decode_length: int,
    eos_id: int = 1,
    *,
    compact: bool = True,
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
        model, max_decode_length, eos_id, compact, unroll_layers: static under jit.
        encoder_tokens_BxL: int, 0 is padding.
        max_decode_length: T, at least 1.
        compact: False carries all rows to the end (the plain form).
        unroll_layers: take the steps layer by layer even of a model with `scan_layers`: its
            stacked caches are then no longer copied at every step, for a longer compilation.

    Raises:
        ValueError: `max_decode_length` below 1.
    """
    prompts = encode_prompts(model, params, encoder_tokens_BxL, max_decode_length, unroll_layers)
    return decode(
        *prompts,
        max_decode_length=max_decode_length,
        eos_id=eos_id,
        choose=_largest,
        compact=compact,
    )


class Prompts(NamedTuple):
    """Encoded prompts, ready for `decode`: the model and parameters that go on with them, too."""

    model: Model
    params: Params
    stage: Stage
    cache: Any


def encode_prompts(
    model: Model,
    params: Params,
    encoder_tokens_BxL: jax.Array,
    max_decode_length: int,
    unroll_layers: bool = False,
) -> Prompts:
    """Encodes prompts and makes their caches. Arguments and errors as of `greedy_decode`."""
    if max_decode_length < 1:
        raise ValueError(f"max_decode_length is {max_decode_length}; needed: at least 1.")
    encoded = model.apply(
        {"params": params}, encoder_tokens_BxL, enable_dropout=False, method="encode"
    )
    if unroll_layers:
        model = changed(model, scan_layers=False)
        params = match_layout(params, scan_layers=False)
        encoded = layers_apart(encoded)
    cache, cross_cache = _empty_cache(model, params, encoded, encoder_tokens_BxL, max_decode_length)
    return Prompts(model, params, Stage(encoder_tokens_BxL, encoded, cross_cache), cache)


def decode(
    model: Model,
    params: Params,
    stage: Stage,
    cache: Any,
    *,
    max_decode_length: int,
    eos_id: int,
    choose: Choose,
    compact: bool = True,
) -> Decoded:
    """Returns the tokens that `choose` takes, step by step; see `greedy_decode`.

    Args:
        model, params, stage, cache: from `encode_prompts`.
        choose: sees every row's logits, its keys and the number of the step.
    """
    batch = stage.encoder_tokens_BxL.shape[0]
    shards = jax.sharding.get_abstract_mesh().shape.get("data", 1)
    shards = shards if batch % shards == 0 else 1
    is_filler_B = jnp.all(stage.encoder_tokens_BxL == PAD_ID, axis=-1)
    rows = _Rows(
        tokens_BxT=jnp.full((batch, max_decode_length), PAD_ID, jnp.int32),
        sum_B=jnp.zeros((batch,), jnp.float32),
        ended_sum_B=jnp.zeros((batch,), jnp.float32),
        done_B=is_filler_B,
    )
    first_token_Bx1 = jnp.full((batch, 1), PAD_ID, jnp.int32)
    state = _State(jnp.zeros((), jnp.int32), first_token_Bx1, rows, cache)

    result = rows
    places_SxR = jnp.broadcast_to(jnp.arange(batch // shards), (shards, batch // shards))
    for size, next_size in _stage_sizes(batch // shards, compact):
        if size < places_SxR.shape[1]:
            kept_SxR = jnp.argsort(state.rows.done_B.reshape(shards, -1), axis=1)[:, :size]
            places_SxR = jnp.take_along_axis(places_SxR, kept_SxR, axis=1)
            stage, state = _gather_rows((stage, state), kept_SxR)
        step = _step_function(model, params, stage, max_decode_length, eos_id, choose)

        def goes_on(state: _State, next_size=next_size) -> jax.Array:
            active_S = jnp.sum(~state.rows.done_B.reshape(shards, -1), axis=1)
            return (state.step < max_decode_length) & (jnp.max(active_S) > next_size)

        state = lax.while_loop(goes_on, step, state)
        result = _scatter_rows(result, state.rows, places_SxR)
    return _decoded(result, is_filler_B, eos_id)


def _largest(logits_BxV: jax.Array, keys: Any, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    del keys, step
    # The largest logit is the chosen one: it needs no gather.
    return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32), jnp.max(logits_BxV, axis=-1)


def _stage_sizes(rows: int, compact: bool) -> list[tuple[int, int]]:
    """Returns (rows of a stage, at how many unfinished rows it ends): (32, 8), (8, 2), (2, 0)."""
    sizes = [rows]
    while compact and sizes[-1] >= _COMPACTION:
        sizes.append(sizes[-1] // _COMPACTION)
    return list(zip(sizes, [*sizes[1:], 0]))


def _step_function(
    model: Model,
    params: Params,
    stage: Stage,
    max_decode_length: int,
    eos_id: int,
    choose: Choose,
) -> Callable[[_State], _State]:
    output = output_layer(model.config, params)

    def step(state: _State) -> _State:
        hidden_Bx1xE, updated = model.apply(
            {"params": params, "cache": state.cache, "cross_cache": stage.cross_cache},
            stage.encoded,
            stage.encoder_tokens_BxL,
            state.last_token_Bx1,
            state.last_token_Bx1,
            enable_dropout=False,
            decode=True,
            max_decode_length=max_decode_length,
            return_hidden=True,
            mutable=["cache"],
            method="decode",
        )
        logits_BxV = logits_of(hidden_Bx1xE[:, 0], output)
        token_B, chosen_B = choose(logits_BxV, stage.keys, state.step)
        log_z_B = jax.nn.logsumexp(logits_BxV, axis=-1)
        rows = state.rows
        token_B = jnp.where(rows.done_B, PAD_ID, token_B)
        return _State(
            step=state.step + 1,
            last_token_Bx1=token_B[:, None],
            rows=_Rows(
                tokens_BxT=lax.dynamic_update_slice_in_dim(
                    rows.tokens_BxT, token_B[:, None], state.step, axis=1
                ),
                sum_B=rows.sum_B + jnp.where(rows.done_B, 0.0, chosen_B - log_z_B),
                ended_sum_B=jnp.where(
                    rows.done_B, rows.ended_sum_B, rows.sum_B + logits_BxV[:, eos_id] - log_z_B
                ),
                done_B=rows.done_B | (token_B == eos_id),
            ),
            cache=updated["cache"],
        )

    return step


def _gather_rows(tree: Any, kept_SxR: jax.Array) -> Any:
    """Keeps the given rows of every shard in all arrays; scalars stay as they are."""
    shards, size = kept_SxR.shape

    def gather(path: Any, leaf: jax.Array) -> jax.Array:
        axis = batch_axis(path, leaf)
        if axis is None:
            return leaf
        shape = leaf.shape
        by_shard = leaf.reshape(*shape[:axis], shards, -1, *shape[axis + 1 :])
        taken = jax.vmap(lambda rows, kept: jnp.take(rows, kept, axis=axis), (axis, 0), axis)(
            by_shard, kept_SxR
        )
        return taken.reshape(*shape[:axis], shards * size, *shape[axis + 1 :])

    return jax.tree_util.tree_map_with_path(gather, tree)


def batch_axis(path: Any, leaf: jax.Array) -> int | None:
    """Returns where an array has B: behind the layers in caches that are stacked (scan_layers)."""
    keys = [getattr(entry, "key", None) for entry in path]
    if leaf.ndim == 0 or keys[-1:] == ["cache_index"]:
        return None
    return 1 if "layers" in keys else 0


def repeat_rows(tree: Any, times: int) -> Any:
    """Returns every row of all arrays `times` times, side by side; scalars stay as they are."""

    def repeat(path: Any, leaf: jax.Array) -> jax.Array:
        axis = batch_axis(path, leaf)
        return leaf if axis is None else jnp.repeat(leaf, times, axis=axis)

    return jax.tree_util.tree_map_with_path(repeat, tree)


def _scatter_rows(everything: _Rows, rows: _Rows, places_SxR: jax.Array) -> _Rows:
    """Writes the rows of a stage to their places in the whole batch."""
    shards = places_SxR.shape[0]

    def scatter(whole: jax.Array, part: jax.Array) -> jax.Array:
        written = jax.vmap(lambda to, at, values: to.at[at].set(values))(
            whole.reshape(shards, -1, *whole.shape[1:]),
            places_SxR,
            part.reshape(shards, -1, *part.shape[1:]),
        )
        return written.reshape(whole.shape)

    return jax.tree.map(scatter, everything, rows)


def _empty_cache(
    model: Model,
    params: Params,
    encoded: Any,
    encoder_tokens_BxL: jax.Array,
    max_decode_length: int,
) -> tuple[Any, Any]:
    """Returns the empty self-attention cache and the filled cross-attention one, if there is any.

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
        return_hidden=True,
        mutable=["cache", "cross_cache"],
        method="decode",
    )
    variables = flax.core.unfreeze(variables)
    return variables["cache"], variables.get("cross_cache", {})


def _decoded(rows: _Rows, is_filler_B: jax.Array, eos_id: int) -> Decoded:
    is_eos_BxT = rows.tokens_BxT == eos_id
    finished_B = jnp.any(is_eos_BxT, axis=-1) | is_filler_B
    first_eos_B = jnp.argmax(is_eos_BxT, axis=-1)
    # Not a count of non-zero tokens: a model may well predict token 0 before the end.
    lengths_B = jnp.where(finished_B, first_eos_B + 1, rows.tokens_BxT.shape[1])
    lengths_B = jnp.where(is_filler_B, 0, lengths_B).astype(jnp.int32)
    return Decoded(
        tokens=rows.tokens_BxT,
        log_likelihood=rows.sum_B / jnp.maximum(lengths_B, 1),
        ended_log_likelihood=rows.ended_sum_B / jnp.maximum(lengths_B, 1),
        lengths=lengths_B,
        finished=finished_B,
    )
