"""Greedy decoding in slots that are refilled as their rows finish (continuous batching).

A slot holds a group of rows behind one prefix, whose keys and values it keeps once. The rows' own
keys and values lie in `own`: the prompt in front, the answer in a ring of T places behind. In a
step all slots write the same place of the ring, wherever in its answer a row is, so that a step
writes one column; `own["real"]` says which columns are a row's.

For models with `extend` (`llama.LlamaTransformer`). `decoding.greedy_decode` is the plain form.

Shapes: G slots, each of P prefix tokens and M rows, B = G * M, S own prompt tokens, T answer
tokens; F slots filled at a time, from R packed rows of Q tokens each, C = F * M.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from ait_jax.models.decoder_only import KeyValues
from ait_jax.models.decoding import Rows, largest, map_rows, no_answers, with_next
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.models.interface import Model, Params, changed
from ait_jax.models.likelihood import PAD_ID, logits_of
from ait_jax.models.parameters import layers_apart


class Slots(NamedTuple):
    """All that a step reads and writes."""

    prefixes: KeyValues
    own: KeyValues
    last_token_Bx1: Array
    rows: Rows
    step: Array


class Packed(NamedTuple):
    """What rows have behind their prefixes, several rows' tokens side by side.

    Attributes:
        tokens_RxQ: int32 (F * R, Q); as many packed rows for every prefix.
        rows_RxQ: whose tokens they are, 1 the first of a packed row and 0 nobody's.
        begins_FxM: where a row's tokens begin in its prefix's packed rows, laid end to end.
        lengths_FxM: how many tokens a row has; 0 is no row.
    """

    tokens_RxQ: Any
    rows_RxQ: Any
    begins_FxM: Any
    lengths_FxM: Any


def prefill(
    model: Model,
    params: Params,
    prefixes_FxP: Int[Array, "F P"],
    packed: Packed,
    *,
    lengths: tuple[int, int],
) -> tuple[KeyValues, KeyValues]:
    """Runs prefixes, and behind each the rest of its M rows' prompts but for their last tokens.

    Args:
        lengths: that the keys and values of prefixes and prompts are padded to, so that prompts of
            all lengths give arrays of one shape.

    Returns:
        The KeyValues of prefixes (F) and rows (F * M).
    """
    extend = partial(model.apply, {"params": params}, method="extend")
    _, prefix = extend(prefixes_FxP)
    _, rows = extend(packed.tokens_RxQ, (prefix,), segments_BxQ=packed.rows_RxQ)
    apart = partial(_unpacked, begins_FxM=packed.begins_FxM, length=lengths[1])
    own = {name: apart(x) for name, x in rows.items() if name.startswith("layers")}
    length_B = jnp.maximum(packed.lengths_FxM.reshape(-1) - 1, 0)
    return _lengthened(prefix, lengths[0]), {"length": length_B, **own}


def _unpacked(packed: KeyValue, begins_FxM: Array, length: int) -> KeyValue:
    """Returns `length` keys and values for each row from where it begins; its own are in front."""
    prefixes = begins_FxM.shape[0]

    def apart(x: Array, axis: int) -> Array:
        """Splits (F * R, K, ...) along its axis of tokens."""
        x = x.reshape(prefixes, -1, *x.shape[1:])
        x = jnp.moveaxis(x, 1, axis)  # a prefix's packed rows one after the other
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
        x = jnp.pad(x, [(0, length if at == axis else 0) for at in range(x.ndim)])
        of_row = partial(lax.dynamic_slice_in_dim, slice_size=length, axis=axis - 1)
        of_prefix = jax.vmap(of_row, in_axes=(None, 0))
        x_FxMx = jax.vmap(of_prefix)(x, begins_FxM)
        return x_FxMx.reshape(-1, *x_FxMx.shape[2:])

    key, value = partial(apart, axis=3), partial(apart, axis=2)
    if packed.key_PxKxDxL.ndim == 5:  # layers stacked
        key, value = jax.vmap(key), jax.vmap(value)
    return KeyValue(key(packed.key_PxKxDxL), value(packed.value_PxKxLxD))


def _lengthened(key_values: KeyValues, length: int) -> KeyValues:
    """Returns the same with room for `length` tokens."""

    def pad(key_value: KeyValue) -> KeyValue:
        key, value = key_value
        behind = (0, length - key.shape[-1])
        none = [(0, 0)] * (key.ndim - 2)
        return KeyValue(
            jnp.pad(key, [*none, (0, 0), behind]), jnp.pad(value, [*none, behind, (0, 0)])
        )

    return {name: pad(x) if name.startswith("layers") else x for name, x in key_values.items()}


def empty(
    model: Model, params: Params, sizes: tuple[int, int, int, int], length: int, apart: bool
) -> Slots:
    """Returns slots without rows.

    Args:
        sizes: (G, P, M, S).
        length: T.
        apart: layers one by one, which suits a CPU's steps.
    """
    slots, prefix_length, members, own_length = sizes
    batch, width = slots * members, own_length + length
    tokens, rows = (jnp.zeros((slots, size), int) for size in (prefix_length, members))

    def filled(params: Params) -> tuple[KeyValues, KeyValues]:
        packed = Packed(rows, rows, rows, rows)
        prefix, own = prefill(model, params, tokens, packed, lengths=(prefix_length, width))
        return (layers_apart(prefix), layers_apart(own)) if apart else (prefix, own)

    shapes = jax.eval_shape(filled, params)
    prefix, own = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Slots(
        prefix,
        {**own, "real": jnp.zeros((batch, width), bool)},
        jnp.zeros((batch, 1), jnp.int32),
        no_answers(jnp.ones((batch,), bool), length),
        jnp.zeros((), jnp.int32),
    )


def fill(
    slots: Slots,
    prefix: KeyValues,
    own: KeyValues,
    prompts_BxS: Array,
    places_F: Array,
    *,
    apart: bool,
) -> Slots:
    """Puts F groups, whose `prefix` and `own` are from `prefill`, into the slots at `places_F`.

    Args:
        prompts_BxS: padded to the length of the slots' own prompts.
        apart: as in `empty`.
    """
    if apart:
        prefix, own = layers_apart(prefix), layers_apart(own)
    length_Bx1 = own["length"][:, None]
    width = slots.own["real"].shape[1]
    new = Slots(
        prefix,
        {**own, "real": jnp.arange(width) < length_Bx1},
        jnp.take_along_axis(prompts_BxS, length_Bx1, axis=1),
        no_answers(jnp.all(prompts_BxS == PAD_ID, axis=1), slots.rows.tokens_BxT.shape[1]),
        slots.step,
    )

    def put(axis: int, old: Array, new: Array) -> Array:
        rows = new.shape[axis] // places_F.shape[0]
        for place in range(places_F.shape[0]):
            begin: list[Any] = [0] * old.ndim
            begin[axis] = places_F[place] * rows
            part = lax.slice_in_dim(new, place * rows, (place + 1) * rows, axis=axis)
            old = lax.dynamic_update_slice(old, part.astype(old.dtype), begin)
        return old

    return map_rows(put, slots, new)


def run(
    model: Model, params: Params, slots: Slots, wanted: Array, *, eos_id: int, apart: bool
) -> Slots:
    """Decodes until `wanted` slots have no row at work, or none has.

    Args:
        params: layers apart as in `empty`.
    """
    model = changed(model, scan_layers=not apart)
    num_slots = slots.prefixes["length"].shape[0]

    def goes_on(slots: Slots) -> Array:
        idle_G = jnp.all(slots.rows.done_B.reshape(num_slots, -1), axis=1)
        return (jnp.sum(idle_G) < wanted) & ~jnp.all(idle_G)

    return lax.while_loop(goes_on, partial(_step, model, params, eos_id), slots)


def _step(model: Model, params: Params, eos_id: int, slots: Slots) -> Slots:
    past = (slots.prefixes, slots.own)
    hidden_Bx1xE, new = model.apply({"params": params}, slots.last_token_Bx1, past, method="extend")
    logits_BxV = logits_of(hidden_Bx1xE[:, 0], model.config.output_layer(params))
    rows, token_Bx1 = with_next(slots.rows, logits_BxV, largest(logits_BxV), eos_id)
    length = rows.tokens_BxT.shape[1]
    # No token is below 0. But as the written place depends on the tokens, writing must follow all
    # reading, so XLA need not copy all keys and values.
    place = slots.step % length + jnp.minimum(jnp.min(token_Bx1), 0)
    own = _with_column(slots.own, new, place, length)
    rows = rows._replace(done_B=rows.done_B | (rows.count_B == length))
    return Slots(slots.prefixes, own, token_Bx1, rows, slots.step + 1)


def _with_column(own: KeyValues, new: KeyValues, place: Array, length: int) -> KeyValues:
    """Writes the new token's keys and values to a place of the ring."""
    column = own["real"].shape[1] - length + place

    def put(old: KeyValue, new: KeyValue) -> KeyValue:
        return KeyValue(
            lax.dynamic_update_slice_in_dim(old.key_PxKxDxL, new.key_PxKxDxL, column, axis=-1),
            lax.dynamic_update_slice_in_dim(old.value_PxKxLxD, new.value_PxKxLxD, column, axis=-2),
        )

    seen = jnp.ones_like(own["real"][:, :1])
    return {
        **{name: put(own[name], new[name]) for name in own if name.startswith("layers")},
        "length": own["length"] + 1,
        "real": lax.dynamic_update_slice_in_dim(own["real"], seen, column, axis=1),
    }
