"""Scoring that takes seconds, and a process that is killed in the middle of it.

    python tests/tiny_scoring.py MODEL_DIR INIT_CHECKPOINT POINT CALL

runs it and sends itself SIGKILL at the CALL-th call of POINT (`tiny_experiment.kill_at`).
"""

import dataclasses
import sys

from tiny_experiment import CONFIG, kill_at, tiny_experiment, tiny_pool

from ait_jax import scoring
from ait_jax.pool import TaskPool
from ait_jax.scoring import Scoring


def tiny_scoring(model_dir, init_checkpoint, **changes) -> Scoring:
    """Returns a scoring of 8 tasks in 3 chunks."""
    experiment = tiny_experiment(model_dir)
    shared = {
        field.name: getattr(experiment, field.name)
        for field in dataclasses.fields(Scoring)
        if hasattr(experiment, field.name)
    }
    pool = tiny_pool()
    shared |= {
        "pool": TaskPool([pool[name] for name in list(pool)[:8]], name="tiny"),
        "init_checkpoint": str(init_checkpoint),
        "tasks_per_round": 2,
        "strategy": None,
    }
    return Scoring(**shared | changes)


if __name__ == "__main__":
    model_dir, init_checkpoint, point, call = sys.argv[1:]
    kill_at(point, int(call))
    scoring.run(tiny_scoring(model_dir, init_checkpoint), CONFIG)
