"""The commands that make a run again, continue it, or use what it left."""

import shlex
from typing import Any

from ait_jax.report.progress_of_run import FINISHED
from ait_jax.report.run_files import SCORE, RunFiles


def commands(run: RunFiles, model_dir: Any, state: str) -> list[dict[str, str]]:
    """Returns the payload's `commands`.

    Args:
      model_dir: as the user wrote it.
      state: from `progress_of_run.state`.
    """
    command = "ait-jax score" if run.kind == SCORE else "ait-jax run"
    config = shlex.quote(f"--gin_file={_below(model_dir, 'config.gin')}")
    again = shlex.quote(f"--gin.MODEL_DIR={_below(model_dir)}_again")
    found = [{"what": "reproduce it in another folder", "line": f"{command} {config} {again}"}]
    if state != FINISHED:
        here = shlex.quote(f"--gin.MODEL_DIR={_below(model_dir)}")
        found.append({"what": "continue it", "line": f"{command} {config} {here}"})
    report = f"ait-jax report {shlex.quote(_below(model_dir))}"
    found.append({"what": "make this report again", "line": report})
    if run.kind != SCORE:
        found.append(
            {
                "what": "training curves in TensorBoard",
                "line": f"tensorboard --logdir={shlex.quote(_below(model_dir))}",
            }
        )
        found += _of_last_checkpoint(run, model_dir)
    return found


def _of_last_checkpoint(run: RunFiles, model_dir: Any) -> list[dict[str, str]]:
    trained = {round: run.stage(round, "train") or {} for round in run.rounds}
    done = [round for round, stage in trained.items() if stage.get("checkpoint_step")]
    if not done:
        return []
    step = trained[done[-1]]["checkpoint_step"]
    source = shlex.quote(_below(model_dir, f"round_{done[-1]:03d}/checkpoint_{step}"))
    return [
        {
            "what": f"the model of round {done[-1]} for Hugging Face",
            "line": f"ait-jax convert {source} model --to=hf",
        },
        {
            "what": f"score a pool with the model of round {done[-1]}",
            "line": f"ait-jax score --gin.INIT_CHECKPOINT={source} --gin.MODEL_DIR=scores",
        },
    ]


def _below(model_dir: Any, name: str = "") -> str:
    folder = str(model_dir).rstrip("/")
    return f"{folder}/{name}" if name else folder
