"""One executable per shape, compiled ahead in threads while the device works on others."""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Executables:
    """Compiles functions for shapes before they are needed.

    Only `ahead` shapes are given to the threads at a time: a program that is interrupted must
    not go on compiling for minutes.

    Args:
      compile: shape -> executable; called in a thread.
      threads: compilations at a time; None is half of the cores, at most 4.
    """

    def __init__(
        self, compile: Callable[[Hashable], Any], threads: int | None = None, ahead: int = 4
    ):
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
        future = self._futures.get(shape)
        if future is None:
            future = self._futures[shape] = self._pool.submit(self._compile, shape)
        return future

    @property
    def ahead(self) -> int:
        return self._ahead


class _InOrder(Mapping):
    def __init__(self, executables: Executables, shapes: list[Hashable]):
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
