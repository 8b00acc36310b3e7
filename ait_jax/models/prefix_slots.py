"""Slots of rows that share a prefix, for models with `extend` (`llama.LlamaTransformer`).

A slot keeps the keys and values of its prefix once. The rows' own lie behind it: the prompt in
front, the answer's ring behind.

Shapes as in `slots`; a prefix's rows are run as R packed rows of Q tokens each.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ait_jax.models.decoder_only import KeyValues
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.models.interface import Params
from ait_jax.models.parameters import layers_apart
from ait_jax.models.slots import Begun, SlotModel, Slots


class Packed(NamedTuple):
    """Prefixes, and what rows have behind them, several rows' tokens side by side.

    Attributes:
        prefixes_FxP: int32.
        tokens_RxQ: int32 (F * R, Q); as many packed rows for every prefix.
        rows_RxQ: whose tokens they are, 1 the first of a packed row and 0 nobody's.
        begins_FxM: where a row's tokens begin in its prefix's packed rows, laid end to end.
        lengths_FxM: how many tokens a row has; 0 is no row.
    """

    prefixes_FxP: Any
    tokens_RxQ: Any
    rows_RxQ: Any
    begins_FxM: Any
    lengths_FxM: Any


class _Kept(NamedTuple):
    prefixes: KeyValues
    own: KeyValues


class PrefixModel(SlotModel):
    """Slots of a prefix and the rows behind it."""

    def no_prompts(self, slots: int, prefix: int, members: int) -> Packed:
        """See `slots.SlotModel`."""
        tokens, rows = (jnp.zeros((slots, size), int) for size in (prefix, members))
        return Packed(tokens, rows, rows, rows, rows)

    def begin(self, params: Params, prompts: Packed, *, lengths: tuple[int, int]) -> Begun:
        """Runs prefixes, and behind each the rest of its rows' prompts but for their last tokens.

        Arguments as of `slots.SlotModel`. Prompts of all lengths give arrays of one shape.
        """
        prefixes_FxP, tokens_RxQ, rows_RxQ, begins_FxM, lengths_FxM = prompts
        extend = partial(self.reading.apply, {"params": params}, method="extend")
        _, prefix = extend(prefixes_FxP)
        _, rows = extend(tokens_RxQ, (prefix,), segments_BxQ=rows_RxQ)
        apart = partial(_unpacked, begins_FxM=begins_FxM, length=lengths[1])
        length_FxM = jnp.maximum(lengths_FxM - 1, 0)
        length_B = length_FxM.reshape(-1)
        own = {name: apart(x) for name, x in rows.items() if name.startswith("layers")}
        own = {"length": length_B, **own}
        prefix = _lengthened(prefix, lengths[0])
        if self.apart:
            prefix, own = layers_apart(prefix), layers_apart(own)
        packed_FxC = tokens_RxQ.reshape(begins_FxM.shape[0], -1)
        last_FxM = jnp.take_along_axis(packed_FxC, begins_FxM + length_FxM, axis=1)
        filler_B = lengths_FxM.reshape(-1) == 0
        return Begun(_Kept(prefix, own), length_B, last_FxM.reshape(-1, 1), filler_B)

    def step(self, params: Params, slots: Slots) -> tuple[Array, Any]:
        """See `slots.SlotModel`."""
        own = {**slots.kept.own, "real": slots.real_BxW, "positions": _positions(slots)}
        past = (slots.kept.prefixes, own)
        return self.stepping.apply({"params": params}, slots.token_Bx1, past, method="extend")

    def written(self, kept: _Kept, new: KeyValues, column: Array) -> _Kept:
        """See `slots.SlotModel`."""

        def put(old: KeyValue, new: KeyValue) -> KeyValue:
            return KeyValue(
                lax.dynamic_update_slice_in_dim(old.key_PxKxDxL, new.key_PxKxDxL, column, axis=-1),
                lax.dynamic_update_slice_in_dim(
                    old.value_PxKxLxD, new.value_PxKxLxD, column, axis=-2
                ),
            )

        own = {name: put(kept.own[name], new[name]) for name in kept.own if name != "length"}
        return _Kept(kept.prefixes, {**own, "length": kept.own["length"] + 1})


def _positions(slots: Slots) -> Array:
    """Returns which positions of a row its columns are, int32 (B, W): prompt, then ring."""
    length = slots.rows.tokens_BxT.shape[1]
    prompt = slots.real_BxW.shape[1] - length
    # A column's age is how many steps ago it was written.
    age_T = (slots.place - jnp.arange(length)) % length
    ring_BxT = slots.kept.own["length"][:, None] - age_T
    places_S = jnp.broadcast_to(jnp.arange(prompt), (ring_BxT.shape[0], prompt))
    return jnp.concatenate([places_S, ring_BxT], axis=1)


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
