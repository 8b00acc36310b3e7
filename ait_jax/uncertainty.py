"""Prompt uncertainty and its relatives: log-likelihoods in, one score per task out.

Input is the scorer's long table (`likelihoods.parquet`): for every scored instance i
of a task and every prompt j (0 is the original instruction, 1..k the perturbed ones),
the mean token log-likelihood of the answer y_i, end-of-sequence included. With
p_ij = exp(log_likelihood_ij), Active Instruction Tuning (arXiv 2311.00288, section 3)
defines

    prompt uncertainty      = mean over i and j >= 1 of |p_i0 - p_ij|
    prediction probability  = mean over i of p_i0

Nothing here knows where y_i came from: with the model's own greedy answers these are
the paper's measures, with reference outputs the authors' gold-label ("HL") variant.
Everything is float64 NumPy, whatever the precision of the table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

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
        values = np.asarray(log_likelihood, np.float64)
        prompts = np.asarray(prompt)
        lengths = {len(task), len(instance_id), len(prompts), len(values)}
        if len(lengths) != 1:
            raise UserError(
                f"{source}: columns of different lengths (task {len(task)}, instance_id "
                f"{len(instance_id)}, prompt {len(prompts)}, log_likelihood {len(values)}); "
                "score the round again."
            )
        _refuse_impossible(task, instance_id, prompts, values, source)
        rows_by_task: dict[str, dict[str, dict[int, float]]] = {}
        rows = zip(task, instance_id, prompts.tolist(), values.tolist())
        for name, instance, j, value in rows:
            cells = rows_by_task.setdefault(str(name), {}).setdefault(str(instance), {})
            if j in cells:
                raise UserError(
                    f"{source}: task {name!r}, instance {instance!r}, prompt {j} occurs "
                    "twice; score the round again."
                )
            cells[j] = value
        tasks = tuple(sorted(rows_by_task))
        return cls(
            tasks=tasks,
            instance_ids=tuple(tuple(sorted(rows_by_task[name])) for name in tasks),
            log_likelihoods=tuple(_matrix(name, rows_by_task[name], source) for name in tasks),
        )

    def matrix(self, task: str) -> np.ndarray:
        """Returns float64[n, k + 1] of one task; KeyError for a task that is not in it."""
        try:
            return self.log_likelihoods[self.tasks.index(task)]
        except ValueError:
            raise KeyError(task) from None


def _refuse_impossible(task, instance_id, prompts, values, source: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(values) | (values > LARGEST_LOG_LIKELIHOOD))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{source}: {len(wrong)} of {len(values)} log-likelihoods are not finite numbers "
            f"at most 0; the first is {values[row]} (task {str(task[row])!r}, instance "
            f"{str(instance_id[row])!r}, prompt {prompts[row]}). A model whose training "
            "diverged gives such numbers: look at the round's metrics.jsonl, lower the "
            "learning rate or score in float32."
        )


def _matrix(task: str, cells: Mapping[str, Mapping[int, float]], source: str) -> np.ndarray:
    """Returns float64[n, k + 1] of one task, refusing holes."""
    num_prompts = 1 + max(max(by_prompt) for by_prompt in cells.values())
    for instance in sorted(cells):
        missing = sorted(set(range(num_prompts)) - set(cells[instance]))
        if missing or len(cells[instance]) != num_prompts:
            raise UserError(
                f"{source}: task {task!r}, instance {instance!r} has no log-likelihood for "
                f"prompt(s) {missing[:5]} of 0..{num_prompts - 1}; the file is cut short or "
                "was written by two settings. Delete it and run again: the round is scored anew."
            )
    return np.array(
        [[cells[instance][j] for j in range(num_prompts)] for instance in sorted(cells)],
        np.float64,
    )


@dataclass(frozen=True)
class TaskScores:
    """One row per task: what `task_scores.parquet` holds. Float columns are float64.

    Attributes:
      tasks: names.
      prompt_uncertainty: mean |p_i0 - p_ij|, in [0, 1]; NaN where k is 0.
      prompt_uncertainty_error: its standard error over instances; NaN where n is 1 or k is 0.
      prediction_probability: mean p_i0, in [0, 1].
      perplexity: mean over instances of exp(-log_likelihood_i0), at least 1.
      signed_mean: mean (p_i0 - p_ij): positive where the original prompt is the better one.
      std: mean over instances of the population standard deviation of p_ij over j >= 1.
      num_instances: n, integers.
      num_prompts: k + 1, integers; the original prompt counts.
    """

    tasks: tuple[str, ...]
    prompt_uncertainty: np.ndarray
    prompt_uncertainty_error: np.ndarray
    prediction_probability: np.ndarray
    perplexity: np.ndarray
    signed_mean: np.ndarray
    std: np.ndarray
    num_instances: np.ndarray
    num_prompts: np.ndarray

    @classmethod
    def unscored(cls, tasks: Iterable[str]) -> "TaskScores":
        """Returns names without scores (NaN), for strategies that need none."""
        names = tuple(tasks)
        nan = np.full(len(names), np.nan)
        zero = np.zeros(len(names), np.int64)
        return cls(names, nan, nan, nan, nan, nan, nan, zero, zero)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence]) -> "TaskScores":
        """Inverse of `columns`; UserError names a column that is missing."""
        missing = [name for name in cls.column_names() if name not in columns]
        if missing:
            raise UserError(
                f"The task scores lack the column(s) {', '.join(missing)}; they have "
                f"{', '.join(columns)}. Score the round again with this version."
            )
        arrays = {
            name: np.asarray(columns[name], np.int64 if name.startswith("num_") else np.float64)
            for name in cls.column_names()[1:]
        }
        return cls(tasks=tuple(str(name) for name in columns["task"]), **arrays)

    @classmethod
    def column_names(cls) -> tuple[str, ...]:
        return ("task", *(field.name for field in fields(cls) if field.name != "tasks"))

    def columns(self) -> dict[str, list | np.ndarray]:
        """Returns the columns in file order, `task` first."""
        arrays = {name: getattr(self, name) for name in self.column_names()[1:]}
        return {"task": list(self.tasks), **arrays}

    def subset(self, tasks: Iterable[str]) -> "TaskScores":
        """Returns the rows of `tasks`, in that order; KeyError for an unknown name."""
        row_of = {name: row for row, name in enumerate(self.tasks)}
        names = tuple(tasks)
        rows = np.array([row_of[name] for name in names], np.int64)
        arrays = {name: getattr(self, name)[rows] for name in self.column_names()[1:]}
        return TaskScores(tasks=names, **arrays)

    def __len__(self) -> int:
        return len(self.tasks)


def _differences(log_likelihood: np.ndarray) -> np.ndarray:
    """Returns p_i0 - p_ij for j >= 1: float64[n, k] from float[n, k + 1]."""
    probability = np.exp(np.asarray(log_likelihood, np.float64))
    return probability[:, :1] - probability[:, 1:]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def instance_prompt_uncertainty(log_likelihood: np.ndarray) -> np.ndarray:
    """Returns mean over j >= 1 of |p_i0 - p_ij| for each instance: float64[n], NaN if k is 0."""
    differences = np.abs(_differences(log_likelihood))
    if not differences.shape[1]:
        return np.full(len(differences), np.nan)
    return differences.mean(axis=1)


def prompt_uncertainty(log_likelihood: np.ndarray) -> float:
    """Returns the paper's measure, mean |p_i0 - p_ij| over i and j >= 1 (NaN if k is 0).

    Source: paper section 3; `get_task_PI_StdOrMean_OriginalDef` with Mean-abs-bald.
    `log_likelihood` is float[n, k + 1], mean token log-likelihoods in nats.
    """
    return _mean(np.abs(_differences(log_likelihood)))


def prompt_uncertainty_error(log_likelihood: np.ndarray) -> float:
    """Returns the standard error of `prompt_uncertainty` over instances (NaN if n is 1)."""
    by_instance = instance_prompt_uncertainty(log_likelihood)
    if len(by_instance) < 2:
        return float("nan")
    return float(by_instance.std(ddof=1) / np.sqrt(len(by_instance)))


def signed_mean(log_likelihood: np.ndarray) -> float:
    """Returns mean (p_i0 - p_ij) over i and j >= 1: how much the original prompt helps."""
    return _mean(_differences(log_likelihood))


def std(log_likelihood: np.ndarray) -> float:
    """Returns the mean over i of the population standard deviation of p_ij over j >= 1.

    The authors' "Std" variant without "bald": only perturbed prompts take part.
    """
    perturbed = np.exp(np.asarray(log_likelihood, np.float64)[:, 1:])
    return float(perturbed.std(axis=1).mean()) if perturbed.size else float("nan")


def prediction_probability(log_likelihood: np.ndarray) -> float:
    """Returns mean p_i0: the model's confidence in its answers (the task map's y axis)."""
    return _mean(np.exp(np.asarray(log_likelihood, np.float64)[:, 0]))


def perplexity(log_likelihood: np.ndarray) -> float:
    """Returns mean over i of exp(-log_likelihood_i0), the authors' perplexity baseline."""
    return _mean(np.exp(-np.asarray(log_likelihood, np.float64)[:, 0]))


MEASURES = {
    "prompt_uncertainty": prompt_uncertainty,
    "prompt_uncertainty_error": prompt_uncertainty_error,
    "prediction_probability": prediction_probability,
    "perplexity": perplexity,
    "signed_mean": signed_mean,
    "std": std,
}


def task_scores(table: LikelihoodTable) -> TaskScores:
    """Returns every measure for every task of the table, tasks ascending by name."""
    arrays = {
        name: np.array([measure(matrix) for matrix in table.log_likelihoods], np.float64)
        for name, measure in MEASURES.items()
    }
    shapes = np.array([matrix.shape for matrix in table.log_likelihoods], np.int64).reshape(-1, 2)
    return TaskScores(
        tasks=table.tasks, **arrays, num_instances=shapes[:, 0], num_prompts=shapes[:, 1]
    )
