"""A message and an exit code where C++ code aborts the process.

JAX's coordination service aborts every process at once when its coordinator has died; its
callbacks cannot be Python functions (jaxlib 0.10).
"""

import ctypes
import os
import signal
from collections.abc import Callable

_kept: list = []  # C holds only pointers to the handlers


def on_abort(explain: Callable[[], str | None], code: int) -> None:
    """From now on an abort ends the process with `code`, if `explain` returns why.

    Args:
      explain: called once in the aborting thread; its text goes to the error stream. None lets the
        abort go on.
      code: the exit code.
    """

    def handler(signum: int) -> None:
        text = explain()
        if text is not None:
            os.write(2, text.encode())
            os._exit(code)

    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    pointer = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)
    _kept.append(pointer)
    library.signal(signal.SIGABRT, ctypes.cast(pointer, ctypes.c_void_p))
