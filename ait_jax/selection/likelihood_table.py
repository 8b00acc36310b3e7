"""The table of log-likelihoods in memory: one matrix per task, checked for holes and nonsense."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from ait_jax.errors import UserError, shown

# A mean log-probability above zero is a rounding error below this, a wrong sign above it.
LARGEST_LOG_LIKELIHOOD = 1e-2


class Encoded(NamedTuple):
    """A dictionary-encoded column of text: no Python object for every row.

    Attributes:
      codes: indices in `names`.
      names: distinct.
    """

    codes: Integer[np.ndarray, " rows"]
    names: list[str]

    def in_name_order(self) -> "Encoded":
        """Returns the column with ascending names."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        rank = np.argsort(np.array(order, np.int64))
        return Encoded(rank[self.codes], [self.names[i] for i in order])


@dataclass(frozen=True)
class LikelihoodTable:
    """Log-likelihoods by task, in an order that the order of rows cannot change.

    Attributes:
      tasks: task names, ascending.
      log_likelihoods: per task [n, k + 1], instances by ascending id; column 0 is the original
        prompt. n and k may differ between tasks.
      generated: per task [n], of the tokens as they were decoded under the original prompt; where
        that is unknown, as in column 0.
    """

    tasks: tuple[str, ...]
    log_likelihoods: tuple[Float[np.ndarray, "_ _"], ...]
    generated: tuple[Float[np.ndarray, " _"], ...]

    @classmethod
    def from_columns(
        cls,
        task: Encoded,
        instance: Encoded,
        prompt: Integer[np.ndarray, " rows"],
        log_likelihood: Float[np.ndarray, " rows"],
        *,
        generated: Float[np.ndarray, " rows"] | None = None,
        file: str = "the likelihood table",
    ) -> "LikelihoodTable":
        """Builds the table from columns, with rows in any order.

        Args:
          task, instance: names and ids.
          prompt: 0 for the original instruction, then 1..k.
          log_likelihood: mean token log-likelihoods in nats, at most 0.
          generated: of decoded tokens, in rows of prompt 0; NaN or None where there is none.
          file: named in errors.

        Raises:
          UserError: a row is missing or occurs twice, or a log-likelihood is not a finite number
            at most 0.
        """
        task, instance = task.in_name_order(), instance.in_name_order()
        value = np.asarray(log_likelihood, np.float64)
        decoded = value if generated is None else np.asarray(generated, np.float64)
        decoded = np.where(np.isnan(decoded), value, decoded)
        rows = _Rows(task, instance, np.asarray(prompt, np.int64), value, decoded, file)
        rows.refuse_impossible()
        order = np.lexsort((rows.prompt, instance.codes, task.codes))
        rows.refuse_double(order)
        return rows.table(order)


@dataclass(frozen=True)
class _Rows:
    """The columns, with ascending names."""

    task: Encoded
    instance: Encoded
    prompt: np.ndarray
    value: np.ndarray
    generated: np.ndarray
    file: str

    def name(self, row: int) -> str:
        task, instance = (c.names[c.codes[row]] for c in (self.task, self.instance))
        return f"task {shown(task)}, instance {shown(instance)}"

    def refuse_impossible(self) -> None:
        lowest, highest = (each(self.value, self.generated) for each in (np.minimum, np.maximum))
        wrong = np.flatnonzero(~np.isfinite(lowest) | ~(highest <= LARGEST_LOG_LIKELIHOOD))
        if len(wrong):
            row = int(wrong[0])
            value = highest[row] if highest[row] > 0 else lowest[row]
            raise UserError(
                f"{self.file}: {len(wrong)} of {len(self.value)} log-likelihoods are not finite "
                f"numbers at most 0; the first is {value} ({self.name(row)}, prompt "
                f"{self.prompt[row]}). Training may have diverged: look at the round's "
                "metrics.jsonl, lower the learning rate, or score in float32."
            )

    def refuse_double(self, order: np.ndarray) -> None:
        """Refuses equal neighbors in sorted order; `order` keeps equal rows in row order."""
        equal = np.ones(max(0, len(order) - 1), bool)
        for column in (self.task.codes, self.instance.codes, self.prompt):
            equal &= np.diff(column[order]) == 0
        if equal.any():
            row = int(order[1:][equal].min())
            raise UserError(
                f"{self.file}: {self.name(row)}, prompt {self.prompt[row]} occurs twice; score "
                "the round again."
            )

    def table(self, order: np.ndarray) -> LikelihoodTable:
        """Returns the table; UserError for holes. No row may occur twice."""
        task, instance = self.task.codes[order], self.instance.codes[order]
        prompt, value = self.prompt[order], self.value[order]
        # Where a task, and an instance of a task, begins among the sorted rows.
        new_task = np.flatnonzero(np.diff(task, prepend=-1))
        new_instance = np.flatnonzero(np.diff(task, prepend=-1) | np.diff(instance, prepend=-1))
        task_of_instance = np.searchsorted(new_task, new_instance, side="right") - 1
        first_instance = np.searchsorted(new_instance, new_task)
        found = np.diff(new_instance, append=len(task))
        # After a race a task's instances have different prompts, but the same number of them.
        num_prompts = np.maximum.reduceat(found, first_instance) if len(task) else new_task
        holes = (found != num_prompts[task_of_instance]) | (prompt[new_instance] != 0)
        if holes.any():
            first = int(np.flatnonzero(holes)[0])
            start = int(new_instance[first])
            wanted = range(num_prompts[task_of_instance[first]])
            missing = sorted(set(wanted) - set(prompt[start : start + found[first]].tolist()))
            raise UserError(
                f"{self.file}: {self.name(int(order[start]))} has no log-likelihood for prompt(s) "
                f"{missing[:5]} of 0..{len(wanted) - 1}; the file is cut short or mixes two "
                "settings. Delete it and run again to score the round again."
            )
        of_tasks = np.split(value, new_task)[1:]
        return LikelihoodTable(
            tuple(self.task.names[i] for i in task[new_task]),
            tuple(v.reshape(-1, k) for v, k in zip(of_tasks, num_prompts.tolist(), strict=True)),
            tuple(np.split(self.generated[order][new_instance], first_instance)[1:]),
        )
