"""Which files of a run directory are a function of its inputs, and their bytes."""

from pathlib import Path

import numpy as np

# Hold wall-clock times or random file names; the parameters in checkpoints are compared.
UNSTABLE = (
    "timings.jsonl",
    "live.json",
    ".tmp-live.json",
    "report.html",
    "checkpoint_",
    ".lock",
    "train",
    "rounds",
    "inference_eval",
    "wandb",
)


def stable_files(model_dir: Path) -> dict[str, bytes]:
    """Returns name -> bytes of all files but `UNSTABLE` ones."""
    return {
        str(path.relative_to(model_dir)): path.read_bytes()
        for path in sorted(model_dir.rglob("*"))
        if path.is_file()
        and not any(
            part.startswith(UNSTABLE)
            for part in path.relative_to(model_dir).parts
            if not part.endswith("_tasks.txt")
        )
    }


def checkpoints(model_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of every checkpoint."""
    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.parameters import flatten

    return {
        str(path.relative_to(model_dir)): flatten(open_checkpoint(path).load())
        for path in sorted(model_dir.glob("round_*/checkpoint_*"))
    }


def differences(expected: Path, found: Path) -> list[str]:
    """Returns the files and checkpoints that differ, and strays of killed processes."""
    ours, theirs = stable_files(expected), stable_files(found)
    names = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    params, others = checkpoints(expected), checkpoints(found)
    names |= params.keys() ^ others.keys()
    for checkpoint in params.keys() & others.keys():
        one, other = params[checkpoint], others[checkpoint]
        same = one.keys() == other.keys() and all(
            np.array_equal(one[name], other[name]) for name in one
        )
        names |= set() if same else {checkpoint}
    strays = [path for path in found.rglob("*") if path.name.startswith(".tmp-")]
    return sorted(names) + [str(path.relative_to(found)) for path in strays]
