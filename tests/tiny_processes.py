"""One of several processes that score a tiny pool together.

    python tests/tiny_processes.py INDEX COUNT ADDRESS FOLDER

writes FOLDER/likelihoods.parquet, all prompts at once, and FOLDER/raced/, by a race.
"""

import sys
from functools import partial
from pathlib import Path

import jax
from tiny_experiment import tiny_experiment, tiny_pool

from ait_jax import raced_scoring
from ait_jax.models.parameters import init_params
from ait_jax.racing import Race, Racing
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection import PromptUncertainty

NUM_TASKS = 7


def score(folder: Path, report=lambda line: None) -> None:
    """Scores in chunks of one and of several tasks, so that a process may have none of a chunk."""
    experiment = tiny_experiment(folder)
    engine = Engine(experiment.model, experiment.partitioner, experiment.buckets, 2048)
    pool = tiny_pool()
    tasks = list(pool)[:NUM_TASKS]
    ask = partial(
        Scorer(num_perturbations=3, num_instances=2, prompts_per_chunk=9).score,
        pool=pool,
        engine=engine,
        params=engine.place(init_params(experiment.model, 1)[0]),
        vocabulary=experiment.vocabulary,
        encoding=experiment.encoding,
        seed=0,
        round=1,
        report=report,
    )
    ask(tasks, folder / "likelihoods.parquet")
    race = Race(Racing(waves=(2,), error=0.5), PromptUncertainty(), {"all": tasks}, {"all": 2}, 3)
    raced_scoring.score(race, ask, tasks, folder / "raced" / "likelihoods.parquet", report)


if __name__ == "__main__":
    index, count, address, folder = sys.argv[1:]
    jax.distributed.initialize(address, int(count), int(index))
    assert jax.process_count() == int(count) and jax.device_count() == 2 * int(count)
    score(Path(folder))
