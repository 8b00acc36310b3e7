"""What the benchmarks run: tasks that stand for a pool, their prompts and targets, the model."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from ait_jax import assets, randomness
from ait_jax.pool import Task, TaskPool, read_task
from ait_jax.prompts.perturb import WordDrop, perturbed_instruction
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary

# Real NIV2 tasks, where somebody has put them beside the repository.
NIV2_TASKS = Path(__file__).parents[3] / "shared" / "data" / "natural-instructions" / "tasks"
MAX_SOURCE_LENGTH = 1024
MAX_TARGET_LENGTH = 128
# The authors' evaluation batch.
AUTHORS_BATCH = 64
ROUND = 0


@functools.cache
def vocabulary() -> Vocabulary:
    return Vocabulary(assets.mini_vocabulary())


@dataclasses.dataclass(frozen=True)
class Workload:
    """Tasks to score, and what the whole pool they stand for looks like.

    Attributes:
      pool: the chosen tasks, in random order, as in the authors' split files.
      source: where they come from, for the table.
      pool_size: tasks of the pool they were chosen from.
      pool_mean_tokens: mean prompt tokens of that pool.
      pool_padding: padding of the authors' batches over that pool at 10 instances a task.
    """

    pool: TaskPool
    source: str
    pool_size: int
    pool_mean_tokens: float
    pool_padding: float


def choose(num_tasks: int) -> Workload:
    """Chooses tasks that have the pool's spread of prompt lengths.

    A task is taken from the middle of each of `num_tasks` equal slices of the tasks sorted by
    length: a few tasks then have nearly the pool's mean and longest prompts, and with them its
    padding, which an arbitrary few have not.
    """
    tasks, source = _whole_pool()
    names = randomness.shuffled([task.name for task in tasks], common.SEED, "benchmark order")
    by_name = {task.name: task for task in tasks}
    lengths = {name: _prompt_lengths(by_name[name], 10) for name in names}
    if not 1 <= num_tasks <= len(names):
        raise SystemExit(f"--tasks={num_tasks}: the pool ({source}) has 1 to {len(names)} tasks.")
    by_length = sorted(names, key=lambda name: (np.mean(lengths[name]), name))
    middles = {by_length[(2 * i + 1) * len(names) // (2 * num_tasks)] for i in range(num_tasks)}
    in_order = [length for name in names for length in lengths[name]]
    return Workload(
        pool=TaskPool([by_name[name] for name in names if name in middles], name=source),
        source=source,
        pool_size=len(names),
        pool_mean_tokens=float(np.mean(in_order)),
        pool_padding=padding_of_batches(in_order, AUTHORS_BATCH),
    )


def _whole_pool() -> tuple[list[Task], str]:
    if NIV2_TASKS.is_dir():
        return [read_task(path) for path in sorted(NIV2_TASKS.glob("*.json"))], "NIV2"
    from ait_jax.tasks import mini

    return list(mini.load_pool().values()), "mini pool (real NIV2 tasks are absent here)"


def _prompt_lengths(task: Task, num_instances: int) -> list[int]:
    return [len(prompts[0]) for _, prompts in task_prompts(task, num_instances, 0)]


def task_prompts(task: Task, num_instances: int, num_perturbations: int) -> list[tuple[str, list]]:
    """Returns (instance id, ids of its original and its perturbed prompts) of a task.

    What `Scorer.score` reads, through the same public functions.
    """
    from ait_jax.randomness import Key
    from ait_jax.scorer.prompts_of_task import scoring_instances

    encoding, words = TkInstructEncoding(max_source_length=MAX_SOURCE_LENGTH), vocabulary()
    instructions = [
        perturbed_instruction(task, WordDrop(), j, Key(common.SEED, ROUND))
        for j in range(num_perturbations + 1)
    ]
    groups = []
    for instance in scoring_instances(task, num_instances, Key(common.SEED, ROUND)):
        texts = [
            encoding.encode(i, instance.input, words.count_tokens, words.truncate, task.name).text
            for i in instructions
        ]
        groups.append((instance.id, [words.encode_source(t, MAX_SOURCE_LENGTH) for t in texts]))
    return groups


def target_ids(answer: str) -> list[int]:
    """An answer's text tokenized anew, cut at 128 tokens end-of-sequence included."""
    return [*vocabulary().encode(answer)[: MAX_TARGET_LENGTH - 1], EOS_ID]


def padding_of_batches(lengths: Sequence[int], size: int) -> float:
    """Returns the share of padding if rows are batched in order, padded to their longest."""
    padded = sum(
        max(lengths[i : i + size]) * len(lengths[i : i + size])
        for i in range(0, len(lengths), size)
    )
    return 1 - sum(lengths) / padded


def t5_config(size: str, dtype: str) -> Any:
    """Returns the T5Config of gin/models/<size>.gin."""
    import gin
    from ait_jax.config.configuration import gin_folder
    from ait_jax.models.t5 import T5Config

    path = gin_folder() / "models" / f"{size}.gin"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.gin")))
        raise SystemExit(f"--model_size={size} is none of {known}.")
    gin.clear_config()
    gin.parse_config_file(str(path))
    gin.bind_parameter("%ACTIVATION_DTYPE", dtype)
    config = gin.get_configurable(T5Config)()
    gin.clear_config()
    if config.vocab_size < vocabulary().vocab_size:
        raise SystemExit(
            f"--model_size={size} has {config.vocab_size} token rows, the prompts' vocabulary "
            f"{vocabulary().vocab_size}; take another model."
        )
    return config
