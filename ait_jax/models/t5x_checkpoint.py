"""Checkpoints that T5X reads: its Orbax form, with parameters and step only.

The layout is what OrbaxCheckpointManagerInterface saves and restores (t5x/checkpoints.py, commit
cc342d4): `checkpoint_<step>/state` is one tree with `target` and `state/step`. T5X's eval and
infer need no more than that; its train makes the optimizer's state anew where
RestoreCheckpointConfig.fallback_to_scratch and state_transformation_fns are set.
"""

from pathlib import Path

import jax
import numpy as np

from ait_jax.models import weights
from ait_jax.models.t5 import Params

# Chunks of this size let many hosts read their parts of one array.
_CHUNK_BYTES = 64 * 2**20


def write(directory: Path, params: Params, step: int, *, dtype: str | None = "float32") -> Path:
    """Writes `directory`/checkpoint_<step> and returns it.

    Args:
        directory: a local folder without such a checkpoint.
        params: nested dict of host arrays, one subtree per layer.
        step: the step that T5X continues to count from.
        dtype: "float32", "bfloat16" or "float16"; None keeps each array's own.

    Raises:
        UserError: another dtype.
    """
    import orbax.checkpoint as ocp

    if dtype is not None:
        stored = weights.stored_dtype(dtype)
        params = jax.tree.map(lambda x: np.asarray(x).astype(stored, copy=False), params)
    tree = {"target": params, "state": {"step": np.asarray(step, np.int32)}}
    chunked = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree)
    options = ocp.CheckpointManagerOptions(
        step_prefix="checkpoint", enable_async_checkpointing=False
    )
    handlers = {"state": ocp.PyTreeCheckpointHandler(use_ocdbt=True)}
    with ocp.CheckpointManager(
        Path(directory).absolute(), options=options, item_handlers=handlers
    ) as manager:
        state = ocp.args.PyTreeSave(tree, save_args=chunked)
        manager.save(step, args=ocp.args.Composite(state=state))
    return Path(directory) / f"checkpoint_{step}"
