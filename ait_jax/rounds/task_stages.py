"""The stages of continual training: which tasks come when, and which of their instances are held out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.pool.pool import Instance, Splits, Task, TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.parts import check_positive


@dataclass(frozen=True)
class DrawnStages:
    """The pool's training tasks in equal parts, drawn at random (paper: Super-NI's in three).

    Args:
      num_stages: 1 leaves further stages to a pool that grows (NUM_STAGES).
      max_tasks_per_stage: None for all (MAX_TASKS_PER_STAGE).
    """

    num_stages: int = 3
    max_tasks_per_stage: int | None = None

    def __post_init__(self) -> None:
        sizes = {"NUM_STAGES": self.num_stages}
        if self.max_tasks_per_stage is not None:
            sizes["MAX_TASKS_PER_STAGE"] = self.max_tasks_per_stage
        check_positive(sizes)

    def draw(self, pool: TaskPool, seed: int) -> list[tuple[str, ...]]:
        """Returns the tasks of each stage; sizes differ by one at most."""
        own = (pool.splits or Splits(remain=tuple(pool))).only(pool)
        names = sorted(own.train + own.remain)
        if len(names) < self.num_stages:
            raise UserError(
                f"NUM_STAGES = {self.num_stages} needs as many training tasks; the pool has {len(names)}."
            )
        drawn = sorted(names, key=lambda name: (randomness.stable_hash(seed, "stages", name), name))
        stages = [tuple(drawn[number :: self.num_stages]) for number in range(self.num_stages)]
        return [stage[: self.max_tasks_per_stage] for stage in stages]


@dataclass(frozen=True)
class StageFiles:
    """A file of task names for every stage.

    Args:
      files: one name a line; in the order of the stages (STAGE_FILES).
    """

    files: Sequence[str]

    def draw(self, pool: TaskPool, seed: int) -> list[tuple[str, ...]]:
        """Returns the tasks of each stage."""
        stages = [read_names(file) for file in self.files]
        if not stages or not all(stages):
            raise UserError(f"STAGE_FILES = {list(self.files)} must name files with a task each.")
        test = set(pool.splits.test) if pool.splits else set()
        seen: dict[str, str] = {}
        for file, names in zip(self.files, stages):
            for name in names:
                pool[name]  # the pool's own error where it lacks one
                if name in test or name in seen:
                    where = "a test task" if name in test else f"also in {seen[name]}"
                    raise UserError(f"{file}: task {name!r} is {where}; a task has one stage.")
                seen[name] = str(file)
        return stages


class PickedInstances(Sequence[Instance]):
    """Some of a task's instances, read when asked for."""

    def __init__(self, instances: Sequence[Instance], positions: Sequence[int]) -> None:
        self._instances, self._positions = instances, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self._instances[p] for p in self._positions[index])
        return self._instances[self._positions[index]]


def hold_out(task: Task, num_instances: int, seed: int) -> tuple[Task, Task]:
    """Returns the task with what is trained on, and with what is held out of it.

    At most half of a task is held out, so one of a single instance is trained on alone. Which
    instances they are depends on the seed and the task's name.
    """
    count = len(task.instances)
    drawn = randomness.shuffled(range(count), seed, "holdout", task.name)
    held_out = set(drawn[: min(num_instances, count // 2)])
    groups = ([], [])
    for position in range(count):
        groups[position in held_out].append(position)
    kept, out = (
        dataclasses.replace(task, instances=PickedInstances(task.instances, positions))
        for positions in groups
    )
    return kept, out
