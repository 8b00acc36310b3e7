"""Texts of unlike lengths side by side in rows of one length, so that little is padding."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ait_jax.scorer.batching import padded_length

# So many tokens of a row make its attention to itself as dear as all products with weights.
_ATTENTION_AS_DEAR = 2048
# How many rows there may be.
ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)


class Packing(NamedTuple):
    """Texts to rows.

    Attributes:
      width: tokens of a row.
      rows: the texts of each row, by their numbers.
    """

    width: int
    rows: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=1024)
def packed(lengths: tuple[int, ...], widths: tuple[int, ...]) -> Packing:
    """Returns the packing that costs least, of first fit decreasing at every width.

    Args:
      lengths: of the texts, none above the last of the ascending `widths`.
    """
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    best, least = None, float("inf")
    for width in widths:
        if width < lengths[order[0]]:
            continue
        rows = _first_fit(lengths, order, width)
        cost = padded_length(len(rows), ROWS) * width * (1 + width / _ATTENTION_AS_DEAR)
        if cost < least:
            best, least = Packing(width, tuple(map(tuple, rows))), cost
        if len(rows) == 1:
            break
    return best


def _first_fit(lengths: Sequence[int], order: Sequence[int], width: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for text in order:
        row = next((i for i, free in enumerate(room) if free >= lengths[text]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows
