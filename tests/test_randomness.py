"""The goldens pin the hash: a run resumed under a later version must draw the same."""

import hashlib
from collections import Counter

import pytest

from ait_jax.randomness import choice, integer, shuffled, stable_hash, uniform, uniforms


def test_golden_values():
    assert stable_hash() == 16476032584258269876
    assert stable_hash("a") == 5505583916809708620
    assert stable_hash(1) == 18270847984048893244
    assert stable_hash("é", -1) == 8161764823100487159
    assert stable_hash(42, "perturb", 0, "task001", 1, "definition", 0) == 4861535964525783447
    assert uniform(42, "perturb", 0, "task001", 1, "definition", 0) == 0.2635443927177633
    assert integer(0, 1000, "x", 7) == 832
    assert choice("abcdefgh", 3) == "a"
    assert shuffled("abcdefgh", 1, "order") == list("afhdebgc")


def test_hash_is_blake2b_over_length_prefixed_typed_parts():
    by_hand = hashlib.blake2b(
        (5).to_bytes(8, "big") + b"int:7" + (5).to_bytes(8, "big") + b"str:7", digest_size=8
    )
    assert stable_hash(7, "7") == int.from_bytes(by_hand.digest(), "big")


def test_parts_do_not_run_together():
    keys = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("ab", "c", ""),
        (1, 23),
        (12, 3),
        ("1", 23),
        (123,),
    ]
    assert len({stable_hash(*key) for key in keys}) == len(keys)


def test_uniform_fills_the_unit_interval_evenly():
    draws = [uniform("u", i) for i in range(20000)]
    assert 0 <= min(draws) < 0.001 and 0.999 < max(draws) < 1
    bins = Counter(int(draw * 10) for draw in draws)
    # 2000 expected in each, standard deviation 42.
    assert all(abs(bins[b] - 2000) < 5 * 42 for b in range(10))


def test_neighbouring_keys_are_independent():
    pairs = Counter((uniform("n", i) > 0.5, uniform("n", i + 1) > 0.5) for i in range(8000))
    # 2000 expected in each, standard deviation 39.
    assert all(abs(count - 2000) < 5 * 39 for count in pairs.values()) and len(pairs) == 4


def test_integer_covers_its_range_and_no_more():
    assert Counter(integer(-2, 3, i) for i in range(500)).keys() == {-2, -1, 0, 1, 2}
    with pytest.raises(ValueError):
        integer(3, 3, "x")


def test_shuffled_is_a_permutation_that_depends_on_key_and_number_only():
    items = list(range(50))
    assert sorted(shuffled(items, "a")) == items
    assert shuffled(items, "a") != items
    assert shuffled(items, "a") != shuffled(items, "b")
    assert [i - 100 for i in shuffled([i + 100 for i in items], "a")] == shuffled(items, "a")


def test_shuffled_puts_every_item_first_about_equally_often():
    first = Counter(shuffled(range(5), "s", i)[0] for i in range(5000))
    # 1000 expected, standard deviation 28.
    assert all(abs(first[i] - 1000) < 5 * 28 for i in range(5))


def test_many_draws_at_once_are_the_single_ones():
    key = (3, "words", "task", 1)
    assert uniforms(9, *key) == [uniform(*key, i) for i in range(9)]
    assert uniforms(0, *key) == []
    order = sorted(range(50), key=lambda i: stable_hash(*key, i))
    assert shuffled(range(50), *key) == order
