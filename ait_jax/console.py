"""The terminal: progress where there is one, and silence from libraries that greet at import."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ait_jax import distributed


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields a function that takes how much of `total` is done by now, and a note to show.

    On a terminal it moves a bar below the printed lines, which stay as they are; the bar
    goes away at the end. Elsewhere nothing is shown.
    """
    if not sys.stdout.isatty() or not distributed.is_writer():
        yield lambda done, note="": None
        return
    from rich import progress as rich_progress

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
        transient=True,
        # Slow enough to leave the cores to the work that it shows.
        refresh_per_second=2,
    ) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keeps away what the block writes to the error stream, unless it raises.

    TensorFlow's C++ writes lines about CUDA and oneDNN when it is imported, whatever its
    log level.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
