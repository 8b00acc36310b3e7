"""The splits a run starts from: dev tasks, the first training tasks, and the remaining tasks."""

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool import TaskPool
from ait_jax.pool.cls_gen import Quotas, labels_from_file
from ait_jax.pool.splits import Splits, read_splits


@dataclass(frozen=True)
class Drawn:
    """Round 0's splits drawn from the pool's own training, dev and test tasks.

    Args:
      initial_tasks: tasks that round 0 trains on (INITIAL_TASKS).
      dev_tasks: dev tasks to draw (DEV_TASKS) if the pool names none itself.
      balance_dev_cls_gen: draw half of the dev tasks from CLS, half from GEN.
      missing_tasks: "error" or "drop" tasks of the pool's own splits that it lacks
        (MISSING_TASKS): a clone's split files may name more tasks than its folder has.
      remain_tasks: draws this many of the other tasks to score and select from (REMAIN_TASKS); None
        takes all.
      seed: of this draw alone (SPLIT_SEED); None is the run's SEED, which trains and scores.
    """

    initial_tasks: int = 68
    dev_tasks: int = 68
    balance_dev_cls_gen: bool = True
    missing_tasks: str = "error"
    remain_tasks: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and type(self.seed) is not int:
            raise UserError(
                f"SPLIT_SEED is {shown(self.seed)}; give a whole number, or None for SEED."
            )

    def draw(self, pool: TaskPool, seed: int) -> tuple[Splits, int]:
        """Returns the splits and the number of tasks dropped from the pool's own splits."""
        seed = seed if self.seed is None else self.seed
        own, dropped = (pool.splits or Splits(remain=tuple(pool))).restrict_to(
            pool, self.missing_tasks
        )
        return self.split(own.train + own.remain, pool.is_cls, seed, own.dev, own.test), dropped

    def split(
        self,
        names: Iterable[str],
        is_cls: Callable[[str], bool],
        seed: int,
        dev: Sequence[str] = (),
        test: Sequence[str] = (),
    ) -> Splits:
        """Draws dev and initial training tasks.

        Dev tasks are drawn first, half CLS and half GEN when balanced (an odd one is GEN; if one
        group runs short, the other fills the gap). The first training tasks are then drawn from the
        rest regardless of CLS and GEN, as in the authors' code (their five seeds began with 18 to
        31 CLS of 68). A task's draw depends on the seed and its own name, so the order of the pool
        does not matter. (`AuthorsSplits` draws the authors' own splits.)

        Args:
          names: of the training pool, without the test tasks.
          is_cls: called only when dev is balanced.
          seed: the paper's runs differ in nothing else.
          dev: the pool's own dev tasks; none are drawn then.

        Returns:
          Splits: train and dev in drawn order, remain ascending by name, test as given.

        Raises:
          UserError: the pool is empty or too small, or the numbers of tasks are out of range.
        """
        names = sorted(names)
        count = 0 if dev else self.dev_tasks
        self._check(names, count)
        drawn = _drawn(names, seed, "dev")
        if self.balance_dev_cls_gen and count:
            groups = Quotas(count, cls_ratio=0.5).groups(drawn, is_cls)
            drawn = [name for group in groups for name in group.tasks[: group.quota]]
        dev = tuple(dev) or tuple(drawn[:count])
        rest = _drawn(sorted(set(names) - set(dev)), seed, "train")
        train, remain = rest[: self.initial_tasks], rest[self.initial_tasks :][: self.remain_tasks]
        return Splits(tuple(train), tuple(sorted(remain)), dev, tuple(test))

    def _check(self, names: Sequence[str], dev_tasks: int) -> None:
        if not names:
            raise UserError("The pool has no tasks to draw from; check its train split.")
        if self.initial_tasks < 1 or dev_tasks < 0:
            raise UserError(
                f"INITIAL_TASKS is {self.initial_tasks} and DEV_TASKS is {dev_tasks}; they must be "
                "at least 1 and 0."
            )
        if self.remain_tasks is not None and self.remain_tasks < 1:
            raise UserError(
                f"REMAIN_TASKS is {self.remain_tasks}; it must be at least 1, or None for all."
            )
        if self.initial_tasks + dev_tasks > len(names):
            raise UserError(
                f"INITIAL_TASKS ({self.initial_tasks}) and DEV_TASKS ({dev_tasks}) ask for "
                f"{self.initial_tasks + dev_tasks} tasks, but the pool has {len(names)}; lower "
                "them."
            )


