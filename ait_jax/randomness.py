"""Stateless randomness: every draw is a pure function of the names it is keyed by.

A draw does not depend on the draws before it, so results are the same whatever the process count,
the order of tasks or the number of interruptions. Keys are hashed with BLAKE2b, which, unlike
Python's `hash` and NumPy's generators, is the same on every machine and in every version.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

KeyPart = str | int
T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """What every draw of a round depends on, besides its own purpose and names."""

    seed: int
    round_index: int


def stable_hash(*key: KeyPart) -> int:
    """Returns a 64-bit integer that depends on the values and types of `key` only."""
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        digest.update(_encoded(part))
    return int.from_bytes(digest.digest(), "big")


def _encoded(part: KeyPart) -> bytes:
    text = f"{type(part).__name__}:{part}".encode()
    return len(text).to_bytes(8, "big") + text


# Indices of words and instances repeat.
_encoded_index = lru_cache(maxsize=1 << 13)(_encoded)


def _hashes(count: int, key: Sequence[KeyPart]) -> list[int]:
    """Returns `stable_hash(*key, i)` for i from 0 to count - 1."""
    shared = hashlib.blake2b(digest_size=8)
    for part in key:
        shared.update(_encoded(part))
    hashes: list[int] = []
    for i in range(count):
        digest = shared.copy()
        digest.update(_encoded_index(i))
        hashes.append(int.from_bytes(digest.digest(), "big"))
    return hashes


def uniform(*key: KeyPart) -> float:
    """Returns a float in [0, 1) with 53 random bits."""
    return (stable_hash(*key) >> 11) * 2.0**-53


def uniforms(count: int, *key: KeyPart) -> list[float]:
    """Returns `uniform(*key, i)` for i from 0 to count - 1; the key is hashed once."""
    return [(value >> 11) * 2.0**-53 for value in _hashes(count, key)]


def integer(low: int, high: int, *key: KeyPart) -> int:
    """Returns an integer in [low, high)."""
    if high <= low:
        raise ValueError(f"integer() needs low < high, got [{low}, {high})")
    return low + stable_hash(*key) % (high - low)


def choice(items: Sequence[T], *key: KeyPart) -> T:
    """Returns one of `items`."""
    return items[integer(0, len(items), *key)]


def shuffled(items: Sequence[T], *key: KeyPart) -> list[T]:
    """Returns `items` in an order that depends on `key` and on their number only."""
    hashes = _hashes(len(items), key)
    order = sorted(range(len(items)), key=lambda i: (hashes[i], i))
    return [items[i] for i in order]
