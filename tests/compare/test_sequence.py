"""Confidence sequences: against integrals, and on simulated learners that are looked at often."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from ait_jax.compare.sequence import e_value, interval, sequence

ALPHA = 0.05


def test_e_value_is_the_bayes_factor():
    """Against the ratio of integrals over spread and effect that defines it."""
    x = np.array([0.4, 1.3, 0.2, 0.9])
    n = len(x)

    def likelihood(spread, effect):
        return np.prod(stats.norm.pdf(x, effect * spread, spread)) / spread

    none, _ = integrate.quad(lambda s: likelihood(s, 0.0), 0.05, 50, limit=200)
    some, _ = integrate.dblquad(
        lambda s, effect: likelihood(s, effect) * stats.norm.pdf(effect), -6, 8, 0.05, 50
    )
    assert e_value(x) == pytest.approx(some / none, rel=1e-3)
    assert e_value(x[:1]) == 1.0
    assert e_value(7 + 3 * x, 7.0) == pytest.approx(e_value(x))
    assert e_value([0.0] * n) == pytest.approx(1 / math.sqrt(1 + n))


def test_interval_ends_where_the_evidence_reaches_its_bound():
    x = np.random.default_rng(0).normal(1.0, 2.0, 12)
    found = interval(x, ALPHA)
    assert found.low < found.mean < found.high
    for end in (found.low, found.high):
        assert e_value(x, end) == pytest.approx(1 / ALPHA)
    assert interval(x[:3], ALPHA)[2:] == (None, None)
    same = interval([1.0] * 6, ALPHA)
    assert same.low == same.high == 1.0 and same.verdict == "better"


def test_intervals_only_narrow():
    x = np.random.default_rng(1).normal(0.3, 1.0, 40).tolist()
    found = sequence(x, ALPHA)
    assert [each.n for each in found] == list(range(1, 41))
    widths = [each.high - each.low for each in found if each.low is not None]
    assert len(widths) > 30 and all(b <= a for a, b in itertools.pairwise(widths))


def looked_at(gain, simulations, seeds):
    """Yields each simulated comparison's verdict, and the seeds it took."""
    draws = np.random.default_rng(int(10 * gain)).normal(gain, 1.0, (simulations, seeds))
    for x in draws:
        found = sequence(x.tolist(), ALPHA)
        decided = next((each for each in found if each.verdict), found[-1])
        yield decided.verdict, decided.n


def test_looking_after_every_seed_is_wrong_at_most_as_often_as_stated():
    verdicts = [verdict for verdict, _ in looked_at(0.0, 1000, 60)]
    assert sum(v is not None for v in verdicts) / 1000 <= ALPHA
    # The same looks at t intervals are wrong far more often.
    draws = np.random.default_rng(0).normal(0.0, 1.0, (1000, 60))
    looks = (5, 10, 20, 40, 60)
    wrong = [any(stats.ttest_1samp(x[:n], 0).pvalue < ALPHA for n in looks) for x in draws]
    assert np.mean(wrong) > 2 * ALPHA


def test_a_gain_of_one_deviation_is_found():
    found = list(looked_at(1.0, 1000, 60))
    assert all(verdict == "better" for verdict, _ in found)
    assert 8 <= np.median([n for _, n in found]) <= 18
