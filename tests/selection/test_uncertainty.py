"""uncertainty.py against a plain float64 loop and values worked out by hand."""

import math

import numpy as np
import pytest
from selecting import table_of

from ait_jax.errors import UserError
from ait_jax.selection import uncertainty
from ait_jax.selection.uncertainty import TaskScores, task_scores


def long_table(matrices: dict[str, np.ndarray]) -> list[tuple[str, str, int, float]]:
    return [
        (task, f"{task}-{i}", j, float(value))
        for task, matrix in matrices.items()
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
    ]


@pytest.fixture(scope="module")
def matrices() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: -generator.exponential(1.0, shape).astype(np.float32)
        for name, shape in {"c": (10, 11), "a": (3, 5), "b": (1, 4)}.items()
    }


def loop_scores(matrix: np.ndarray) -> dict[str, float]:
    """The definitions once more, as sums over Python floats."""
    n, k = matrix.shape[0], matrix.shape[1] - 1
    absolute = signed = deviation = probability = perplexity = 0.0
    by_instance = []
    for row in matrix:
        p = [math.exp(float(value)) for value in row]
        probability += p[0] / n
        perplexity += math.exp(-float(row[0])) / n
        by_instance.append(sum(abs(p[0] - p[j]) for j in range(1, k + 1)) / k)
        absolute += by_instance[-1] / n
        signed += sum(p[0] - p[j] for j in range(1, k + 1)) / (n * k)
        mean = sum(p[1:]) / k
        deviation += math.sqrt(sum((q - mean) ** 2 for q in p[1:]) / k) / n
    error = (
        math.sqrt(sum((u - absolute) ** 2 for u in by_instance) / (n - 1) / n)
        if n > 1
        else float("nan")
    )
    return {
        "prompt_uncertainty": absolute,
        "prompt_uncertainty_error": error,
        "prediction_probability": probability,
        "perplexity": perplexity,
        "signed_mean": signed,
        "std": deviation,
    }


def test_scores_agree_with_an_independent_loop(matrices):
    scores = task_scores(table_of(long_table(matrices)))
    assert scores.tasks == ("a", "b", "c")
    for row, task in enumerate(scores.tasks):
        for name, expected in loop_scores(matrices[task]).items():
            np.testing.assert_allclose(getattr(scores, name)[row], expected, rtol=1e-13)
    assert scores.num_instances.tolist() == [3, 1, 10]
    assert scores.num_prompts.tolist() == [5, 4, 11]
    assert scores.prompt_uncertainty.dtype == np.float64


def test_a_case_worked_by_hand():
    matrix = np.log([[0.8, 0.5, 0.9], [0.4, 0.4, 0.2]])
    assert uncertainty.prompt_uncertainty(matrix) == pytest.approx((0.3 + 0.1 + 0.0 + 0.2) / 4)
    assert uncertainty.signed_mean(matrix) == pytest.approx((0.3 - 0.1 + 0.0 + 0.2) / 4)
    assert uncertainty.prediction_probability(matrix) == pytest.approx(0.6)
    assert uncertainty.perplexity(matrix) == pytest.approx((1.25 + 2.5) / 2)
    assert uncertainty.std(matrix) == pytest.approx((0.2 + 0.1) / 2)
    assert uncertainty.prompt_uncertainty_error(matrix) == pytest.approx(0.05)


def test_perplexity_is_of_decoded_tokens_where_there_are_any(matrices):
    rows = long_table(matrices)
    decoded = {("a-0", 0): -0.5, ("a-1", 0): -1.5, ("c-9", 0): -2.0}
    for order in (rows, rows[::-1]):
        generated = [decoded.get(row[1:3], float("nan")) for row in order]
        scores = task_scores(table_of(order, generated))
        plain = task_scores(table_of(order))
        last = math.exp(-float(matrices["a"][2, 0]))
        assert scores.perplexity[0] == pytest.approx((math.exp(0.5) + math.exp(1.5) + last) / 3)
        assert scores.perplexity[1] == plain.perplexity[1]
        changed = math.exp(2.0) - math.exp(-float(matrices["c"][9, 0]))
        assert scores.perplexity[2] - plain.perplexity[2] == pytest.approx(changed / 10)
        assert (scores.prediction_probability == plain.prediction_probability).all()
    with pytest.raises(UserError, match=r"1 of \d+ log-likelihoods.*is 0.5 .*'a-0', prompt 0"):
        table_of(rows, [0.5 if row[1:3] == ("a-0", 0) else float("nan") for row in rows])


def test_row_order_changes_no_bit(matrices):
    rows = long_table(matrices)
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    one, other = task_scores(table_of(rows)), task_scores(table_of(shuffled))
    for name in TaskScores.column_names()[1:]:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def test_without_perturbed_prompts_only_the_original_prompt_scores():
    scores = task_scores(table_of([("a", "1", 0, math.log(0.5)), ("a", "2", 0, math.log(0.25))]))
    assert scores.perplexity[0] == pytest.approx(3.0)
    assert scores.prediction_probability[0] == pytest.approx(0.375)
    assert np.isnan(scores.prompt_uncertainty[0]) and np.isnan(scores.std[0])


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.7])
def test_impossible_values_are_refused(matrices, value):
    rows = long_table(matrices)
    rows[7] = (*rows[7][:3], value)
    with pytest.raises(UserError, match=r"1 of \d+ log-likelihoods.*'c-0'.*prompt 7"):
        table_of(rows)


def test_missing_rows_are_refused(matrices):
    rows = [row for row in long_table(matrices) if row[1:3] != ("a-1", 2)]
    with pytest.raises(UserError, match=r"task 'a', instance 'a-1'.*\[2\] of 0\.\.4"):
        table_of(rows)


def test_a_negative_prompt_number_is_refused():
    with pytest.raises(UserError, match="has no log-likelihood"):
        table_of([("a", "1", 0, -1.0), ("a", "1", -1, -1.0)])


def test_double_rows_are_refused(matrices):
    rows = long_table(matrices)
    with pytest.raises(UserError, match="'c-0', prompt 0 occurs twice"):
        table_of([*rows, rows[0]])


def test_the_matrices_of_a_table(matrices):
    table = table_of(long_table(matrices))
    assert table.tasks == ("a", "b", "c")
    np.testing.assert_array_equal(table.log_likelihoods[2], matrices["c"].astype(np.float64))


def test_columns_round_trip_and_subset(matrices):
    scores = task_scores(table_of(long_table(matrices)))
    again = TaskScores.from_columns(scores.columns())
    assert again.tasks == scores.tasks
    for name in TaskScores.column_names()[1:]:
        np.testing.assert_array_equal(getattr(again, name), getattr(scores, name))
    part = scores.subset(["c", "a"])
    assert part.tasks == ("c", "a")
    assert part.perplexity.tolist() == [scores.perplexity[2], scores.perplexity[0]]
    columns = scores.columns()
    del columns["perplexity"]
    with pytest.raises(UserError, match=r"lack the column\(s\) perplexity"):
        TaskScores.from_columns(columns)


def test_unscored_has_names_only():
    scores = TaskScores.unscored(["b", "a"])
    assert scores.tasks == ("b", "a") and len(scores) == 2
    assert np.isnan(scores.perplexity).all()
    assert scores.subset(["a"]).tasks == ("a",)


def test_an_empty_table_has_no_scores():
    scores = task_scores(table_of([]))
    assert len(scores) == 0 and scores.num_prompts.shape == (0,)
