"""selection.py and initial.py: order, ratio, ties, margins, randomness, errors."""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from selecting import context_of
from shared_data import ACTIVE_IT, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool.cls_gen import Quotas
from ait_jax.selection import selection
from ait_jax.selection.selection import select
from ait_jax.selection.uncertainty import TaskScores

PU, LOW_PU = selection.PromptUncertainty(), selection.PromptUncertainty(direction="low")


def make_scores(names, pu, probability=None, perplexity=None) -> TaskScores:
    pu = np.asarray(pu, np.float64)
    ones = np.ones_like(pu)
    return TaskScores(
        tasks=tuple(names),
        prompt_uncertainty=pu,
        prompt_uncertainty_error=ones,
        prediction_probability=ones if probability is None else np.asarray(probability, float),
        perplexity=ones if perplexity is None else np.asarray(perplexity, float),
        signed_mean=ones,
        std=ones,
        num_instances=np.full(len(pu), 10),
        num_prompts=np.full(len(pu), 11),
    )


def starts_with_c(name: str) -> bool:
    return name.startswith("c")


def choose(strategy, scores, *quotas, **options):
    return select(strategy, context_of(scores, *quotas, **options))


def rank(strategy, scores) -> list[str]:
    return strategy.rank(scores, context_of(scores, 1))


@pytest.fixture(scope="module")
def pool_620() -> TaskScores:
    """The paper's remaining pool in shape: 221 CLS (c...), 399 GEN (g...), all scores apart."""
    names = [f"c{i:03d}" for i in range(221)] + [f"g{i:03d}" for i in range(399)]
    generator = np.random.default_rng(0)
    return make_scores(names, *(generator.permutation(620) / 620 for _ in range(3)))


def test_highest_and_lowest():
    scores = make_scores("abcd", [0.1, 0.4, 0.2, 0.3], perplexity=[9, 1, 5, 7])
    assert choose(PU, scores, 2).tasks == ("b", "d")
    assert choose(LOW_PU, scores, 2).tasks == ("a", "c")
    assert choose(selection.HighPerplexity(), scores, 2).tasks == ("a", "d")
    assert choose(selection.LowPerplexity(), scores, 2).tasks == ("b", "c")
    assert choose(selection.Ambiguous(), scores, 1).tasks == ("b",)


def test_ties_are_ordered_by_name_whatever_the_row_order():
    names = ["t9", "t10", "t2", "t1"]
    for order in (names, names[::-1]):
        scores = make_scores(order, [0.5] * 4)
        assert rank(PU, scores) == ["t1", "t10", "t2", "t9"]
        assert rank(LOW_PU, scores) == ["t1", "t10", "t2", "t9"]


def test_rank_mixtures_by_hand():
    # ranks of PU, low first: a 0, b 1, c 2, d 3; of probability: a 2, b 0, c 3, d 1.
    scores = make_scores("abcd", [0.0, 0.1, 0.2, 0.3], probability=[0.8, 0.2, 0.9, 0.5])
    assert rank(selection.Difficult(), scores) == ["b", "a", "d", "c"]  # 2, 1, 5, 4
    assert rank(selection.Easy(), scores) == ["a", "c", "b", "d"]  # 1, 4, 2, 5
    assert choose(selection.Easy(), scores, 1).margins == {"all": 1.0}


def test_equal_sums_of_ranks_fall_to_the_less_uncertain():
    # Sums for Easy: a 2 + 0, b 0 + 2, d 1 + 1, all 2; for Difficult: a 2 + 2, b 0 + 0, d 1 + 1.
    scores = make_scores("abd", [0.3, 0.1, 0.2], probability=[0.9, 0.5, 0.7])
    assert rank(selection.Easy(), scores) == ["b", "d", "a"]
    assert choose(selection.Easy(), scores, 1).margins == {"all": 0.0}
    scores = make_scores("abd", [0.3, 0.1, 0.2], probability=[0.5, 0.9, 0.7])
    assert rank(selection.Difficult(), scores) == ["b", "d", "a"]


