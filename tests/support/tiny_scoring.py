"""Scoring that takes seconds, and a process that is killed in the middle of it.

    python tests/support/tiny_scoring.py MODEL_DIR INIT_CHECKPOINT POINT CALL [raced]

runs it, as a race if asked, and sends itself SIGKILL at the CALL-th call of POINT
(`tiny_experiment.kill_at`).
"""

import dataclasses
import sys

from tiny_experiment import CONFIG, kill_at, tiny_experiment, tiny_pool

from ait_jax.pool import TaskPool
from ait_jax.rounds import scoring
from ait_jax.rounds.scoring import Scoring
from ait_jax.scorer.racing import Racing
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.selection import PromptUncertainty


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


def tiny_race(model_dir, init_checkpoint, **changes) -> Scoring:
    """Returns the same 8 tasks under more prompts, raced for 2 places in three waves."""
    raced = {
        "scorer": Scorer(num_perturbations=6, num_instances=3, prompts_per_chunk=30),
        "strategy": PromptUncertainty(),
        "racing": True,
        "racing_settings": Racing(waves=(2, 4), error=0.1),
    }
    return tiny_scoring(model_dir, init_checkpoint, **raced | changes)


if __name__ == "__main__":
    model_dir, init_checkpoint, point, call, *raced = sys.argv[1:]
    kill_at(point, int(call))
    make = tiny_race if raced else tiny_scoring
    scoring.run(make(model_dir, init_checkpoint), CONFIG)
