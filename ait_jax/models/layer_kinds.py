"""Layers of several kinds in one stack: which positions they see, and how these are told apart.

A `layer_pattern` has a letter for each layer and is repeated until the layers end:
  G: all positions before, with rotary positions ("global", "full attention");
  L: only the last `sliding_window` positions, its own included ("local"), with rotary positions,
     maybe on another base: Gemma 3 has "LLLLLG", OLMo 3 "LLLG";
  N: all positions before, without rotary positions (NoPE): SmolLM3 has "GGGN".

A layer of a scan is one program for all kinds: what they differ in are numbers.

Shape suffixes as in `decoder_only`; N layers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ait_jax.errors import UserError, shown
from ait_jax.models import rotary
from ait_jax.models.group_windows import Windows

GLOBAL, LOCAL, NO_POSITIONS = "G", "L", "N"
# Of a layer that is not local: more than any text has positions.
_EVERYTHING = 2**30


class Kind(NamedTuple):
    """What a layer's kind comes down to: which of the rotations, and how many positions it sees."""

    rotation: Int[Array | np.ndarray, "*N"]
    window: Int[Array | np.ndarray, "*N"]

    def of_layer(self, index: int) -> "Kind":
        """Returns that of one layer."""
        return Kind(self.rotation[index], self.window[index])


class Sight(NamedTuple):
    """What positions see, where no window is in the way.

    Attributes:
        masks: of every part of keys, as `decoder_only.GroupedAttention` takes them.
        distances: of the same parts, how far before a query a key is, int32 (B, Q, L); None for a
            part that says so itself, or where no layer is local.
    """

    masks: tuple[Any, ...]
    distances: tuple[Any, ...] | None = None

    def within(self, window: Array | np.ndarray | None) -> tuple[Any, ...]:
        """Returns the masks of a layer that sees the `window` positions that end with its own."""
        if window is None or self.distances is None:
            return self.masks

        def near(mask: Any, distances: Any) -> Any:
            if isinstance(mask, Windows):
                return mask.within(window)
            if distances is None:
                return mask
            rows = max(1, distances.shape[0] // mask.shape[0])  # that share a part
            return jnp.repeat(mask, rows, axis=0) & (distances < window)

        return tuple(map(near, self.masks, self.distances))


def check(owner: str, pattern: str, sliding_window: int | None) -> None:
    """Refuses a pattern of other letters, and local layers without their window (UserError)."""
    known = (GLOBAL, LOCAL, NO_POSITIONS)
    if not pattern or not set(pattern) <= set(known):
        raise UserError(
            f"{owner}.layer_pattern = {shown(pattern)} must be made of {', '.join(known)}: global, "
            "local and NoPE layers."
        )
    if LOCAL in pattern and (sliding_window is None or sliding_window < 1):
        raise UserError(
            f"{owner}.sliding_window = {sliding_window}, but layer_pattern = {shown(pattern)} has "
            "local layers; give how many positions they see."
        )


def spelled_out(pattern: str, num_layers: int) -> str:
    """Returns a letter for every layer."""
    return (pattern * num_layers)[:num_layers]


def shortest(letters: str) -> str:
    """Returns the shortest pattern for these layers."""
    lengths = range(1, len(letters) + 1)
    return next(letters[:n] for n in lengths if spelled_out(letters[:n], len(letters)) == letters)


def kinds(pattern: str, num_layers: int, sliding_window: int | None) -> Kind | None:
    """Returns the kinds of all layers, arrays (N,); None if all are global."""
    letters = spelled_out(pattern, num_layers)
    if set(letters) == {GLOBAL}:
        return None
    order = _order(pattern)
    windows = [sliding_window if letter == LOCAL else _EVERYTHING for letter in letters]
    rotations = [order.index(letter) for letter in letters]
    return Kind(np.array(rotations, np.int32), np.array(windows, np.int32))


def _order(pattern: str) -> list[str]:
    return sorted(set(pattern))


def rotations(config: Any, positions_BxQ: Array) -> tuple[Array, Array]:
    """Returns cosines and sines of the positions; if kinds differ, those of each kind, stacked.

    Args:
        config: a `llama.LlamaConfig`.
    """

    def of_kind(letter: str) -> tuple[Array, Array]:
        theta, scaling = config.rope_theta, config.rope_scaling
        if letter == LOCAL and config.local_rope_theta is not None:
            theta, scaling = config.local_rope_theta, None
        cos, sin = rotary.rotation(positions_BxQ, config.head_dim, theta, scaling)
        if letter == NO_POSITIONS:
            return jnp.ones_like(cos), jnp.zeros_like(sin)
        return cos, sin

    found = [of_kind(letter) for letter in _order(config.layer_pattern)]
    if set(config.layer_pattern) == {GLOBAL}:
        return found[0]
    return jnp.stack([cos for cos, _ in found]), jnp.stack([sin for _, sin in found])


def chosen(rotation: tuple[Array, Array], kind: Kind | None) -> tuple[Array, Array]:
    """Returns the cosines and sines of one kind of layer."""
    if kind is None:
        return rotation
    return jax.tree.map(lambda x: x[kind.rotation], rotation)


def distances(
    positions_BxQ: Array, starts: Sequence[Array], keys: Sequence[Array], own: Array | None
) -> tuple[Array | None, ...]:
    """Returns how far before the queries the keys of all parts are; see `Sight`.

    Args:
        starts: where each part of the past begins, (B,).
        keys: the positions of its keys in it, (P, L).
        own: those of the queries' own part; None if they come one at a time, or say so themselves.
    """
    found: list[Array | None] = []
    for start_B, keys_PxL in zip(starts, keys, strict=True):
        keys_BxL = jnp.repeat(keys_PxL, start_B.shape[0] // keys_PxL.shape[0], axis=0)
        keys_BxL = keys_BxL + start_B[:, None]
        found.append(positions_BxQ[:, :, None] - keys_BxL[:, None])
    of_own = None if own is None else own[:, :, None] - own[:, None]
    return (*found, of_own)