@pytest.mark.parametrize("seed", range(60))
def test_rank_mixtures_as_two_stable_sorts(seed):
    """As the authors' code: positions in two sorted lists are summed and stably sorted."""
    generator = np.random.default_rng(seed)
    pu, probability = generator.permutation(40) / 40, generator.permutation(40) / 40
    names = [f"{'cg'[i % 2]}{i:02d}" for i in generator.permutation(40)]
    scores = make_scores(names, pu, probability)
    by_pu = [names[i] for i in np.argsort(pu)]
    by_probability = [names[i] for i in np.argsort(probability)]
    for strategy, other in (
        (selection.Difficult(), by_probability),
        (selection.Easy(), by_probability[::-1]),
    ):
        expected = sorted(by_pu, key=lambda task: by_pu.index(task) + other.index(task))
        assert rank(strategy, scores) == expected
        assert choose(strategy, scores, 13).tasks == tuple(expected[:13])


def test_mean_ranks_against_counting():
    values = np.array([3.0, 1.0, 2.0, 1.0, 3.0, 3.0])
    counted = [sum(o < v for o in values) + (sum(o == v for o in values) - 1) / 2 for v in values]
    assert selection.mean_ranks(values).tolist() == counted


def test_the_papers_ratio(pool_620):
    chosen = choose(PU, pool_620, 68, 0.356)
    assert (chosen.num_cls, chosen.num_gen) == (24, 44)
    pu = dict(zip(pool_620.tasks, pool_620.prompt_uncertainty, strict=True))
    cls = sorted((t for t in pool_620.tasks if t[0] == "c"), key=pu.get, reverse=True)
    gen = sorted((t for t in pool_620.tasks if t[0] == "g"), key=pu.get, reverse=True)
    assert chosen.tasks == (*cls[:24], *gen[:44])
    assert chosen.margins == {
        "cls": pytest.approx(pu[cls[23]] - pu[cls[24]]),
        "gen": pytest.approx(pu[gen[43]] - pu[gen[44]]),
    }
    assert chosen.close_calls() == {}


@pytest.mark.parametrize(
    "num_cls, num_gen, expected",
    [
        (10, 90, (10, 58)),
        (60, 30, (38, 30)),
        (24, 44, (24, 44)),
        (0, 70, (0, 68)),
        (70, 0, (68, 0)),
    ],
)
def test_the_other_group_fills_what_one_lacks(num_cls, num_gen, expected):
    names = [f"c{i}" for i in range(num_cls)] + [f"g{i}" for i in range(num_gen)]
    chosen = choose(PU, make_scores(names, np.arange(len(names))), 68, 0.356)
    assert (chosen.num_cls, chosen.num_gen) == expected
    assert len(set(chosen.tasks)) == 68


@pytest.mark.parametrize(
    "num_tasks, ratio, num_cls", [(68, 0.356, 24), (100, 0.29, 29), (3, 0.5, 1)]
)
def test_the_ratio_is_cut_not_rounded(num_tasks, ratio, num_cls):
    names = [f"{kind}{i}" for i in range(999) for kind in "cg"]
    cls, gen = Quotas(num_tasks, ratio).groups(names, starts_with_c)
    assert (cls.name, cls.quota, gen.quota) == ("cls", num_cls, num_tasks - num_cls)


@pytest.mark.parametrize("ratio, expected", [(0.0, (0, 5)), (1.0, (5, 0))])
def test_extreme_ratios(ratio, expected, pool_620):
    chosen = choose(PU, pool_620, 5, ratio)
    assert (chosen.num_cls, chosen.num_gen) == expected
    assert chosen.margins["cls" if ratio == 0 else "gen"] is None


