"""The terminal: progress where there is one, and silence from libraries that greet at import."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ait_jax.runtime import live, live_area


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields a function that takes how much of `total` is done by now, and a note to show.

    On a terminal it moves a bar below the printed lines, which stay as they are: in the live
    view of a run, or in one of its own that goes away at the end. Elsewhere nothing is shown.
    """
    with contextlib.ExitStack() as stack:
        if live.current() is None and live_area.is_terminal():
            from ait_jax.runtime.watching import (
                watch,  # imported late: it reads run directories, too
            )

            stack.enter_context(watch(live.Live()))
        yield stack.enter_context(live.activity(description, total, done))


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
