"""One program per shape, compiled ahead in threads while the device works on others."""

import gc
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ait_jax.scorer.batching import Shape

# Only so many shapes wait for the threads: a process that is interrupted must not go on compiling
# for minutes.
_AHEAD = 4
_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")
# The rest is for what is being compiled, and for the trainer's programs.
_SHARE_OF_MAPS = 0.5
# Counting them takes as long as a small program takes to compile.
_PROGRAMS_BETWEEN_COUNTS = 4


def maps_are_scarce() -> bool:
    """Says whether half of this process's memory maps are taken; False if the system does not say.

    XLA's CPU backend maps every function of a program by itself, 200 to 1,500 maps a program, and
    beyond `vm.max_map_count` (65,530 by default) the next compilation ends the process.
    """
    try:
        most = int(_MOST_MAPS.read_text())
        with _MAPS.open("rb") as maps:
            taken = sum(1 for _ in maps)
    except (OSError, ValueError):
        return False
    return taken > _SHARE_OF_MAPS * most


class ProgramCache:
    """Compiles functions for shapes before they are needed.

    When programs come to fill the process's memory maps, the least recently used are dropped, and
    compiled again (from JAX's cache) when they are wanted.

    Args:
      compile_shape: shape -> program; called in a thread.
    """

    def __init__(self, compile_shape: Callable[[Shape], Any]) -> None:
        threads = max(1, min(4, (os.cpu_count() or 1) // 2))
        self._compile = compile_shape
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compile")
        self._futures: dict[Shape, Future[Any]] = {}

    def in_order(self, shapes: Iterable[Shape]) -> Callable[[Shape], Any]:
        """Returns shape -> program for shapes that are asked for in that order."""
        order = list(dict.fromkeys(shapes))
        place_of = {shape: place for place, shape in enumerate(order)}

        def program(shape: Shape) -> Any:
            place = place_of[shape]
            for following in order[place : place + 1 + _AHEAD]:
                self.start(following)
            return self.start(shape).result()

        return program

    def start(self, shape: Shape) -> Future[Any]:
        """Returns the compilation of a shape, begun now if it was not before."""
        future = self._futures.pop(shape, None)
        if future is None:
            if len(self._futures) % _PROGRAMS_BETWEEN_COUNTS == 0 and maps_are_scarce():
                self._forget()
            future = self._threads.submit(self._compile, shape)
        self._futures[shape] = future  # the most recently used stands last
        return future

    def _forget(self) -> None:
        """Drops the less recently used half of the programs."""
        compiled = [shape for shape, future in self._futures.items() if future.done()]
        for shape in compiled[: (len(compiled) + 1) // 2]:
            del self._futures[shape]
        gc.collect()  # programs hold themselves in cycles