def test_margins_tell_close_calls():
    scores = make_scores("abc", [0.5, 0.2, 0.2 - 4e-6])
    assert choose(PU, scores, 2).close_calls() == {"all": pytest.approx(4e-6)}
    assert choose(PU, scores, 1).close_calls() == {}
    assert choose(PU, scores, 3).margins == {"all": None}
    assert choose(selection.Random(), scores, 2).margins == {"all": None}


def test_random_needs_names_only_and_is_a_function_of_its_keys():
    names = [f"t{i}" for i in range(50)]
    scores = TaskScores.unscored(names)
    assert not selection.Random().needs_scores and selection.PromptUncertainty().needs_scores
    first = choose(selection.Random(), scores, 10)
    assert first == choose(selection.Random(), TaskScores.unscored(names[::-1]), 10)
    assert first != choose(selection.Random(), scores, 10, round_index=1)
    assert first != choose(selection.Random(), scores, 10, seed=1)
    kept = [t for t in rank(selection.Random(), scores) if t in names[:20]]
    assert kept == rank(selection.Random(), TaskScores.unscored(names[:20]))


def test_random_is_uniform():
    scores = TaskScores.unscored([f"t{i}" for i in range(10)])
    drawn = Counter(
        task
        for seed in range(2000)
        for task in choose(selection.Random(), scores, 3, seed=seed).tasks
    )
    assert all(520 < count < 680 for count in drawn.values()) and len(drawn) == 10  # 600 +- 4 sd


def test_random_category_takes_one_of_each_then_any():
    names = [f"a{i}" for i in range(12)] + [f"b{i}" for i in range(6)] + ["x0"]
    scores = TaskScores.unscored(names)
    draws = [choose(selection.RandomCategory(), scores, 9, seed=s).tasks for s in range(2000)]
    assert all(sorted(task[0] for task in tasks[:3]) == ["a", "b", "x"] for tasks in draws)
    counts = Counter(task[0] for tasks in draws for task in tasks)
    # One each, and 6 of the other 16 tasks, of which 11 begin with an a: 1 + 6 * 11 / 16.
    assert counts["a"] / 2000 == pytest.approx(1 + 6 * 11 / 16, abs=0.1)
    assert counts["b"] / 2000 == pytest.approx(1 + 6 * 5 / 16, abs=0.1)
    assert counts["x"] == 2000
    # Within a category all tasks are equally likely: 6 * 11 / 16 + 1 of 12, and so on.
    each = Counter(task for tasks in draws for task in tasks)
    assert all(each[f"a{i}"] / 2000 == pytest.approx(5.125 / 12, abs=0.06) for i in range(12))
    assert all(each[f"b{i}"] / 2000 == pytest.approx(2.875 / 6, abs=0.06) for i in range(6))
    # A category's chance to come first is its share of the tasks.
    firsts = Counter(tasks[0][0] for tasks in draws)
    assert firsts["a"] / 2000 == pytest.approx(12 / 19, abs=0.05)


def test_few_tasks_are_of_different_categories():
    scores = TaskScores.unscored(["a1", "a2", "a3", "b1", "d1"])
    for seed in range(20):
        tasks = choose(selection.RandomCategory(), scores, 2, seed=seed).tasks
        assert len({task[0] for task in tasks}) == 2


@dataclass(frozen=True)
class LowStd(selection.Strategy):
    def preference(self, scores, context):
        return -scores.std


def test_a_user_adds_a_strategy_in_four_lines():
    scores = replace(make_scores("abc", [0, 0, 0]), std=np.array([0.3, 0.1, 0.2]))
    chosen = choose(LowStd(), scores, 2)
    assert chosen.tasks == ("b", "c") and chosen.margins == {"all": pytest.approx(0.1)}
    assert LowStd().name == "low_std"


@dataclass(frozen=True)
class Forgetful(selection.Strategy):
    def rank(self, scores, context):
        return list(scores.tasks[1:])


