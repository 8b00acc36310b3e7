"""The split a run starts from: dev tasks, the first training tasks, and what remains."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.pool.cls_gen import Quotas
from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import Splits, read_splits


@dataclass(frozen=True)
class Drawn:
    """Round 0's splits drawn from the pool's own training, dev and test tasks.

    Args:
      initial_tasks: tasks that round 0 trains on (INITIAL_TASKS).
      dev_tasks: dev tasks drawn from the pool (DEV_TASKS), where it names none itself.
      balance_dev_cls_gen: half of the drawn dev tasks CLS, half GEN.
      missing_tasks: "error" or "drop" tasks of the pool's own splits that it lacks
        (MISSING_TASKS): a clone's split files may name more tasks than its folder has.
      remain_tasks: at most so many of the others, drawn, are scored and selected from
        (REMAIN_TASKS); None takes all.
    """

    initial_tasks: int = 68
    dev_tasks: int = 68
    balance_dev_cls_gen: bool = True
    missing_tasks: str = "error"
    remain_tasks: int | None = None

    def draw(self, pool: TaskPool, seed: int) -> tuple[Splits, int]:
        """Returns the splits and how many tasks of the pool's own splits were dropped."""
        own, dropped = (pool.splits or Splits(remain=tuple(pool))).restrict_to(
            pool, self.missing_tasks
        )
        splits = draw_initial_splits(
            own.train + own.remain,
            pool.is_cls,
            seed,
            initial_tasks=self.initial_tasks,
            remain_tasks=self.remain_tasks,
            dev_tasks=0 if own.dev else self.dev_tasks,
            balance_dev_cls_gen=self.balance_dev_cls_gen,
            test=own.test,
        )
        return (replace(splits, dev=own.dev) if own.dev else splits), dropped


@dataclass(frozen=True)
class FromFiles:
    """Round 0's splits from a folder of split files, as the authors released them.

    Args:
      directory: has train_tasks.txt, remain_tasks.txt, dev_tasks.txt and test_tasks.txt.
      official_test_tasks: a file that tells test from dev tasks where the folder lists them
        together; by default the pool's own test tasks do.
      missing_tasks: "error" or "drop" tasks that the pool lacks.
    """

    directory: str
    official_test_tasks: str | None = None
    missing_tasks: str = "error"

    def draw(self, pool: TaskPool, seed: int) -> tuple[Splits, int]:
        """Returns the splits and how many named tasks the pool lacks."""
        # An empty list would make every shared task a dev task; None asks for OFFICIAL_TEST_TASKS.
        own_test = pool.splits.test if pool.splits else ()
        official = self.official_test_tasks or own_test or None
        return read_splits(self.directory, official).restrict_to(pool, self.missing_tasks)


def draw_initial_splits(
    pool_names: Iterable[str],
    is_cls: Callable[[str], bool],
    seed: int,
    *,
    initial_tasks: int,
    dev_tasks: int,
    remain_tasks: int | None = None,
    balance_dev_cls_gen: bool = True,
    test: Sequence[str] = (),
) -> Splits:
    """Draws dev and initial training tasks from a pool, as `write_TLAL_split` does.

    Dev tasks are drawn first, half CLS and half GEN when balanced (an odd one is GEN; a
    group that runs short is filled from the other). The first training tasks are then drawn
    from the rest without regard to CLS and GEN, as in the authors' code (their five seeds
    began with 18 to 31 CLS of 68). A task's draw depends on the seed and its own name, so
    the order in which the pool lists its tasks does not matter.

    Args:
      pool_names: names of the training pool, without the test tasks.
      is_cls: task name -> True for classification; asked only when dev is balanced.
      seed: the split's seed; the paper's runs differ in nothing else.
      initial_tasks: size of the first training set, at least 1 (68 in the paper).
      dev_tasks: number of dev tasks, 0 or more (68 in the paper).
      remain_tasks: at most so many tasks remain, the next ones drawn; None keeps all.
      balance_dev_cls_gen: half of the dev tasks CLS, half GEN.
      test: test tasks, taken over as they are.

    Returns:
      Splits: train and dev in drawn order, remain ascending by name, test as given.

    Raises:
      UserError: the pool is empty or smaller than initial_tasks + dev_tasks, names a task
        twice, or shares tasks with `test`; remain_tasks is less than 1.
    """
    names = sorted(pool_names)
    _check(names, initial_tasks, dev_tasks, remain_tasks, test)
    dev = _drawn(names, seed, "dev")
    if balance_dev_cls_gen and dev_tasks:
        groups = Quotas(dev_tasks, cls_ratio=0.5).groups(dev, is_cls)
        dev = [name for group in groups for name in group.tasks[: group.quota]]
    dev = dev[:dev_tasks]
    rest = sorted(set(names) - set(dev))
    drawn = _drawn(rest, seed, "train")
    train, remain = drawn[:initial_tasks], sorted(drawn[initial_tasks:][:remain_tasks])
    return Splits(train=tuple(train), remain=tuple(remain), dev=tuple(dev), test=tuple(test))


def _drawn(names: Sequence[str], seed: int, purpose: str) -> list[str]:
    def key(name: str) -> tuple[int, str]:
        return randomness.stable_hash(seed, "initial splits", purpose, name), name

    return sorted(names, key=key)


def _check(
    names: Sequence[str],
    initial_tasks: int,
    dev_tasks: int,
    remain_tasks: int | None,
    test: Sequence[str],
) -> None:
    if not names:
        raise UserError("The pool has no tasks to draw from; look at the pool's train split.")
    if initial_tasks < 1 or dev_tasks < 0:
        raise UserError(
            f"INITIAL_TASKS is {initial_tasks} and DEV_TASKS {dev_tasks}; the first must be at "
            "least 1, the second at least 0."
        )
    if remain_tasks is not None and remain_tasks < 1:
        raise UserError(
            f"REMAIN_TASKS is {remain_tasks}; at least one task must remain to be selected. None "
            "keeps all."
        )
    if initial_tasks + dev_tasks > len(names):
        raise UserError(
            f"INITIAL_TASKS ({initial_tasks}) and DEV_TASKS ({dev_tasks}) ask for "
            f"{initial_tasks + dev_tasks} tasks but the pool has {len(names)}; set them lower."
        )
    double = [a for a, b in itertools.pairwise(names) if a == b]
    if double:
        raise UserError(f"The pool names {double[0]!r} twice; keep one line of it.")
    shared = sorted(set(names) & set(test))
    if shared:
        raise UserError(
            f"{len(shared)} tasks are both in the training pool and in the test split, the first "
            f"{shared[0]!r}; take them out of one."
        )
