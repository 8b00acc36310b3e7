"""Suggestions: the nearest name, also among very many."""

import time

from ait_jax.errors import nearest


def test_the_nearest_name():
    assert nearest("strategy", ["strategies", "rounds"]) == " Did you mean 'strategies'?"
    assert nearest("x", ["strategies"]) == nearest("x", []) == ""


def test_among_50_000_names_it_is_found_at_once():
    names = [f"rewrite_the_sentence_number_{i * 7919 % 50_000:05d}" for i in range(50_000)]
    start = time.perf_counter()
    assert (
        nearest("rewrite_the_sentence_number_01234x", names)
        == " Did you mean 'rewrite_the_sentence_number_01234'?"
    )
    assert time.perf_counter() - start < 5
