"""paired.py against SciPy's own tests, printed tables and numbers worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from ait_jax.compare import paired


def test_the_interval_is_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(17.0, 1.0, 5), rng.normal(16.0, 1.0, 5)
    ours = paired.summarize(paired.differences(dict(enumerate(a)), dict(enumerate(b))), 0.9)
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_three_seeds_by_hand():
    """Differences 1, 2, 6: mean 3, variance (4 + 1 + 9) / 2; t with 2 degrees has a closed form."""
    found = paired.summarize([1.0, 2.0, 6.0])
    t = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # 4.303 of tables
    half = t * math.sqrt(7 / 3)
    assert (found.n, found.mean) == (3, 3.0)
    assert found.std == pytest.approx(math.sqrt(7), rel=1e-14)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-12)
    assert found.low < 0 < found.high
    assert paired.summarize([5.0, 6.0, 7.0]).low > 0


def test_degenerate_numbers_of_seeds_and_spreads():
    one = paired.summarize([0.7])
    assert (one.n, one.mean) == (1, 0.7) and (one.std, one.low, one.high, one.p) == (None,) * 4
    same = paired.summarize([0.1, 0.1, 0.1])
    assert (same.mean, same.std, same.low, same.high, same.p) == (0.1, 0.0, 0.1, 0.1, 0.0)
    none = paired.summarize([0.0, 0.0])
    assert (none.p, none.low, none.high) == (1.0, 0.0, 0.0)


def test_only_seeds_that_both_have_are_paired():
    assert paired.differences({0: 1.0, 1: 5.0, 7: 2.0}, {1: 3.0, 0: 4.0, 2: 9.0}) == [-3.0, 2.0]


def test_holm_by_hand():
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([0.9, 0.6]) == [1.0, 1.0] and paired.holm([]) == []


def test_power_is_that_of_the_noncentral_t_distribution():
    for effect, n in ((0.5, 34), (1.0, 10), (0.2, 5)):
        critical = stats.t.ppf(0.975, n - 1)
        theirs = stats.nct.sf(critical, n - 1, effect * n**0.5)
        theirs += stats.nct.cdf(-critical, n - 1, effect * n**0.5)
        assert paired.power(effect, n) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_published_tables(effect, seeds):
    """Paired t test, two-sided 5%, power 80%: G*Power's figures."""
    assert paired.seeds_needed(-effect * 3, 3.0) == seeds


def test_seeds_needed_at_the_ends():
    assert paired.seeds_needed(0.0, 1.0) is None and paired.seeds_needed(0.001, 1.0) is None
    assert paired.seeds_needed(1.0, 0.0) == 2 and paired.seeds_needed(100.0, 1.0) == 2


def test_areas_by_hand():
    # (1 + 3) / 2 * 2 + (3 + 7) / 2 * 4 = 24 over a width of 6.
    assert paired.area([2, 4, 8], [1.0, 3.0, 7.0]) == 4.0
    assert paired.area([8], [5.0]) == 5.0


def test_tasks_to_reach_by_hand():
    x, y = [10, 20, 30], [1.0, 5.0, 4.0]
    assert paired.tasks_to_reach(x, y, 3.0) == 15.0
    assert paired.tasks_to_reach(x, y, 0.5) == 10.0 and paired.tasks_to_reach(x, y, 5.0) == 20.0
    assert paired.tasks_to_reach(x, y, 5.1) is None
    assert paired.tasks_to_reach(x, [5.0, 1.0, 6.0], 6.0) == 30.0
