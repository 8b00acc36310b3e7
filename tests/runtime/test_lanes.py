"""Lanes: what runs side by side, what comes out, and what goes wrong."""

import threading

import jax
import jax.numpy as jnp
import pytest
from tiny_training import OnDevices

from ait_jax.runtime.lanes import Lanes
from ait_jax.runtime.partitioning import Partitioner


def test_a_device_alone_has_two_lanes():
    lanes = Lanes(OnDevices())
    assert lanes.count == 2
    meeting = threading.Barrier(2, timeout=10)

    def meet(number):
        meeting.wait()  # fails if the two do not run at the same time
        return jnp.sum(jnp.full(3, number))

    waits = [lanes.start(meet, number) for number in (1, 2)]
    assert [int(wait()) for wait in waits] == [3, 6]


def test_many_devices_have_one():
    lanes = Lanes(Partitioner())
    assert jax.device_count() > 1 and lanes.count == 1
    place = []
    assert lanes.start(lambda: place.append(threading.current_thread()))() is None
    assert place == [threading.main_thread()]
    assert list(lanes.stream([iter("ab"), iter("c")])) == ["a", "b", "c"]


def test_generators_are_drained_as_they_go():
    lanes = Lanes(OnDevices())
    first_is_out = threading.Event()

    def waits():
        first_is_out.wait(10)
        yield "late"

    stream = lanes.stream([waits(), iter(["early"]), iter(["third"])])
    assert {next(stream), next(stream)} == {"early", "third"}
    first_is_out.set()
    assert list(stream) == ["late"]


def test_lanes_do_not_compile_the_same_twice():
    lanes = Lanes(OnDevices())
    traced = []

    @jax.jit
    def slowly_traced(x):
        traced.append(x.shape)
        threading.Event().wait(0.2)
        return x + 1

    waits = [
        lanes.start(lanes.call, shape, slowly_traced, jnp.zeros(shape))
        for shape in [(2,), (2,), (3,), (3,), (2,), (3,)]
    ]
    for wait in waits:
        wait()
    assert sorted(traced) == [(2,), (3,)]


def test_errors_reach_the_caller():
    def fails():
        yield 1
        raise KeyError("lost")

    stream = Lanes(OnDevices()).stream([fails(), iter([2])])
    with pytest.raises(KeyError, match="lost"):
        list(stream)
