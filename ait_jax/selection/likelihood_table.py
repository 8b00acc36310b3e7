"""The table of log-likelihoods in memory: one matrix per task, checked for holes and nonsense."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ait_jax.errors import UserError

# A mean log-probability above zero is a rounding error below this, a wrong sign above it.
LARGEST_LOG_LIKELIHOOD = 1e-2


@dataclass(frozen=True)
class LikelihoodTable:
    """Log-likelihoods by task, in a canonical order that row order cannot change.

    Attributes:
      tasks: task names, ascending.
      instance_ids: per task, the ids of its n instances, ascending.
      log_likelihoods: per task, float64[n, k + 1]; column 0 is the original prompt.
        n and k may differ between tasks.
    """

    tasks: tuple[str, ...]
    instance_ids: tuple[tuple[str, ...], ...]
    log_likelihoods: tuple[np.ndarray, ...]

    @classmethod
    def from_columns(
        cls,
        task: Sequence[str],
        instance_id: Sequence[str],
        prompt: Sequence[int],
        log_likelihood: Sequence[float],
        *,
        source: str = "the likelihood table",
    ) -> "LikelihoodTable":
        """Builds the table from four columns of equal length, rows in any order.

        Args:
          task, instance_id: strings [rows].
          prompt: integers [rows], 0 for the original instruction, then 1..k.
          log_likelihood: mean token log-likelihoods in nats [rows], at most 0.
          source: named in errors, usually the file.

        Raises:
          UserError: the columns differ in length, a row is missing or double, or a
            log-likelihood is not a finite number at most 0.
        """
        lengths = [len(column) for column in (task, instance_id, prompt, log_likelihood)]
        if len(set(lengths)) != 1:
            raise UserError(
                f"{source}: columns of different lengths (task {lengths[0]}, instance_id "
                f"{lengths[1]}, prompt {lengths[2]}, log_likelihood {lengths[3]}); "
                "score the round again."
            )
        return cls.from_codes(
            *_codes(task), *_codes(instance_id), prompt, log_likelihood, source=source
        )

    @classmethod
    def from_codes(
        cls,
        task: np.ndarray,
        tasks: Sequence[str],
        instance: np.ndarray,
        instance_ids: Sequence[str],
        prompt: Sequence[int],
        log_likelihood: Sequence[float],
        *,
        source: str = "the likelihood table",
    ) -> "LikelihoodTable":
        """The same from dictionary-encoded names, without a Python object for every row.

        Args:
          task, instance: integers [rows], indices in `tasks` and `instance_ids`.
          tasks, instance_ids: distinct names in any order.

        Raises:
          UserError: as `from_columns`.
        """
        task, tasks = _in_name_order(task, tasks)
        instance, instance_ids = _in_name_order(instance, instance_ids)
        rows = _Rows(
            task,
            tasks,
            instance,
            instance_ids,
            np.asarray(prompt, np.int64),
            np.asarray(log_likelihood, np.float64),
            source,
        )
        rows.refuse_impossible()
        order = np.lexsort((rows.prompt, instance, task))
        rows.refuse_double(order)
        return rows.table(order)

    def matrix(self, task: str) -> np.ndarray:
        """Returns float64[n, k + 1] of one task; KeyError for a task that is not in it."""
        row = bisect_left(self.tasks, task)
        if self.tasks[row : row + 1] != (task,):
            raise KeyError(task)
        return self.log_likelihoods[row]


def _codes(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns (int64[rows] indices in the distinct names, the distinct names)."""
    index_of: dict[str, int] = {}
    codes = [index_of.setdefault(str(name), len(index_of)) for name in names]
    return np.array(codes, np.int64), list(index_of)


def _in_name_order(codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Renumbers codes so that their order is the names' ascending order."""
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[codes], [names[i] for i in order]


@dataclass(frozen=True)
class _Rows:
    """Rows as arrays: names as indices in ascending lists of names."""

    task: np.ndarray
    tasks: list[str]
    instance: np.ndarray
    instance_ids: list[str]
    prompt: np.ndarray
    value: np.ndarray
    source: str

    def name(self, row: int) -> str:
        return (
            f"task {self.tasks[self.task[row]]!r}, instance "
            f"{self.instance_ids[self.instance[row]]!r}"
        )

    def refuse_impossible(self) -> None:
        wrong = np.flatnonzero(~np.isfinite(self.value) | (self.value > LARGEST_LOG_LIKELIHOOD))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{self.source}: {len(wrong)} of {len(self.value)} log-likelihoods are not finite "
                f"numbers at most 0; the first is {self.value[row]} ({self.name(row)}, prompt "
                f"{self.prompt[row]}). A model whose training diverged gives such numbers: look "
                "at the round's metrics.jsonl, lower the learning rate or score in float32."
            )

    def refuse_double(self, order: np.ndarray) -> None:
        """Refuses equal neighbours in sorted order; `order` keeps equal rows in row order."""
        equal = np.ones(max(0, len(order) - 1), bool)
        for column in (self.task, self.instance, self.prompt):
            equal &= np.diff(column[order]) == 0
        if equal.any():
            row = int(order[1:][equal].min())
            raise UserError(
                f"{self.source}: {self.name(row)}, prompt {self.prompt[row]} occurs twice; score "
                "the round again."
            )

    def table(self, order: np.ndarray) -> LikelihoodTable:
        """Returns the table; UserError for holes. No row is double."""
        task, instance, prompt = self.task[order], self.instance[order], self.prompt[order]
        value = self.value[order]
        # Where a task, and an instance of a task, begins among the sorted rows.
        new_task = np.flatnonzero(np.diff(task, prepend=-1))
        new_instance = np.flatnonzero(np.diff(task, prepend=-1) | np.diff(instance, prepend=-1))
        task_of_instance = np.searchsorted(new_task, new_instance, side="right") - 1
        first_instance = np.searchsorted(new_instance, new_task)
        found = np.diff(new_instance, append=len(task))
        # A race leaves other prompts to other instances, but as many to all of a task.
        num_prompts = np.maximum.reduceat(found, first_instance) if len(task) else new_task
        holes = (found != num_prompts[task_of_instance]) | (prompt[new_instance] != 0)
        if holes.any():
            first = int(np.flatnonzero(holes)[0])
            start = new_instance[first]
            self._refuse_hole(
                order[start],
                prompt[start : start + found[first]],
                int(num_prompts[task_of_instance[first]]),
            )
        ids = [self.instance_ids[i] for i in instance[new_instance]]
        ends = np.append(new_task, len(task))[1:]
        num_instances = np.bincount(task_of_instance, minlength=len(new_task))
        last = np.cumsum(num_instances)
        return LikelihoodTable(
            tasks=tuple(self.tasks[i] for i in task[new_task]),
            instance_ids=tuple(tuple(ids[b - n : b]) for n, b in zip(num_instances, last)),
            log_likelihoods=tuple(
                value[a:b].reshape(n, -1) for a, b, n in zip(new_task, ends, num_instances)
            ),
        )

    def _refuse_hole(self, row: int, found: np.ndarray, num_prompts: int) -> None:
        missing = sorted(set(range(num_prompts)) - set(found.tolist()))
        raise UserError(
            f"{self.source}: {self.name(row)} has no log-likelihood for prompt(s) {missing[:5]} of "
            f"0..{num_prompts - 1}; the file is cut short or was written by two settings. "
            "Delete it and run again: the round is scored anew."
        )
