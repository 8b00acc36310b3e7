"""One of several processes that score a tiny pool together.

    python tests/support/tiny_processes.py INDEX COUNT ADDRESS FOLDER

writes FOLDER/likelihoods.parquet, all prompts at once, and FOLDER/raced/, by a race; and restores
parameters onto a mesh over all processes: FOLDER/restored_INDEX.json says what it read for it.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
from tiny_experiment import tiny_experiment, tiny_pool

from ait_jax.models import parameters
from ait_jax.models.checkpoints import stored_arrays, weights
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import Transformer
from ait_jax.pool.cls_gen import Group
from ait_jax.runtime import distributed
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import raced_scoring
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.racing import Race, Racing
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.selection import PromptUncertainty

NUM_TASKS = 7


def score(folder: Path) -> None:
    """Scores in chunks of one and of several tasks, so that a process may have none of a chunk."""
    experiment = tiny_experiment(folder)
    engine = Engine(experiment.model, experiment.partitioner, experiment.buckets, 2048, 2.0)
    pool = tiny_pool()
    tasks = list(pool)[:NUM_TASKS]
    params = engine.place(init_params(experiment.model, 1)[0])
    asker = Asker(engine, params, pool, experiment.vocabulary, experiment.encoding, seed=0)
    scorer = Scorer(num_perturbations=3, num_instances=2, prompts_per_chunk=9)
    scorer.score(asker, tasks, folder / "likelihoods.parquet", round_index=1)
    groups = [Group("all", tuple(tasks), 2)]
    race = Race(Racing(waves=(2,), error=0.5), PromptUncertainty(), groups, 3)
    raced = folder / "raced" / "likelihoods.parquet"
    raced_scoring.score(race, scorer, asker, tasks, raced, round_index=1)


def restore(folder: Path, index: int) -> None:
    """Restores a file of this process's own, and writes how many bytes of how many it read."""
    config = tiny_experiment(folder).model.config
    model = Transformer(dataclasses.replace(config, num_heads=4, head_dim=4))
    params = jax.tree.map(np.asarray, init_params(model, 2)[0])
    path = folder / "restored.safetensors"
    weights.save_weights(path, params)
    distributed.barrier("written")
    read_bytes = []

    def counting(array: stored_arrays.StoredArray) -> stored_arrays.StoredArray:
        def read(part):
            values = array.read(part)
            read_bytes.append(values.nbytes)
            return values

        return dataclasses.replace(array, read=read)

    open_tensors = weights.open_tensors
    weights.open_tensors = lambda path: {n: counting(a) for n, a in open_tensors(path).items()}
    partitioner = Partitioner(num_partitions=jax.device_count())
    restored = parameters.flatten(restore_params(path, model, partitioner).params)
    for name, expected in parameters.flatten(params).items():
        for shard in restored[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, expected[shard.index])
    distributed.barrier("read")
    path.unlink(missing_ok=True)
    total = sum(array.nbytes for array in parameters.flatten(params).values())
    figures = {"read": sum(read_bytes), "total": total}
    (folder / f"restored_{index}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    index, count, address, folder = sys.argv[1:]
    distributed.initialize(
        {distributed.KIND: "local", distributed.COORDINATOR: address,
         distributed.COUNT: count, distributed.INDEX: index}
    )  # fmt: skip
    assert jax.process_count() == int(count) and jax.device_count() == 2 * int(count)
    score(Path(folder))
    restore(Path(folder), int(index))
