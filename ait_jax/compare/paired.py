"""Statistics of few paired runs: means over seeds, differences per seed, how many seeds it takes.

A seed makes a pair: strategies that start from the same splits and the same round 0 are compared
within each seed, which removes the spread between seeds from the difference. Everything is float64
NumPy; quantiles of Student's t are SciPy's.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Power of a two-sided test at 1 - confidence: the usual choice for planning.
POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Summary:
    """A mean over n seeds.

    Attributes:
      std: sample standard deviation (n - 1); None for one seed, like the following.
      low, high: Student's t confidence interval of the mean.
      p: two-sided p-value of the mean being 0.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def summarize(scores: Sequence[float], confidence: float = 0.95) -> Summary:
    """Returns mean and t interval of the scores of one or more seeds.

    With a spread of exactly 0 the interval is the mean itself, and p is 0, or 1 if the mean is 0.
    """
    from scipy import stats

    values = np.asarray(scores, dtype=np.float64)
    n = len(values)
    if np.ptp(values) == 0:  # the mean of equal numbers may be off in its last bit
        mean = float(values[0])
        if n == 1:
            return Summary(1, mean)
        return Summary(n, mean, 0.0, mean, mean, 0.0 if mean else 1.0)
    found: Any = stats.ttest_1samp(values, 0.0)
    low, high = found.confidence_interval(confidence)
    numbers = (values.mean(), values.std(ddof=1), low, high, found.pvalue)
    return Summary(n, *map(float, numbers))


def differences(ours: dict[int, float], baseline: dict[int, float]) -> list[float]:
    """Returns ours minus the baseline's, for the seeds that both have, by seed."""
    return [ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())]


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number by Holm's method, in the same order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    times_left = np.arange(len(p), 0, -1) * p[order]
    adjusted[order] = np.maximum.accumulate(np.minimum(times_left, 1.0))
    return adjusted.tolist()


def power(effect: float, n: int, confidence: float = 0.95) -> float:
    """Returns the chance that n pairs show an effect of `effect` standard deviations.

    The noncentral t distribution, as a mean over the spread that n pairs may show: SciPy's own
    (1.17) is nan for large effects.
    """
    from scipy import stats

    critical = stats.t.ppf((1 + confidence) / 2, n - 1)
    quantiles = (np.arange(4000) + 0.5) / 4000
    spread = np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    shift = abs(effect) * math.sqrt(n)
    above = stats.norm.sf(critical * spread - shift)
    return float(np.mean(above + stats.norm.cdf(-critical * spread - shift)))


def seeds_needed(mean: float, std: float, confidence: float = 0.95) -> int | None:
    """Returns the least number of seeds that show such a difference with a chance of 80%.

    Takes the observed mean and spread for the true ones, of which few seeds are a poor estimate.

    Returns:
      At least 2; None if it would be more than 1,000, or the mean is 0.
    """
    if not mean:
        return None
    if not std:
        return 2
    seeds = range(2, MOST_SEEDS + 1)
    shown = bisect_left(seeds, POWER, key=lambda n: power(mean / std, n, confidence))
    return seeds[shown] if shown < len(seeds) else None  # power grows with n


def area(num_tasks: Sequence[float], scores: Sequence[float]) -> float:
    """Returns the area under a curve (trapezoids) divided by its width: a mean score over tasks.

    The area of a single point is its score.
    """
    from scipy.integrate import trapezoid

    if len(num_tasks) == 1:
        return float(scores[0])
    return float(trapezoid(scores, num_tasks) / (num_tasks[-1] - num_tasks[0]))


def tasks_to_reach(
    num_tasks: Sequence[float], scores: Sequence[float], target: float
) -> float | None:
    """Returns where a curve first reaches `target`, with straight lines between points.

    That is its first point if that is high enough already; None if it never gets there.
    """
    points = list(zip(num_tasks, scores, strict=True))
    if points[0][1] >= target:
        return float(points[0][0])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y1 >= target:
            return float(x0 + (target - y0) / (y1 - y0) * (x1 - x0))
    return None
