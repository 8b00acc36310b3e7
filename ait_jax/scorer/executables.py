"""One executable per shape, compiled ahead in threads while the device works on others."""

import gc
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ait_jax.scorer import memory_maps


class Executables:
    """Compiles functions for shapes before they are needed.

    Only `ahead` shapes are given to the threads at a time: a program that is interrupted must
    not go on compiling for minutes. Where they come to fill the process's memory maps, those not
    used for longest are dropped, and compiled again (from JAX's cache) when they are wanted.

    Args:
      compile: shape -> executable; called in a thread.
      threads: compilations at a time; None is half of the cores, at most 4.
    """

    def __init__(
        self, compile: Callable[[Hashable], Any], threads: int | None = None, ahead: int = 4
    ) -> None:
        threads = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._compile = compile
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compile")
        self._ahead = ahead
        self._futures: dict[Hashable, Future] = {}

    def in_order(self, shapes: Iterable[Hashable]) -> "_InOrder":
        """Returns a mapping that compiles the given shapes, in that order, as they are taken."""
        return _InOrder(self, list(dict.fromkeys(shapes)))

    def start(self, shape: Hashable) -> Future:
        """Returns the compilation of a shape, begun now if it was not before."""
        future = self._futures.pop(shape, None)
        if future is None:
            if memory_maps.scarce():
                self._forget()
            future = self._pool.submit(self._compile, shape)
        self._futures[shape] = future  # the one used last stands last
        return future

    def _forget(self) -> None:
        """Drops the half of the programs that was not used for longest."""
        compiled = [shape for shape, future in self._futures.items() if future.done()]
        for shape in compiled[: (len(compiled) + 1) // 2]:
            del self._futures[shape]
        gc.collect()  # programs hold themselves in cycles

    @property
    def ahead(self) -> int:
        return self._ahead


class _InOrder(Mapping):
    def __init__(self, executables: Executables, shapes: list[Hashable]) -> None:
        self._executables, self._shapes = executables, shapes
        self._place = {shape: place for place, shape in enumerate(shapes)}

    def __getitem__(self, shape: Hashable) -> Any:
        place = self._place[shape]
        for following in self._shapes[place : place + 1 + self._executables.ahead]:
            self._executables.start(following)
        return self._executables.start(shape).result()

    def __iter__(self):
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
