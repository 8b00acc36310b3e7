"""Programs side by side on a CPU."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from ait_jax.runtime.partitioning import Partitioner

T = TypeVar("T")


_ENDED = object()
# Fixed: by the number of cores, the order of sums and their last bits would vary.
_ON_CPU = 2


class Lanes:
    """Runs two programs at a time on a CPU: one alone leaves much of two cores idle.

    Small products, and whatever is no product, do not divide well between cores. Other devices
    queue programs themselves. Those of several devices may meet in collectives, whose order all
    would have to agree on. There a program starts at once and the lane is one.

    Attributes:
      count: of lanes.
    """

    def __init__(self, partitioner: Partitioner) -> None:
        self._partitioner = partitioner
        alone = partitioner.platform == "cpu" and partitioner.mesh.size == 1
        self.count = _ON_CPU if alone else 1
        self._threads = ThreadPoolExecutor(_ON_CPU, "lane") if alone else None
        self._locks: dict[Any, threading.Lock] = {}
        self._compiled: set[Any] = set()

    def start(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Starts function(*args) in the next free lane; returns what waits for its result."""
        if self._threads is None:
            result = function(*args)
            return lambda: result

        def run() -> Any:
            with self._partitioner.activate():  # threads begin without a mesh
                return jax.block_until_ready(function(*args))

        return self._threads.submit(run).result

    def call(self, key: Any, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Returns function(*args, **options), which compiles when a `key` comes first.

        Then the other lane waits, if it comes with the same one, instead of compiling it again.
        """
        if self.count == 1 or key in self._compiled:
            return function(*args, **options)
        with self._locks.setdefault(key, threading.Lock()):
            result = function(*args, **options)
            self._compiled.add(key)
            return result

    def stream(self, generators: Sequence[Iterator[T]]) -> Iterator[T]:
        """Yields what generators yield, each run in the next free lane, as it comes."""
        if self._threads is None:
            yield from itertools.chain.from_iterable(generators)
            return
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def drain(generator: Iterator[T]) -> None:
            try:
                for item in generator:
                    found.put(item)
            finally:
                found.put(_ENDED)

        started = [self.start(drain, generator) for generator in generators]
        running = len(started)
        while running:
            item = found.get()
            if item is _ENDED:
                running -= 1
            else:
                yield item
        for wait in started:
            wait()
