"""partial_scores.py: the order of prompts, the prediction, and the chance to be on top."""

import itertools
import math

import numpy as np
import pytest

from ait_jax.scorer import partial_scores
from ait_jax.scorer.partial_scores import predict, prompt_order, student_survival, wrong_chances


def diagonals(cells: np.ndarray, steps: int) -> np.ndarray:
    """Returns the cells of the first steps, float64[n, steps] from float64[n, k]."""
    return np.take_along_axis(cells, prompt_order(*cells.shape)[:, :steps] - 1, axis=1)


def test_prompts_by_hand():
    assert prompt_order(3, 3).tolist() == [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
    assert prompt_order(2, 4).tolist() == [[1, 2, 3, 4], [3, 4, 1, 2]]
    assert prompt_order(3, 2).tolist() == [[1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize("n, k", [(1, 5), (3, 10), (4, 5), (6, 10), (10, 10), (25, 10), (7, 1)])
def test_every_instance_sees_every_prompt_and_perturbations_take_turns(n, k):
    order = prompt_order(n, k)
    assert order.shape == (n, k)
    assert (np.sort(order, axis=1) == np.arange(1, k + 1)).all()
    for steps in range(1, k + 1):
        counts = np.bincount(order[:, :steps].ravel(), minlength=k + 1)[1:]
        if n % k == 0:
            assert set(counts) == {n * steps // k}
        assert (counts > 0).all() == (n * steps >= k)


@pytest.mark.parametrize(
    "dof, t, expected",
    [
        (1, 1.0, 0.25), (1, 6.3138, 0.05), (2, 1.0, 0.5 - 1 / math.sqrt(12)), (2, -2.9200, 0.95),
        (3, 2.3534, 0.05), (4, 4.6041, 0.005), (5, 0.0, 0.5), (12, 3.9296, 0.001),
    ],
)  # fmt: skip
def test_student_against_published_quantiles(dof, t, expected):
    assert student_survival(np.array([t]), dof)[0] == pytest.approx(expected, abs=2e-6)


def test_student_against_integration():
    t = np.linspace(0, 400, 400_001)
    for dof in range(2, 14):
        logs = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - math.log(dof * math.pi) / 2
        density = np.exp(logs - (dof + 1) / 2 * np.log1p(t**2 / dof))
        below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) * t[1]
        at = np.array([1_000, 3_300, 12_000])
        np.testing.assert_allclose(student_survival(t[at], dof), 0.5 - below[at], atol=1e-6)


def test_counts_against_enumeration():
    above = np.random.default_rng(0).uniform(size=(6, 3))
    for quota in (1, 3, 5):
        fewer, equal, more = partial_scores._count_chances(above, quota)
        for value in range(3):
            chances = np.zeros(7)
            for pattern in itertools.product((0, 1), repeat=6):
                factors = [
                    p if hit else 1 - p for p, hit in zip(above[:, value], pattern, strict=True)
                ]
                chances[sum(pattern)] += math.prod(factors)
            assert fewer[value] == pytest.approx(chances[:quota].sum())
            assert equal[value] == pytest.approx(chances[quota])
            assert more[value] == pytest.approx(chances[quota + 1 :].sum())


def test_chances_are_never_below_the_truth():
    """Against all outcomes of five scores, each one of three numbers far apart on the grid."""
    generator = np.random.default_rng(1)
    values = np.sort(generator.uniform(0, 100, size=(5, 3)), axis=1)
    weights = generator.dirichlet([1, 1, 1], size=5)
    grid = np.arange(0, 100, 0.01)
    survival = (weights[:, :, None] * (values[:, :, None] > grid)).sum(axis=1)
    for quota in (1, 2, 4):
        not_on_top, on_top = np.zeros(5), np.zeros(5)
        for outcome in itertools.product(range(3), repeat=5):
            chance = math.prod(weights[i, o] for i, o in enumerate(outcome))
            scores = np.array([values[i, o] for i, o in enumerate(outcome)])
            better = (scores[None] > scores[:, None]).sum(axis=1)
            not_on_top += chance * (better >= quota)
            on_top += chance * (better < quota)
        bounds = wrong_chances(survival, quota)
        assert (bounds[:, 0] >= not_on_top - 1e-12).all() and (bounds[:, 1] >= on_top - 1e-12).all()


def test_chances_are_near_the_truth_among_many():
    generator = np.random.default_rng(4)
    means = np.sort(generator.normal(size=100))
    draws = means + 0.1 * generator.normal(size=(10_000, 100))
    threshold = np.sort(draws, axis=1)[:, -30, None]
    on_top = (draws >= threshold).mean(axis=0)
    grid = np.linspace(-3, 3, 600)
    survival = student_survival((grid - means[:, None]) / 0.1, 10_000)  # as good as normal
    wrong_in, wrong_out = wrong_chances(survival, 30).T
    for bounds, truth in ((wrong_in, 1 - on_top), (wrong_out, on_top)):
        seen = (truth > 0.005) & (truth < 0.5)
        assert seen.sum() >= 5
        assert (bounds[seen] > 0.8 * truth[seen]).all()
        assert (bounds[seen] < 1.7 * truth[seen] + 0.02).all()


def test_certain_tasks_cost_nothing():
    grid = np.linspace(0, 1, 11)
    survival = (np.array([[0.85], [0.75], [0.25], [0.15]]) > grid).astype(float)
    assert wrong_chances(survival, 2)[[0, 3]].tolist() == [[0, 1], [1, 0]]


def test_effects_of_instances_and_of_perturbations_cancel():
    """One perturbation changes everything: two diagonals know the score, two columns do not."""
    cells = 0.1 + np.linspace(0, 0.1, 10)[:, None] + 0.6 * (np.arange(10) == 7)[None]
    assert diagonals(cells, 2).mean() == pytest.approx(cells.mean())
    assert abs(cells[:, :2].mean() - cells.mean()) > 0.05


def test_a_prediction_by_hand():
    # Means 0.1 and 0.3: relative variance 0.02 / 0.04 x n.
    seen = np.array([[0.1, 0.3]] * 4)
    predicted = predict([seen] * 50, [0.9] * 50, num_perturbations=4)
    assert predicted.log_mean[0] == pytest.approx(np.log(0.2), abs=1e-3)
    assert predicted.lowest[0] == pytest.approx(np.log(0.1), abs=1e-3)
    assert predicted.highest[0] == pytest.approx(np.log(0.1 + 0.45), abs=1e-3)
    # All tasks agree, so the prior does too, and d = 4 + 1.
    assert predicted.dof[0] == 5
    assert predicted.log_scale[0] == pytest.approx(np.sqrt(0.5 * (1 / 2 - 1 / 4)), rel=0.1)


def test_bounds_are_hard_and_a_complete_task_is_certain():
    seen = np.random.default_rng(0).uniform(0, 0.2, size=(5, 8))
    predicted = predict([seen, seen[:, :6]], [0.7, 0.7], num_perturbations=8)
    mean = np.log(seen.mean() + 1e-5)
    assert predicted.survival(np.array([mean - 1e-6, mean + 1e-6]))[0].tolist() == [1, 0]
    least = 0.75 * seen[:, :6].mean()
    edges = np.log(np.array([least - 1e-6, least + 0.25 * 0.7 + 1e-6]) + 1e-5)
    assert predicted.survival(edges)[1].tolist() == [1, 0]
    inside = predicted.survival(np.array([np.log(seen[:, :6].mean() + 1e-5)]))[1]
    assert inside == pytest.approx(0.5)


def test_few_steps_borrow_their_variance_from_other_tasks():
    generator = np.random.default_rng(2)
    tasks = [0.2 * np.exp(0.5 * generator.normal(size=(10, 2))) for _ in range(200)]
    tasks[0] = np.full((10, 2), 0.2)  # two equal diagonals are chance, not certainty
    scales = predict(tasks, [0.9] * 200, 10).log_scale
    assert scales[0] > 0.5 * np.median(scales)


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_final_scores_leave_the_predicted_quantiles_as_often_as_predicted(steps):
    """Cells with effects of both sides, a few perturbations that change everything."""
    generator = np.random.default_rng(3)
    full, seen = [], []
    for _ in range(3000):
        jumps = 1 + 6 * (generator.uniform(size=10) < 0.1)
        effects = np.exp(0.3 * generator.normal(size=(10, 1)))
        noise = generator.gamma(2, 0.5, size=(10, 10))
        cells = np.minimum(0.03 * effects * jumps * noise, 0.9)
        full.append(cells.mean())
        seen.append(diagonals(cells, steps))
    predicted = predict(seen, [0.9] * 3000, 10)
    above = np.array(
        [predicted.rows([i]).survival(np.log([score + 1e-5]))[0, 0] for i, score in enumerate(full)]
    )
    for level in (0.01, 0.05):
        expected = 3000 * level
        margin = 4 * np.sqrt(expected)
        assert (above < level).sum() < 2 * expected + margin
        assert (above > 1 - level).sum() < 2 * expected + margin
    assert 0.4 < (above < 0.5).mean() < 0.6
    assert (above < 0.25).mean() > 0.15  # not merely wide