def test_a_ranking_that_loses_tasks_is_refused():
    with pytest.raises(UserError, match=r"Forgetful.rank\(\) returned 2 names for 3 tasks"):
        choose(Forgetful(), make_scores("abc", [0, 0, 0]), 1)


def test_more_tasks_than_remain_are_refused():
    with pytest.raises(UserError, match="TASKS_PER_ROUND asks for 4 tasks but 3 remain"):
        choose(PU, make_scores("abc", [1, 2, 3]), 4)
    with pytest.raises(UserError, match="TASKS_PER_ROUND is 0"):
        choose(PU, make_scores("abc", [1, 2, 3]), 0)
    with pytest.raises(UserError, match="CLS_RATIO is 24"):
        choose(PU, make_scores("abc", [1, 2, 3]), 1, 24.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores = make_scores("abcd", [0.1, value, 0.2, value], perplexity=[1, value, 3, 4])
    with pytest.raises(UserError, match="2 of 4 tasks.*: b, d. Score the round again"):
        choose(PU, scores, 2)
    with pytest.raises(UserError, match="1 of 4 tasks.*: b. "):
        choose(selection.LowPerplexity(), scores, 2)
    with pytest.raises(UserError, match="2 of 4 tasks"):
        choose(selection.Easy(), scores, 2)
    assert len(choose(selection.Random(), scores, 2).tasks) == 2


def test_missing_perturbations_are_named():
    scores = replace(make_scores("ab", [np.nan, np.nan]), num_prompts=np.array([1, 1]))
    with pytest.raises(UserError, match="NUM_PERTURBATIONS"):
        choose(PU, scores, 1)
    with pytest.raises(UserError, match="were not scored"):
        choose(PU, TaskScores.unscored("ab"), 1)


def test_options_and_names_are_checked():
    with pytest.raises(UserError, match="PromptUncertainty.direction is 'highest'.*'high'"):
        selection.PromptUncertainty(direction="highest")
    with pytest.raises(UserError, match="Did you mean 'prompt_uncertainty'"):
        selection.PromptUncertainty(measure="prompt_uncertainy")
    with pytest.raises(UserError, match="1 entries and RankMixture.directions 2"):
        selection.RankMixture(measures=("std",))
    names = {
        "high_prompt_uncertainty": PU,
        "low_prompt_uncertainty": LOW_PU,
        "random": selection.Random(),
        "random_category": selection.RandomCategory(),
        "high_perplexity": selection.HighPerplexity(),
        "low_perplexity": selection.LowPerplexity(),
        "ambiguous": selection.Ambiguous(),
        "easy": selection.Easy(),
        "difficult": selection.Difficult(),
    }
    assert [strategy.name for strategy in names.values()] == list(names)


@needs_shared
def test_released_rounds_have_our_quotas():
    labels = json.loads((ACTIVE_IT / "cls_gen_train_pool.json").read_text())
    is_cls = {name: str(label).upper() in ("CLS", "TRUE") for name, label in labels.items()}
    assert sum(is_cls.values()) == 279
    folder = ACTIVE_IT / "TLAL_Exp0_all_10"
    stem = "FCGRatioPI-NL-I10-TDTE-High-0.2-Mean-abs-bald"
    for round in range(1, 5):
        before = (folder / f"{stem}_{round - 1}" / "train_tasks.txt").read_text().split()
        after = (folder / f"{stem}_{round}" / "train_tasks.txt").read_text().split()
        remain = (folder / f"{stem}_{round - 1}" / "remain_tasks.txt").read_text().split()
        released = [task for task in after if task not in set(before)]
        wanted = {task: len(released) - i for i, task in enumerate(released)}
        scores = make_scores(remain, [wanted.get(task, 0) for task in remain])
        chosen = choose(PU, scores, 68, 0.356, is_cls=is_cls.__getitem__)
        assert set(chosen.tasks) == set(released) and chosen.num_cls == 24
