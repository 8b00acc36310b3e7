"""Programs side by side on a CPU."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from ait_jax.runtime.partitioning import Partitioner

# Fixed: by the number of cores, the order of sums and their last bits would vary.
_ON_CPU = 2
# What a compiled program with a loop has in its text.
_LOOP = " while("


class Lanes:
    """Runs two programs at a time on a CPU: one alone leaves much of two cores idle.

    Small products, and whatever is no product, do not divide well between cores. Other devices
    queue programs themselves. Those of several devices may meet in collectives, whose order all
    would have to agree on. There a program starts at once and the lane is one.

    A program with loops never runs beside another. XLA's CPU runtime computes some of them wrongly
    then: a loop over blocks of attention inside of one over eight layers or more, whose products
    Eigen made, gave one of 33 rows other values whenever anything large ran beside it (jaxlib
    0.10.2; never with products of YNNPACK, without the outer loop, or alone).

    Attributes:
      count: of lanes.
    """

    def __init__(self, partitioner: Partitioner) -> None:
        self._partitioner = partitioner
        alone = partitioner.platform == "cpu" and partitioner.mesh.size == 1
        self.count = _ON_CPU if alone else 1
        self._threads = ThreadPoolExecutor(_ON_CPU, "lane") if alone else None
        self._locks: dict[Any, threading.Lock] = {}
        self._programs: dict[Any, tuple[Any, bool]] = {}
        self._door = threading.Lock()
        self._places = threading.Semaphore(self.count)

    def start(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Starts function(*args) in the next free lane; returns what waits for its result."""
        if self._threads is None:
            result = function(*args)
            return lambda: result

        def run() -> Any:
            with self._partitioner.activate():  # threads begin without a mesh
                return jax.block_until_ready(function(*args))

        return self._threads.submit(run).result

    def call(self, key: Any, function: Any, *args: Any) -> Any:
        """Returns function(*args), beside the other lane's if neither has loops.

        Args:
          key: what the program depends on besides `function`, which is jitted: it is compiled once,
            and the other lane waits meanwhile if it comes with the same key.
        """
        if self.count == 1:
            return function(*args)
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._programs:
                compiled = function.lower(*args).compile()
                self._programs[key] = compiled, _LOOP in (compiled.as_text() or _LOOP)
        compiled, has_loops = self._programs[key]
        with self._taking(self.count if has_loops else 1):
            return jax.block_until_ready(compiled(*args))

    @contextlib.contextmanager
    def _taking(self, places: int) -> Iterator[None]:
        """Holds so many places; only one lane at a time waits for several."""
        with self._door:
            for _ in range(places):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(places)