@dataclass(frozen=True)
class AuthorsSplits(Drawn):
    """Round 0's splits as the authors draw them (Active-IT, `write_TLAL_split`).

    From `assets.paper_tasks()`, seeds 10, 20, 30, 40 and 60 give the five released folders, the
    last of which is named 50: the same tasks in the same order. Python's generator shuffles the
    whole list, so another order, another label, one task more or less give other splits.

    Args:
      tasks: a JSON file {task: "CLS" or "GEN"} of all training tasks in the order to draw from
        (SPLIT_TASKS), as `labels_from_file` reads it; what MISSING_TASKS = "drop" drops is dropped
        after the draw. None takes the pool's own training tasks, in the order of its split file,
        with the pool's labels.
      Others: as of `Drawn`. The authors' `chunks` = 10 makes `initial_tasks` and `dev_tasks`
        756 // 11 = 68.
    """

    tasks: str | None = None

    def draw(self, pool: TaskPool, seed: int) -> tuple[Splits, int]:
        """Returns the splits and the number of drawn and test tasks that the pool lacks."""
        if self.tasks is None:
            return super().draw(pool, seed)
        labels = labels_from_file(self.tasks, pool)
        missing = sum(name not in pool for name in labels)
        if missing and self.missing_tasks == "error":
            raise UserError(
                f"the pool lacks {missing:,} of the {len(labels):,} tasks to draw splits from "
                "(SPLIT_TASKS); give the whole pool, or --gin.MISSING_TASKS=drop."
            )
        seed = seed if self.seed is None else self.seed
        test = pool.splits.test if pool.splits else ()
        splits = self.split(labels, labels.__getitem__, seed, test=test)
        return splits.restrict_to(pool, self.missing_tasks)

    def split(
        self,
        names: Iterable[str],
        is_cls: Callable[[str], bool],
        seed: int,
        dev: Sequence[str] = (),
        test: Sequence[str] = (),
    ) -> Splits:
        """As `Drawn.split`, but all lists are in drawn order, and that of `names` matters."""
        names, count = list(names), 0 if dev else self.dev_tasks
        self._check(names, count)
        generator = random.Random(seed)
        generator.shuffle(names)
        if self.balance_dev_cls_gen:
            cls = [name for name in names if is_cls(name)]
            gen = [name for name in names if not is_cls(name)]
            num_cls = count // 2
            drawn = cls[:num_cls] + gen[: count - num_cls]
            rest = cls[num_cls:] + gen[count - num_cls :]
            generator.shuffle(rest)
            train, remain = rest[: self.initial_tasks], rest[self.initial_tasks :]
        else:
            train, behind = names[: self.initial_tasks], names[self.initial_tasks :]
            drawn, remain = behind[:count], behind[count:]
        remain = remain[: self.remain_tasks]
        return Splits(tuple(train), tuple(remain), tuple(dev) or tuple(drawn), tuple(test))


@dataclass(frozen=True)
class FromFiles:
    """Round 0's splits from a folder of split files, as the authors released them.

    Args:
      directory: has train_tasks.txt, remain_tasks.txt, dev_tasks.txt and test_tasks.txt.
      official_test_tasks: a file of the test tasks, for folders that list them together with dev
        tasks; by default the pool's own test tasks.
      missing_tasks: "error" or "drop" tasks that the pool lacks.
    """

    directory: str
    official_test_tasks: str | None = None
    missing_tasks: str = "error"

    def draw(self, pool: TaskPool, seed: int) -> tuple[Splits, int]:
        """Returns the splits and the number of named tasks that the pool lacks."""
        # An empty list would make every shared task a dev task; None demands OFFICIAL_TEST_TASKS.
        own_test = pool.splits.test if pool.splits else ()
        official = self.official_test_tasks or own_test or None
        return read_splits(self.directory, official).restrict_to(pool, self.missing_tasks)


def _drawn(names: Sequence[str], seed: int, purpose: str) -> list[str]:
    draw = functools.partial(randomness.stable_hash, seed, "initial splits", purpose)
    return sorted(names, key=lambda name: (draw(name), name))
