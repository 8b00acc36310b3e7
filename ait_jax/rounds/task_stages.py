"""Continual training: which tasks come in which round, and which instances are held out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool import Instance, Splits, Task, TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.scorer.parts import check_positive


@dataclass(frozen=True)
class DrawnStages:
    """The pool's training tasks in equal groups, drawn at random (paper: Super-NI's in three).

    Args:
      num_stages: groups; with 1, further ones come from a pool that grows (NUM_STAGES).
      max_tasks_per_stage: None takes all (MAX_TASKS_PER_STAGE).
    """

    num_stages: int = 3
    max_tasks_per_stage: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "num_stages")
        if self.max_tasks_per_stage is not None:
            check_positive(self, "max_tasks_per_stage")

    def draw(self, pool: TaskPool, seed: int) -> list[tuple[str, ...]]:
        """Returns the tasks of each round; sizes differ by one at most."""
        own = (pool.splits or Splits(remain=tuple(pool))).only(pool)
        names = sorted(own.train + own.remain)
        if len(names) < self.num_stages:
            raise UserError(
                f"NUM_STAGES = {self.num_stages} needs as many training tasks; the pool has "
                f"{len(names)}. Lower NUM_STAGES."
            )
        drawn = sorted(names, key=lambda name: (randomness.stable_hash(seed, "stages", name), name))
        groups = [tuple(drawn[number :: self.num_stages]) for number in range(self.num_stages)]
        return [group[: self.max_tasks_per_stage] for group in groups]


@dataclass(frozen=True)
class StageFiles:
    """Files of task names, one per line; a file for every round, in order (STAGE_FILES)."""

    files: Sequence[str]

    def draw(self, pool: TaskPool, seed: int) -> list[tuple[str, ...]]:
        """Returns the tasks of each round."""
        groups = [read_names(file) for file in self.files]
        if not groups or not all(groups):
            raise UserError(
                f"STAGE_FILES = {list(self.files)} must list files with at least one task each."
            )
        test = frozenset(pool.splits.test if pool.splits else ())
        seen: dict[str, str] = {}
        for file, names in zip(self.files, groups, strict=True):
            for name in names:
                pool[name]  # raises the pool's own error for an unknown task
                if name in test or name in seen:
                    where = "a test task" if name in test else f"also in {seen[name]}"
                    raise UserError(
                        f"{file}: task {shown(name)} is {where}; name a task only once."
                    )
                seen[name] = str(file)
        return groups


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
    """Returns the task with its training instances, and with those held out.

    At most half are held out, so a single instance is trained on. Which ones depends on the seed
    and the task's name.
    """
    count = len(task.instances)
    drawn = randomness.shuffled(range(count), seed, "holdout", task.name)
    number = min(num_instances, count // 2)
    kept, out = (
        dataclasses.replace(task, instances=PickedInstances(task.instances, sorted(positions)))
        for positions in (drawn[number:], drawn[:number])
    )
    return kept, out


@dataclass(frozen=True)
class TaskGroup:
    """The tasks that come with one round, with their training and with their held-out instances."""

    index: int
    tasks: tuple[str, ...]
    training: TaskPool
    held_out: TaskPool

    @classmethod
    def split(
        cls, pool: TaskPool, index: int, tasks: Sequence[str], num_held_out: int, seed: int
    ) -> "TaskGroup":
        """Holds out instances of `tasks`, as `hold_out` does."""
        halves = [hold_out(pool[task], num_held_out, seed) for task in tasks]
        training = TaskPool([kept for kept, _ in halves], name=pool.name)
        held_out = TaskPool([out for _, out in halves], name=pool.name)
        return cls(index, tuple(tasks), training, held_out)
