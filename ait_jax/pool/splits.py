"""Split files: which tasks are trained on, which may still be chosen, dev and test tasks.

The format is the authors' (Active-IT, `reproduce_splits`): a folder with `train_tasks.txt`,
`remain_tasks.txt`, `dev_tasks.txt` and `test_tasks.txt`, one task name per line. In their folders
the dev and test files hold the same lines, the official test tasks and the dev tasks (drawn from
the training pool) together; here a task is one or the other.
"""

import itertools
import os
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ait_jax.errors import UserError, nearest, shown
from ait_jax.runtime.files import as_path, check_name, read_given_text, write_lines

SPLIT_NAMES = ("train", "remain", "dev", "test")


@dataclass(frozen=True)
class Splits:
    """The task names of a round, in order, in four disjoint groups.

    Attributes:
      train: tasks chosen so far.
      remain: tasks that may still be chosen.
      dev: held-out tasks that choose the checkpoint.
      test: held-out tasks that are reported.

    Raises:
      UserError: a name appears twice.
    """

    train: tuple[str, ...] = ()
    remain: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for split in SPLIT_NAMES:
            names = tuple(getattr(self, split))
            object.__setattr__(self, split, names)
            for name in names:
                if name in seen:
                    first = seen[name]
                    where = f"twice in {split}" if first == split else f"in {first} and in {split}"
                    raise UserError(
                        f"task {shown(name)} is {where}: a task belongs to one split, once."
                    )
                seen[name] = split

    @property
    def names(self) -> tuple[str, ...]:
        """All names: train, remain, dev, test."""
        return self.train + self.remain + self.dev + self.test

    def restrict_to(
        self, pool: Collection[str], missing_tasks: str = "error"
    ) -> tuple["Splits", int]:
        """Returns the splits without the tasks that `pool` lacks, and the number of those.

        Args:
          missing_tasks: "error" refuses names that the pool lacks, "drop" leaves them out
            (MISSING_TASKS).

        Raises:
          UserError: a name is missing under "error", no training task is left under "drop", or
            another value was given.
        """
        if missing_tasks not in ("error", "drop"):
            raise UserError(
                f"MISSING_TASKS is {shown(missing_tasks)}; it must be 'error' or 'drop'."
                + nearest(str(missing_tasks), ("error", "drop"))
            )
        missing = [name for name in self.names if name not in pool]
        if not missing:
            return self, 0
        if missing_tasks == "error":
            raise UserError(
                f"the splits name task {shown(missing[0])}, which the pool lacks"
                f" ({len(missing)} of {len(self.names)} names are missing)."
                + nearest(missing[0], pool)
                + ' Add the tasks to the pool, or set MISSING_TASKS = "drop" to go on without them.'
            )
        restricted = self.only(pool)
        if self.train and not restricted.train:
            raise UserError(
                f"none of the {len(self.train)} training tasks of the splits is in the pool"
                f" (the first is {shown(self.train[0])}). Give splits made for this pool."
            )
        return restricted, len(missing)

    def after(self, selected: Sequence[str]) -> "Splits":
        """Returns the next round's splits: `selected` no longer remain, they are trained on."""
        chosen = set(selected)
        remain = tuple(name for name in self.remain if name not in chosen)
        return Splits(self.train + tuple(selected), remain, self.dev, self.test)

    def only(self, known: Container[str]) -> "Splits":
        """Returns the splits reduced to the names in `known`, in the same order."""
        kept = {s: tuple(n for n in getattr(self, s) if n in known) for s in SPLIT_NAMES}
        return replace(self, **kept)


def read_names(path: Any) -> tuple[str, ...]:
    """Reads a file of task names, one per line; blank lines and Windows line ends are fine.

    Raises:
      UserError: the file cannot be read, or a line is not a task name or repeats one (with file
        and line).
    """
    return tuple(_read_lines(path))


def _read_lines(path: Any) -> dict[str, int]:
    """Returns each name in the file with its line number, in the file's order."""
    lines: dict[str, int] = {}
    text = read_given_text(path, "the list of tasks")
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip()
        if not name:
            continue
        check_name(name, f"{path}, line {number}: task name")
        if name in lines:
            raise UserError(
                f"{path}, line {number}: task {shown(name)} is already on line {lines[name]}; "
                "remove one."
            )
        lines[name] = number
    return lines


def read_splits(
    directory: Any, official_test: Iterable[str] | str | os.PathLike[str] | None = None
) -> Splits:
    """Reads a folder of split files.

    `train_tasks.txt` and `test_tasks.txt` are required, the other two are not. A task in both the
    dev and the test file, as all are in the authors' folders, is a test task if the official test
    list has it, else a dev task.

    Args:
      directory: the folder, local or an epath.
      official_test: names of the official test tasks, or the path of a file of them (NIV2's
        `splits/default/test_tasks.txt`, the authors' `default_dev/test_tasks.txt`). The part of the
        list that a pool has is enough if the splits are then restricted to that pool
        (`Splits.restrict_to`). Unused if dev and test are disjoint.

    Raises:
      UserError: no such folder or file, bad or repeated names, a task in two splits (with file and
        line), or dev and test overlap and no official list was given.
    """
    directory = as_path(directory)
    if not directory.is_dir():
        raise UserError(f"the folder of split files {shown(str(directory))} does not exist.")
    read: dict[str, dict[str, int]] = {}
    for split in SPLIT_NAMES:
        path = directory / f"{split}_tasks.txt"
        required = split in ("train", "test")
        read[split] = _read_lines(path) if required or path.exists() else {}
    _check_disjoint(directory, read)
    dev, test = _separate(directory, tuple(read["dev"]), tuple(read["test"]), official_test)
    return Splits(tuple(read["train"]), tuple(read["remain"]), dev, test)


def _check_disjoint(directory: Any, read: Mapping[str, Mapping[str, int]]) -> None:
    """Raises UserError if a task is in two of the files, other than dev and test."""
    for first, second in itertools.combinations(SPLIT_NAMES, 2):
        for name, line in read[second].items():
            if name in read[first] and (first, second) != ("dev", "test"):
                raise UserError(
                    f"{directory / f'{second}_tasks.txt'}, line {line}: task {shown(name)} is also "
                    f"in {first}_tasks.txt, line {read[first][name]}; a task belongs to one split."
                )


def _separate(
    directory: Any,
    dev: tuple[str, ...],
    test: tuple[str, ...],
    official_test: Iterable[str] | str | os.PathLike[str] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    both = frozenset(dev) & frozenset(test)
    if not both:
        return dev, test
    if official_test is None:
        raise UserError(
            f"{directory}: {len(both)} tasks are in both dev_tasks.txt and test_tasks.txt, as in "
            "the authors' folders. Set OFFICIAL_TEST_TASKS to a list of the test tasks (NIV2's "
            "splits/default/test_tasks.txt); the others are then dev tasks."
        )
    if isinstance(official_test, (str, os.PathLike)):
        official_test = read_names(official_test)
    official = frozenset(official_test)
    return (
        tuple(name for name in dev if name not in both or name not in official),
        tuple(name for name in test if name not in both or name in official),
    )


def write_splits(directory: Any, splits: Splits) -> None:
    """Writes the four split files, each whole or not at all, creating the folder if needed.

    Raises:
      UserError: a name is unsafe or the folder is not writable.
    """
    directory = as_path(directory)
    for split in SPLIT_NAMES:
        names = getattr(splits, split)
        for name in names:
            check_name(name, f"{split} task name")
        write_lines(directory / f"{split}_tasks.txt", names)
