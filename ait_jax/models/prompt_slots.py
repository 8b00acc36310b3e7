"""Slots of one prompt each, for models with a `ring_cache` (`t5.Transformer`).

A slot keeps what `Model.encode` makes of its prompt, the keys and values of cross-attention, and
those of its answer in a ring. Prompts of any length up to P lie side by side: a prompt's places
are its tokens that are no padding, whatever an earlier prompt has left behind them. T5's biases
depend on distances alone, which are the same in all rows for a place of the ring.

Shapes as in `slots`, with M = 1 and S = 0.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ait_jax.models.decoding import Encoded, encode_prompts, map_rows
from ait_jax.models.interface import Params, Tokens
from ait_jax.models.likelihood import PAD_ID
from ait_jax.models.slots import Begun, SlotModel, Slots, with_column


class _Kept(NamedTuple):
    encoded: Encoded
    cache: Any


class PromptModel(SlotModel):
    """Slots of one prompt."""

    def no_prompts(self, slots: int, prefix: int, members: int) -> Tokens:
        """See `slots.SlotModel`."""
        return jnp.zeros((slots * members, prefix), jnp.int32)

    def begin(self, params: Params, prompts: Tokens, *, lengths: tuple[int, int]) -> Begun:
        """Encodes prompts (F, L), L at most P; arguments as of `slots.SlotModel`."""
        rows, length = prompts.shape
        prefix, own = lengths
        made = encode_prompts(self.reading, params, prompts, max(1, own), self.apart)
        tokens_FxP = jnp.pad(prompts, ((0, 0), (0, prefix - length)))
        # A new answer needs no column of its own: the ring keeps old ones, which it does not see.
        cache = map_rows(lambda _, x: lax.slice_in_dim(x, 0, own, axis=-1), made.cache)
        kept = _Kept(made.encoded._replace(encoder_tokens_BxL=tokens_FxP), cache)
        none_F = jnp.zeros((rows,), jnp.int32)
        start_Fx1 = jnp.full((rows, 1), PAD_ID, jnp.int32)
        return Begun(kept, none_F, start_Fx1, jnp.all(tokens_FxP == PAD_ID, axis=1))

    def step(self, params: Params, slots: Slots) -> tuple[Array, Any]:
        """See `slots.SlotModel`."""
        encoded, cache = slots.kept
        hidden_Bx1xE, updated = self.stepping.apply(
            {"params": params, "cache": cache, "cross_cache": encoded.cross_cache},
            encoded.encoded,
            encoded.encoder_tokens_BxL,
            slots.token_Bx1,
            slots.token_Bx1,
            enable_dropout=False,
            decode=True,
            max_decode_length=slots.real_BxW.shape[1],
            return_hidden=True,
            seen_BxT=with_column(slots.real_BxW, slots.place),
            mutable=["cache"],
            method="decode",
        )
        return hidden_Bx1xE, updated["cache"]

    def written(self, kept: _Kept, new: Any, column: Array) -> _Kept:
        """Returns what is kept; the model wrote its ring itself."""
        del column
        return kept._replace(cache=new)
