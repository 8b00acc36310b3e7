"""Imported where tests save checkpoints: Orbax does not cut arrays of a few bytes in eight.

By default it writes a slice per device of what is replicated, which takes most of the time here.
"""

import jax
from orbax.checkpoint import type_handlers

type_handlers.get_type_handler(jax.Array)._min_slice_bytes_for_replica_parallel = 2**20
