"""Prompt uncertainty and its relatives: log-likelihoods in, one score per task out.

Input is the scorer's long table (`likelihoods.parquet`): for every scored instance i
of a task and every prompt j (0 is the original instruction, 1..k the perturbed ones),
the mean token log-likelihood of the answer y_i, end-of-sequence included. With
p_ij = exp(log_likelihood_ij), Active Instruction Tuning (arXiv 2311.00288, section 3)
defines

    prompt uncertainty      = mean over i and j >= 1 of |p_i0 - p_ij|
    prediction probability  = mean over i of p_i0

It does not matter here where y_i came from: with the model's own greedy answers these are
the paper's measures, with reference outputs the authors' gold-label ("HL") variant.
Everything is float64 NumPy, whatever the precision of the table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ait_jax.errors import UserError
from ait_jax.selection.likelihood_table import LikelihoodTable

# Every measure takes mean token log-likelihoods in nats, of one task or of a stack of tasks, each
# with n instances and k + 1 prompts, and returns a float64 for each task.
LogLikelihoods = Float[np.ndarray, "*stack n prompts"]
Measure = Float[np.ndarray | np.float64, "*stack"]
PerTask = Float[np.ndarray, " tasks"]


@dataclass(frozen=True)
class TaskScores:
    """One row per task, as in `task_scores.parquet`. Floats are float64.

    Attributes:
      tasks: names.
      prompt_uncertainty: mean |p_i0 - p_ij|, in [0, 1]; NaN where k is 0.
      prompt_uncertainty_error: its standard error over instances; NaN where n is 1 or k is 0.
      prediction_probability: mean p_i0, in [0, 1].
      perplexity: mean over instances of exp(-l_i), at least 1, with l_i the mean log-likelihood of
        the tokens that were decoded, as they were decoded, or of y_i where it was not decoded.
      signed_mean: mean (p_i0 - p_ij): positive where the original prompt is the better one. The
        authors' "Mean-bald" has the other sign: its "High" is direction "low" here.
      std: mean over instances of the population standard deviation of p_ij over j >= 1, the
        spread that wording alone makes. (The authors' "Std" is one standard deviation over all
        instances and prompts, the original too, and so also high where instances differ.)
      num_instances: n.
      num_prompts: k + 1; the original prompt counts.
    """

    tasks: tuple[str, ...]
    prompt_uncertainty: PerTask
    prompt_uncertainty_error: PerTask
    prediction_probability: PerTask
    perplexity: PerTask
    signed_mean: PerTask
    std: PerTask
    num_instances: Int[np.ndarray, " tasks"]
    num_prompts: Int[np.ndarray, " tasks"]

    @classmethod
    def unscored(cls, tasks: Iterable[str]) -> "TaskScores":
        """Returns names with NaN for scores, for strategies that need none."""
        names = tuple(tasks)
        nan = np.full(len(names), np.nan)
        zero = np.zeros(len(names), np.int64)
        return cls(names, nan, nan, nan, nan, nan, nan, zero, zero)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "TaskScores":
        """Inverse of `columns`; UserError names missing columns."""
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
        """Returns the columns' names in file order, `task` first."""
        return ("task", *(field.name for field in fields(cls) if field.name != "tasks"))

    def columns(self) -> dict[str, list[str] | np.ndarray]:
        """Returns the columns in file order."""
        names = self.column_names()[1:]
        return {"task": list(self.tasks), **{name: getattr(self, name) for name in names}}

    def subset(self, tasks: Iterable[str]) -> "TaskScores":
        """Returns the rows of `tasks`, in that order; KeyError for an unknown name."""
        row_of = {name: row for row, name in enumerate(self.tasks)}
        names = tuple(tasks)
        rows = np.array([row_of[name] for name in names], np.int64)
        arrays = {name: getattr(self, name)[rows] for name in self.column_names()[1:]}
        return TaskScores(tasks=names, **arrays)

    def __len__(self) -> int:
        return len(self.tasks)


def _differences(log_likelihood: LogLikelihoods) -> Float[np.ndarray, "*stack n k"]:
    """Returns p_i0 - p_ij for j >= 1."""
    probability = np.exp(np.asarray(log_likelihood, np.float64))
    return probability[..., :1] - probability[..., 1:]


def _mean(values: Float[np.ndarray, "*stack n k"]) -> Measure:
    """Returns the mean over instances and prompts."""
    *tasks, n, k = values.shape
    # Summed over one axis: a task's sum has the same rounding alone and in a stack.
    return values.reshape(*tasks, n * k).mean(axis=-1) if k else np.full(tasks, np.nan)


def prompt_uncertainty(log_likelihood: LogLikelihoods) -> Measure:
    """Returns the paper's measure, mean |p_i0 - p_ij| over i and j >= 1 (NaN if k is 0).

    Source: paper section 3; `get_task_PI_StdOrMean_OriginalDef` with Mean-abs-bald.
    """
    return _mean(np.abs(_differences(log_likelihood)))


def prompt_uncertainty_error(log_likelihood: LogLikelihoods) -> Measure:
    """Returns the standard error of `prompt_uncertainty` over instances (NaN if n is 1 or k 0)."""
    differences = np.abs(_differences(log_likelihood))
    *tasks, n, k = differences.shape
    if n < 2 or not k:
        return np.full(tasks, np.nan)
    return differences.mean(axis=-1).std(axis=-1, ddof=1) / np.sqrt(n)


def signed_mean(log_likelihood: LogLikelihoods) -> Measure:
    """Returns mean (p_i0 - p_ij) over i and j >= 1: how much the original prompt helps.

    Minus the authors' mean difference (Mean-bald without abs).
    """
    return _mean(_differences(log_likelihood))


def std(log_likelihood: LogLikelihoods) -> Measure:
    """Returns the mean over i of the population standard deviation of p_ij over j >= 1.

    Not the authors' "Std", which is one standard deviation over all i and j, the original included.
    """
    perturbed = np.exp(np.asarray(log_likelihood, np.float64)[..., 1:])
    if not perturbed.shape[-1]:
        return np.full(perturbed.shape[:-2], np.nan)
    return _mean(perturbed.std(axis=-1, keepdims=True))


def prediction_probability(log_likelihood: LogLikelihoods) -> Measure:
    """Returns mean p_i0: the model's confidence in its answers (the task map's y axis)."""
    return _mean(np.exp(np.asarray(log_likelihood, np.float64)[..., :1]))


def perplexity(log_likelihood: LogLikelihoods) -> Measure:
    """Returns mean over i of exp(-log_likelihood_i0), the authors' perplexity baseline.

    They take the log-likelihood of the tokens that were decoded; an answer's text, tokenized anew,
    may have others. `task_scores` does the same: `LikelihoodTable.generated`.
    """
    return _mean(np.exp(-np.asarray(log_likelihood, np.float64)[..., :1]))


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
    shapes = np.array([matrix.shape for matrix in table.log_likelihoods], np.int64).reshape(-1, 2)
    columns = {name: np.empty(len(table.tasks)) for name in MEASURES}
    # Tasks of equal n and k are measured together.
    for shape in np.unique(shapes, axis=0):
        rows = np.flatnonzero((shapes == shape).all(axis=1))
        stack = np.stack([table.log_likelihoods[row] for row in rows])
        generated = np.stack([table.generated[row] for row in rows])[..., None]
        for name, measure in MEASURES.items():
            columns[name][rows] = measure(generated if measure is perplexity else stack)
    return TaskScores(
        tasks=table.tasks, **columns, num_instances=shapes[:, 0], num_prompts=shapes[:, 1]
    )
