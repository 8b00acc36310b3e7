"""Prompt uncertainty from part of its passes: a prediction of the rest, and who is on top.

A task's score is the mean of its n x k cells |p_i0 - p_ij|. Which cells are computed first
decides how much they tell. Dropping one word can change the answers of all instances, so
perturbations differ wildly: the column means of a real task may be 0.04, 0.05, 0.66, 0.66, ...
A step therefore takes another perturbation for every instance, a diagonal of the matrix
(`prompt_order`). As in a Latin square, the effects of single perturbations and of single
instances cancel in the mean of a diagonal, whose variance is 3 to 11 times smaller on real
tables (tests/benchmarks/racing.py prints it).

With m the mean of w of a task's k diagonals, of relative variance s^2, and b the largest
mean that a diagonal can have, the score M is predicted as

    log(M) ~ log(m) + sqrt(s^2 (1/w - 1/k)) t(d),   w m / k <= M <= (w m + (k - w) b) / k

It is a finite population: only the k - w diagonals to come are uncertain. Logarithms,
because the spread of diagonals is proportional to their mean. An s^2 of few diagonals says
little, so it is shrunk toward a value common to all tasks by empirical Bayes, as in limma
(Smyth 2004, doi:10.2202/1544-6115.1027); d is the degrees of freedom of both together.

Everything is float64 NumPy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from ait_jax.selection.selection import SCORE_TOLERANCE

# Candidates for the prior's degrees of freedom. However alike the tasks look, no tail lighter
# than that of t(4 + w - 1) is believed: with candidates up to 8, scores beyond the upper 0.1%
# quantile were up to 9 times as frequent as predicted on real tables (n from 4 to 10); up to 4,
# at most 4 times.
PRIOR_DOFS = (1, 2, 3, 4)
PRIOR_VARIANCES = np.geomspace(1e-4, 1e2, 140)
# A complete task has a scale of 0, by which nothing can be divided; its bounds coincide and decide.
SMALLEST_SCALE = 1e-12


def prompt_order(num_instances: int, num_perturbations: int) -> Int[np.ndarray, "n k"]:
    """Returns the numbers 1..k in the order to compute them, for every instance.

    Column c is step c. It takes each instance once, and perturbations as evenly as n and k
    allow: with n = k it is a permutation of 1..k. After ceil(k / n) steps every perturbation
    was tried on some instance.
    """
    n, k = num_instances, num_perturbations
    starts = np.arange(n) * k // n if n < k else np.arange(n)
    return (starts[:, None] + np.arange(k)) % k + 1


@dataclass(frozen=True)
class PredictedScores:
    """Independent predictions: every log(score) has a t distribution within bounds.

    Logarithms are of score + SCORE_TOLERANCE, below which scores are noise.

    Attributes:
      log_mean, log_scale: location and scale; the scale is 0 where all is known.
      dof: degrees of freedom.
      lowest, highest: bounds of log(score).
    """

    log_mean: Float[np.ndarray, " tasks"]
    log_scale: Float[np.ndarray, " tasks"]
    dof: Int[np.ndarray, " tasks"]
    lowest: Float[np.ndarray, " tasks"]
    highest: Float[np.ndarray, " tasks"]

    def rows(self, index: Sequence[int]) -> "PredictedScores":
        """Returns the predictions of some tasks, in that order."""
        return PredictedScores(*(getattr(self, field.name)[index] for field in fields(self)))

    def survival(
        self, log_values: Float[np.ndarray, " values"]
    ) -> Float[np.ndarray, "tasks values"]:
        """Returns P(log score > value)."""
        scale = np.maximum(self.log_scale, SMALLEST_SCALE)[:, None]
        scaled = (log_values - self.log_mean[:, None]) / scale
        survival = np.empty_like(scaled)
        for dof in np.unique(self.dof):
            survival[self.dof == dof] = student_survival(scaled[self.dof == dof], int(dof))
        survival[log_values < self.lowest[:, None]] = 1
        survival[log_values >= self.highest[:, None]] = 0
        return survival


def predict(
    cells: Sequence[Float[np.ndarray, "_ _"]], largest: Sequence[float], num_perturbations: int
) -> PredictedScores:
    """Predicts the scores of tasks from their first steps.

    Args:
      cells: |p_i0 - p_ij| in `prompt_order`, [n, w] per task with 2 <= w <= k; n and w may
        differ between tasks.
      largest: per task, mean over i of max(p_i0, 1 - p_i0), the largest possible cells.
      num_perturbations: k.
    """
    k = num_perturbations
    n, w = np.array([seen.shape for seen in cells]).T
    mean = np.array([seen.mean() for seen in cells])
    diagonals = np.array([seen.mean(axis=0).var(ddof=1) for seen in cells])
    # Times n, so that tasks of different n are comparable.
    variance = n * diagonals / (mean + SCORE_TOLERANCE) ** 2
    prior_dof, prior_variance = _fit_prior(variance, w - 1)
    dof = prior_dof + w - 1
    shrunk = (prior_dof * prior_variance + (w - 1) * variance) / dof
    lowest = w / k * mean
    return PredictedScores(
        log_mean=np.log(mean + SCORE_TOLERANCE),
        log_scale=np.sqrt(shrunk / n * (1 / w - 1 / k)),
        dof=dof,
        lowest=np.log(lowest + SCORE_TOLERANCE),
        highest=np.log(lowest + (1 - w / k) * np.asarray(largest) + SCORE_TOLERANCE),
    )


def _fit_prior(
    variance: Float[np.ndarray, " tasks"], dof: Int[np.ndarray, " tasks"]
) -> tuple[int, float]:
    """Returns the likeliest degrees of freedom and scale of a scaled inverse chi-squared prior.

    Under it, a variance of `dof` degrees of freedom is distributed as scale x F(dof, prior dof).
    """
    best, chosen = -math.inf, (PRIOR_DOFS[0], 1.0)
    for prior_dof in PRIOR_DOFS:
        half = (dof + prior_dof) / 2
        constant = sum(map(math.lgamma, half)) - len(dof) * math.lgamma(prior_dof / 2)
        ratio = dof / (prior_dof * PRIOR_VARIANCES[:, None])
        likelihood = constant + (dof / 2 * np.log(ratio) - half * np.log1p(ratio * variance)).sum(1)
        index = int(likelihood.argmax())
        if likelihood[index] > best:
            best, chosen = likelihood[index], (prior_dof, float(PRIOR_VARIANCES[index]))
    return chosen


def student_survival(t: Float[np.ndarray, "*shape"], dof: int) -> Float[np.ndarray, "*shape"]:
    """Returns P(T > t) of Student's t with a whole number of degrees of freedom.

    Source: Abramowitz and Stegun 26.7.3 and 26.7.4, a finite sum.
    """
    angle = np.arctan(t / math.sqrt(dof))
    sine, cosine = np.sin(angle), np.cos(angle)
    odd = dof % 2
    term = cosine if odd else np.ones_like(cosine)
    total = np.zeros_like(cosine) if dof == 1 else term
    for power in range(2 + odd, dof - 1, 2):
        term = term * cosine**2 * (power - 1) / power
        total = total + term
    central = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return np.clip((1 - central) / 2, 0, 1)


def wrong_chances(
    survival: Float[np.ndarray, "tasks values"], quota: int
) -> Float[np.ndarray, "tasks 2"]:
    """Returns upper bounds of P(not among the `quota` highest) and P(among them).

    The number of independent scores above a value is a sum of Bernoulli variables, whose
    distribution is computed exactly. A task does not compete with itself; the bounds that
    account for it are exact where its own score is surely above or below the value (p is its
    chance to be above it, "others" are all but the task, "all" include it):

        P(others >= q) <= min(P(all >= q), P(all >= q + 1) / p)
        P(others < q) <= min(P(all <= q), P(all < q) / (1 - p))

    A score between two values counts as the one that is worse for the verdict.

    Args:
      survival: P(score > value), values ascending.
      quota: between 1 and tasks - 1.

    Returns:
      The chances that "in" and "out" are wrong.
    """
    fewer, equal, more = _count_chances(survival, quota)
    with np.errstate(divide="ignore", invalid="ignore"):
        overtaken = np.fmin(equal + more, more / survival)
        ahead = np.fmin(fewer + equal, fewer / (1 - survival))
    # Below the lowest value any task may be overtaken, above the highest one ahead.
    certain = np.ones((len(survival), 1))
    mass = -np.diff(survival, axis=1, prepend=1.0, append=0.0)
    wrong_in = (mass * np.concatenate([certain, overtaken], axis=1)).sum(axis=1)
    wrong_out = (mass * np.concatenate([ahead, certain], axis=1)).sum(axis=1)
    return np.stack([wrong_in, wrong_out], axis=1)


def _count_chances(
    survival: Float[np.ndarray, "tasks values"], quota: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns P(fewer than, exactly, more than `quota` scores above a value), each [values]."""
    counts = np.zeros((quota + 1, survival.shape[1]))
    counts[0] = 1
    more = np.zeros(survival.shape[1])
    for above in survival:
        moving = counts * above
        more += moving[-1]
        counts -= moving
        counts[1:] += moving[:-1]
    return counts[:quota].sum(axis=0), counts[quota], more
