"""Lanes: what runs side by side, what comes out, and what goes wrong."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
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


class Running:
    """Counts the programs that run at the same time, from inside of them."""

    def __init__(self):
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, x):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.1)
        with self.lock:
            self.now -= 1
        return x


@pytest.mark.parametrize("loops", [False, True])
def test_programs_with_loops_run_alone(loops):
    lanes, running = Lanes(OnDevices()), Running()

    def counted(x):
        return jax.pure_callback(running, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    @jax.jit
    def program(x):
        steps = x.astype(jnp.int32)[0]  # not known when it is compiled
        x = counted(x)
        return jax.lax.fori_loop(0, steps, lambda _, y: y + 1, x) if loops else x + steps

    numbers = [np.full(2, n, np.float32) for n in range(6)]
    waits = [lanes.start(lanes.call, "same", program, x) for x in numbers]
    results = [wait() for wait in waits]
    for x, result in zip(numbers, results, strict=True):
        np.testing.assert_array_equal(result, 2 * x)
    assert running.most == (1 if loops else 2)


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
    lanes = Lanes(OnDevices())

    def fails():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        lanes.start(fails)()
    assert lanes.start(lambda: 3)() == 3
