"""Stateless randomness: every draw is a pure function of the names it is keyed by.

A draw does not depend on how many were made before it, so results are the same
whatever the process count, the order of tasks or the number of interruptions.
Keys are hashed with BLAKE2b, which, unlike Python's `hash` and NumPy's
generators, is the same on every machine and in every version.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Key = str | int
T = TypeVar("T")


def stable_hash(*key: Key) -> int:
    """Returns a 64-bit integer that depends on the values and types of `key` only."""
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "big") + text)
    return int.from_bytes(digest.digest(), "big")


def uniform(*key: Key) -> float:
    """Returns a float in [0, 1) with 53 random bits."""
    return (stable_hash(*key) >> 11) * 2.0**-53


def integer(low: int, high: int, *key: Key) -> int:
    """Returns an integer in [low, high)."""
    if high <= low:
        raise ValueError(f"integer() needs low < high, got [{low}, {high})")
    return low + stable_hash(*key) % (high - low)


def choice(items: Sequence[T], *key: Key) -> T:
    """Returns one of `items`."""
    return items[integer(0, len(items), *key)]


def shuffled(items: Sequence[T], *key: Key) -> list[T]:
    """Returns `items` in an order that depends on `key` and on their number only."""
    order = sorted(range(len(items)), key=lambda i: (stable_hash(*key, i), i))
    return [items[i] for i in order]
