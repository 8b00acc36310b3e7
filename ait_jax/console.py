"""Progress on a terminal; where output goes to a file or a pipe there is none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how much of `total` is done by now.

    On a terminal it moves a bar below the printed lines, which stay as they are; the bar
    goes away at the end. Elsewhere nothing is shown.
    """
    if not sys.stdout.isatty():
        yield lambda done: None
        return
    from rich import progress as rich_progress

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        transient=True,
        # Slow enough to leave the cores to the work that it shows.
        refresh_per_second=2,
    ) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda done: bar.update(task, completed=done)
