"""Greedy decoding in slots that are refilled as their rows finish (continuous batching).

A slot holds a group of rows that are decoded together; the rows of all slots take steps together,
each wherever in its answer it is. In a step all write the same place of a ring of T places, so that
a step writes one column of keys and values; `Slots.real_BxW` says which columns are a row's.

What is kept of prompts and answers is up to the model: `prefix_slots` for those with `extend`,
`prompt_slots` for those with a `ring_cache`. `decoding.greedy_decode` is the plain form.

Shapes: G slots, each of P prefix tokens and M rows, B = G * M, S own prompt tokens, T answer
tokens, W = S + T; F slots filled at a time.
"""

import abc
import dataclasses
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from ait_jax.models.decoding import Rows, largest, map_rows, no_answers, with_next
from ait_jax.models.interface import Model, Params, changed
from ait_jax.models.likelihood import logits_of
from ait_jax.models.parameters import match_layout

# Host arrays for `SlotModel.begin`.
Prompts = Any


class Begun(NamedTuple):
    """Groups of prompts, ready to be put into slots.

    Attributes:
        kept: what the model keeps of them, arrays with F or F * M rows.
        length_B: own prompt tokens that `kept` has of each row.
        token_Bx1: that the first step reads.
        filler_B: rows without a prompt.
    """

    kept: Any
    length_B: Int[Array, " B"]
    token_Bx1: Int[Array, "B 1"]
    filler_B: Bool[Array, " B"]


@dataclasses.dataclass(frozen=True)
class SlotModel(abc.ABC):
    """A model in the forms that read prompts into slots and take their steps.

    Args:
        reading: the model in the form that reads prompts.
        apart: take steps layer by layer, which suits a CPU: stacked keys and values would be copied
            in every step.
    """

    reading: Model
    apart: bool

    @cached_property
    def stepping(self) -> Model:
        """The model in the form that takes steps."""
        return changed(self.reading, scan_layers=not self.apart)

    def step_params(self, params: Params) -> Params:
        """Returns the parameters of `step`. Call it once for many runs: it may copy them all."""
        return match_layout(params, scan_layers=not self.apart)

    @abc.abstractmethod
    def no_prompts(self, slots: int, prefix: int, members: int) -> Prompts:
        """Returns what `begin` takes for as many empty slots."""

    @abc.abstractmethod
    def begin(self, params: Params, prompts: Prompts, *, lengths: tuple[int, int]) -> Begun:
        """Runs the prompts of F groups.

        Args:
            lengths: places for each prefix (P), and for each row's own tokens.
        """

    @abc.abstractmethod
    def step(self, params: Params, slots: "Slots") -> tuple[Array, Any]:
        """Returns the next hidden states (B, 1, E), and what `written` writes."""

    @abc.abstractmethod
    def written(self, kept: Any, new: Any, column: Array) -> Any:
        """Returns `kept` with what a step made, at a column of W."""


class Slots(NamedTuple):
    """All that a step reads and writes."""

    kept: Any
    real_BxW: Bool[Array, "B W"]
    token_Bx1: Int[Array, "B 1"]
    rows: Rows
    step: Int[Array, ""]

    @property
    def place(self) -> Int[Array, ""]:
        """The place of the ring that the next step writes."""
        return self.step % self.rows.tokens_BxT.shape[1]


def empty(model: SlotModel, params: Params, sizes: tuple[int, int, int, int], length: int) -> Slots:
    """Returns slots without rows.

    Args:
        model, sizes, length: static under jit.
        sizes: (G, P, M, S).
        length: T.
    """
    slots, prefix, members, own = sizes
    batch, width = slots * members, own + length
    prompts = model.no_prompts(slots, prefix, members)
    begin = partial(model.begin, lengths=(prefix, width))
    shapes = jax.eval_shape(begin, params, prompts).kept
    return Slots(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        jnp.zeros((batch, width), bool),
        jnp.zeros((batch, 1), jnp.int32),
        no_answers(jnp.ones((batch,), bool), length),
        jnp.zeros((), jnp.int32),
    )


def fill(slots: Slots, begun: Begun, places_F: Int[Array | np.ndarray, " F"]) -> Slots:
    """Puts F groups into the slots at `places_F`."""
    width, length = slots.real_BxW.shape[1], slots.rows.tokens_BxT.shape[1]
    new = Slots(
        begun.kept,
        jnp.arange(width) < begun.length_B[:, None],
        begun.token_Bx1,
        no_answers(begun.filler_B, length),
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


def chosen(slots: Slots, places_G: Int[Array | np.ndarray, " G"], *, num_slots: int) -> Slots:
    """Returns only the slots at `places_G` of `num_slots`, in that order."""

    def take(axis: int, leaf: Array) -> Array:
        shape = leaf.shape
        by_slot = leaf.reshape(*shape[:axis], num_slots, -1, *shape[axis + 1 :])
        taken = jnp.take(by_slot, places_G, axis=axis)
        return taken.reshape(*shape[:axis], -1, *shape[axis + 1 :])

    return map_rows(take, slots)


def run(
    model: SlotModel, params: Params, slots: Slots, wanted: Array, *, num_slots: int, eos_id: int
) -> Slots:
    """Decodes until `wanted` slots have no row at work, or none has.

    Args:
        model, num_slots, eos_id: static under jit.
        params: `SlotModel.step_params`.
    """

    def goes_on(slots: Slots) -> Array:
        idle_G = jnp.all(slots.rows.done_B.reshape(num_slots, -1), axis=1)
        return (jnp.sum(idle_G) < wanted) & ~jnp.all(idle_G)

    return lax.while_loop(goes_on, partial(_step, model, params, eos_id), slots)


def _step(model: SlotModel, params: Params, eos_id: int, slots: Slots) -> Slots:
    hidden_Bx1xE, new = model.step(params, slots)
    logits_BxV = logits_of(hidden_Bx1xE[:, 0], model.stepping.config.output_layer(params))
    rows, token_Bx1 = with_next(slots.rows, logits_BxV, largest(logits_BxV), eos_id)
    length, width = rows.tokens_BxT.shape[1], slots.real_BxW.shape[1]
    # No token is below 0. But as the written place depends on the tokens, writing must follow all
    # reading, so XLA need not copy all keys and values.
    column = width - length + slots.place + jnp.minimum(jnp.min(token_Bx1), 0)
    kept = model.written(slots.kept, new, column)
    rows = rows._replace(done_B=rows.done_B | (rows.count_B == length))
    return Slots(kept, with_column(slots.real_BxW, column), token_Bx1, rows, slots.step + 1)


def with_column(real_BxW: Bool[Array, "B W"], column: Array) -> Bool[Array, "B W"]:
    """Returns which columns are a row's when one more is."""
    return lax.dynamic_update_slice_in_dim(real_BxW, jnp.ones_like(real_BxW[:, :1]), column, axis=1)
