"""Strategies over losses of reference outputs, each against plain loops on few tasks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from selecting import context_of, pool_of

from ait_jax.errors import UserError
from ait_jax.selection.deita_like import DeitaLike
from ait_jax.selection.instruction_following_difficulty import InstructionFollowingDifficulty
from ait_jax.selection.loss import Loss, LossDrop
from ait_jax.selection.reference_strategy import ReferenceLosses
from ait_jax.selection.selection import LowPerplexity, PromptUncertainty, Random, select
from ait_jax.selection.strategy_bandit import StrategyBandit
from ait_jax.selection.uncertainty import TaskScores

NAMES = tuple(f"{'cg'[i % 2]}task{i:02d}" for i in range(30))


class Given:
    """An embedder; contexts here have its embeddings already."""

    def embed(self, texts, asker):
        raise NotImplementedError


def context(quota, seed=0):
    generator = np.random.default_rng(seed)

    def losses(name):
        count = int(generator.integers(1, 5))
        return ReferenceLosses(*(generator.uniform(0.1, 3, count) for _ in range(3)))

    made = context_of(TaskScores.unscored(NAMES), quota)
    return replace(made, reference_losses={name: losses(name) for name in NAMES})


def first(worth, quota):
    return sorted(worth, key=lambda name: (-worth[name], name))[:quota]


def test_loss_and_its_drop():
    given = context(7)
    of = given.reference_losses
    loss = {name: sum(of[name].prompted) / len(of[name].prompted) for name in NAMES}
    assert list(select(Loss(), given).tasks) == first(loss, 7)
    before = {name: sum(of[name].before) / len(of[name].before) for name in NAMES}
    drop = {name: before[name] - loss[name] for name in NAMES}
    chosen = select(LossDrop(), given)
    assert list(chosen.tasks) == first(drop, 7)
    margin = drop[chosen.tasks[-1]] - sorted(drop.values())[-8]
    assert chosen.margins["all"] == pytest.approx(margin, abs=1e-12)


def test_a_loss_that_never_fell_ranks_nothing():
    given = context(3)
    same = {name: x._replace(before=x.prompted) for name, x in given.reference_losses.items()}
    with pytest.raises(UserError, match="compares the model with itself before training"):
        select(LossDrop(), replace(given, reference_losses=same))


def test_instruction_following_difficulty():
    given = context(25)

    def difficulty(losses):
        ratios = [p / a for p, a in zip(losses.prompted, losses.alone, strict=True) if p < a]
        return sum(ratios) / len(ratios) if ratios else -1

    worth = {name: difficulty(losses) for name, losses in given.reference_losses.items()}
    assert -1 in worth.values()  # misled everywhere
    found = select(InstructionFollowingDifficulty(), given)
    assert list(found.tasks) == first(worth, 25)


def test_deita_like():
    given = context(15)
    generator = np.random.default_rng(1)
    places = {name: generator.normal(size=3) for name in (*NAMES, "g_train")}
    vectors = {name: v.astype(np.float32) for name, v in places.items()}
    given = replace(given, pool=pool_of(vectors), train=("g_train",), embeddings=vectors)

    def explained(losses):
        differences = [a - p for p, a in zip(losses.prompted, losses.alone, strict=True)]
        return sum(max(0, d) for d in differences) / len(differences)

    def cosine(a, b):
        a, b = places[a], places[b]
        return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))

    worth = {name: explained(losses) for name, losses in given.reference_losses.items()}
    taken = []
    for name in first(worth, len(NAMES)):
        if all(cosine(name, other) <= 0.8 for other in ["g_train", *taken]):
            taken.append(name)
    left = [name for name in first(worth, len(NAMES)) if name not in taken]
    assert 5 < len(taken) < 15  # some stand in the way of others
    found = select(DeitaLike(Given(), threshold=0.8), given)
    assert list(found.tasks) == [*taken, *left][:15]
    assert found.margins["all"] is None


@pytest.mark.parametrize("strategy", [Loss(instances=3), DeitaLike(Given(), instances=3)])
def test_tasks_without_references_are_named(strategy):
    given = context(3)
    name = NAMES[4]
    bare = {**given.reference_losses, name: ReferenceLosses(np.zeros(0), np.zeros(0))}
    with pytest.raises(UserError, match=f"first 3 instances of task '{name}' have none"):
        select(strategy, replace(given, reference_losses=bare))


def test_settings():
    for strategy in (Loss, LossDrop, InstructionFollowingDifficulty):
        with pytest.raises(UserError, match=f"{strategy.__name__}.instances = 0 must be at least"):
            strategy(instances=0)
    with pytest.raises(UserError, match=r"DeitaLike.threshold = 1.5 is a cosine"):
        DeitaLike(Given(), threshold=1.5)


ARMS = (PromptUncertainty(), LowPerplexity(), Random())


def test_a_bandit_tries_all_then_prefers_what_gained():
    bandit = StrategyBandit(ARMS, exploration=0.5)
    names = [arm.name for arm in ARMS]
    gain_of = dict(zip(names, (0.5, 3.0, 1.0), strict=True))
    scores, pulled = [10.0], []
    for _ in range(40):
        arm = bandit.of_round(scores)
        pulled.append(arm.name)
        scores.append(scores[-1] + gain_of[arm.name])
    assert pulled[:3] == names
    # The published rule, round by round.
    for done in range(3, 40):
        bounds = {}
        for name in names:
            times = pulled[:done].count(name)
            bounds[name] = gain_of[name] + 0.5 * math.sqrt(2 * math.log(done) / times)
        assert pulled[done] == max(names, key=lambda name: bounds[name])
    assert pulled.count("low_perplexity") > 30
    assert bandit.needs_scores and not StrategyBandit((Random(), Loss())).needs_scores


def test_a_bandit_needs_arms_and_dev_tasks():
    with pytest.raises(UserError, match="has 1 strategies. Give at least two"):
        StrategyBandit((Random(),))
    with pytest.raises(UserError, match="'random' is no strategy"):
        StrategyBandit((Random(), "random"))
    with pytest.raises(UserError, match=r"exploration = -1 must not be below 0"):
        StrategyBandit(ARMS, exploration=-1)
    with pytest.raises(UserError, match="rewarded by dev tasks"):
        StrategyBandit(ARMS).of_round([math.nan])
