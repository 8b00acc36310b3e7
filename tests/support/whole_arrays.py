"""Imported where tests save checkpoints: Orbax does not cut arrays of a few bytes in eight.

By default it writes a slice per device of what is replicated, which takes most of the time here.
"""

import jax
from orbax.checkpoint import type_handlers

HANDLER = type_handlers.get_type_handler(jax.Array)
HANDLER._min_slice_bytes_for_replica_parallel = 2**20


def cut_again() -> None:
    """Lets Orbax save as it does for users."""
    HANDLER._min_slice_bytes_for_replica_parallel = None
