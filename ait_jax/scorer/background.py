"""Work in a thread beside the device: prepared ahead of it, saved behind it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@contextmanager
def ahead(function: Callable[[A], B], items: Iterable[A], depth: int = 2) -> Iterator[Iterator[B]]:
    """Gives an iterator over `function(item)`, computed in a thread up to `depth` items ahead.

    An exception of `function` is raised, as it is, where its result would have come. When the
    block is left early, what has not begun is dropped.
    """
    waiting: deque[Future[B]] = deque()

    def results() -> Iterator[B]:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ThreadPoolExecutor(1, "ahead") as executor:
        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def behind() -> Iterator[Callable[..., None]]:
    """Gives a function `later(function, *arguments)` that calls in a thread, one at a time.

    It waits for the call before, and the block ends when the last call has. An exception is
    raised, as it is, by the next call or at the end of the block.
    """
    running: list[Future] = []

    def later(function: Callable[..., Any], *arguments: Any) -> None:
        if running:
            running.pop().result()
        running.append(executor.submit(function, *arguments))

    with ThreadPoolExecutor(1, "behind") as executor:
        yield later
        if running:
            running.pop().result()
