"""The threads of scorer.py: how far ahead, in which order, and what becomes of errors."""

import threading
import time

import pytest

from ait_jax.scorer.scorer import ahead, behind


def test_results_come_in_order_and_at_most_two_ahead():
    begun = []

    def work(item):
        begun.append(item)
        return item * item

    with ahead(work, range(6)) as results:
        for place, result in enumerate(results):
            assert result == place**2
            time.sleep(0.02)
            assert len(begun) == min(6, place + 3)


def test_the_next_result_is_made_during_the_work_on_this_one():
    made = threading.Event()

    def work(item):
        if item == 1:
            made.set()
        return item

    with ahead(work, range(3)) as results:
        next(results)
        assert made.wait(timeout=5)


def test_an_error_comes_where_its_result_would_have():
    def work(item):
        if item == 1:
            raise ZeroDivisionError("as it is")
        return item

    with ahead(work, range(4)) as results:
        assert next(results) == 0
        with pytest.raises(ZeroDivisionError, match="as it is"):
            next(results)


def test_leaving_early_drops_what_has_not_begun():
    begun = []
    with pytest.raises(KeyboardInterrupt), ahead(begun.append, range(9)) as results:
        next(results)
        raise KeyboardInterrupt
    assert len(begun) <= 3
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]


def test_calls_behind_are_made_one_at_a_time_and_all():
    made = []
    with behind() as later:
        for item in range(5):
            later(made.append, item)
    assert made == [0, 1, 2, 3, 4]


def test_an_error_behind_is_raised_by_the_next_call_or_at_the_end():
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), behind() as later:
        later(fail)
    with pytest.raises(OSError, match="disk full"), behind() as later:
        later(fail)
        later(print)
        raise AssertionError("not reached")
