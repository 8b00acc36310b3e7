"""Confidence sequences: intervals of a mean difference that hold however often one looks.

A t interval is right with 95% at one number of seeds fixed beforehand. Who looks after every seed
and stops at the first interval without 0 is wrong far more often. These intervals contain the true
mean at all numbers of seeds at once with the stated probability (for normally distributed
differences of any unknown spread), so one may look after every run, and stop or go on at will.

The interval of n differences x has all means m whose e-value is below 1 / alpha. The e-value is the
Bayes factor of an effect size drawn from a normal distribution of standard deviation `SCALE`
against none, with the invariant prior of the spread: a martingale if m is the mean (Lai, 1976; Wang
and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
variance", 2024), so that it ever reaches 1 / alpha with a probability of at most alpha (Ville).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Effects of about one standard deviation between seeds are found soonest.
SCALE = 1.0


class Interval(NamedTuple):
    """What n seeds leave possible for a mean difference; None bounds leave all."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str | None:
        """Whether it is "better" or "worse"; None while 0 is possible."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return "better" if self.low > 0 else "worse"


def e_value(differences: Sequence[float], mean: float = 0.0) -> float:
    """Returns the evidence against `mean`: 1 is none, 20 as rare as one in 20 if it is the mean.

    Args:
      differences: of one or more seeds.
    """
    x = np.asarray(differences, np.float64)
    n, k = len(x), 1 + len(x) * SCALE**2
    if n < 2:
        return 1.0
    of_mean, spread = n * (x.mean() - mean) ** 2, float(np.sum((x - x.mean()) ** 2))
    if not spread and not of_mean:
        return 1 / math.sqrt(k)
    ratio = (spread + of_mean) / (spread + of_mean / k)
    return float(ratio ** (n / 2) / math.sqrt(k))


def interval(differences: Sequence[float], alpha: float) -> Interval:
    """Returns the means whose `e_value` is below 1 / alpha.

    Args:
      differences: of one or more seeds.
      alpha: the chance that any of the intervals, at whatever number of seeds, lacks the mean.
    """
    x = np.asarray(differences, np.float64)
    n, k = len(x), 1 + len(x) * SCALE**2
    mean = float(x.mean())
    most = (math.sqrt(k) / alpha) ** (2 / n)
    if n < 2 or most >= k:  # no mean is that unlikely yet
        return Interval(n, mean, None, None)
    spread = float(np.sum((x - mean) ** 2))
    reach = math.sqrt(spread * (most - 1) / (1 - most / k) / n)
    return Interval(n, mean, mean - reach, mean + reach)


def sequence(differences: Sequence[float], alpha: float) -> list[Interval]:
    """Returns the intervals after 1, 2, ... seeds, each the part that all before it leave.

    As all of them hold at once, so does their intersection. Where that is empty (which is as rare
    as a wrong verdict) the last interval that was not remains.
    """
    found: list[Interval] = []
    for n in range(1, len(differences) + 1):
        new = interval(differences[:n], alpha)
        if found and found[-1].low is not None and found[-1].high is not None:
            low = max(found[-1].low, -math.inf if new.low is None else new.low)
            high = min(found[-1].high, math.inf if new.high is None else new.high)
            if low > high:
                low, high = found[-1].low, found[-1].high
            new = new._replace(low=low, high=high)
        found.append(new)
    return found
