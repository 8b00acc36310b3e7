"""Strategies over embeddings, each against plain NumPy loops on few tasks."""

from dataclasses import replace

import numpy as np
import pytest
from selecting import context_of, pool_of, random_scores, scores_at

from ait_jax.errors import UserError
from ait_jax.pool import Instruction, Task, TaskPool
from ait_jax.pool.cls_gen import Quotas
from ait_jax.randomness import Key
from ait_jax.selection.diverse_uncertainty import DiverseUncertainty
from ait_jax.selection.facility_location import FacilityLocation
from ait_jax.selection.instruction_length import InstructionLength
from ait_jax.selection.inverse_confidence import InverseConfidence
from ait_jax.selection.k_center import KCenter
from ait_jax.selection.nearest_instructions import NearestInstructions
from ait_jax.selection.representation_similarity import RepresentationSimilarity
from ait_jax.selection.selection import SelectionContext, select
from ait_jax.selection.uncertainty import TaskScores


class Given:
    """An embedder; contexts here have its embeddings already."""

    def embed(self, texts, asker):
        raise NotImplementedError


TRAIN, DEV = ("c_train0", "g_train1"), ("c_dev0", "g_dev1", "g_dev2")


def context(num_tasks, quota, dimensions=6, train=TRAIN, dev=DEV):
    scores = random_scores(num_tasks)
    scores = scores.subset(sorted(scores.tasks))
    generator = np.random.default_rng(3)
    names = [*scores.tasks, *train, *dev]
    vectors = generator.normal(size=(len(names), dimensions)) + 0.5
    vectors *= generator.uniform(0.5, 2, (len(names), 1))  # lengths do not matter
    embeddings = dict(zip(names, vectors.astype(np.float32), strict=True))
    made = context_of(scores, quota)
    return replace(made, pool=pool_of(names), train=train, dev=dev, embeddings=embeddings)


def unit(context, names):
    vectors = np.array([context.embeddings[name] for name in names], np.float64)
    return [v / np.sqrt((v**2).sum()) for v in vectors]


def greedy(context, worth):
    """Picks the task of largest worth(task's vector, chosen vectors), the first of equals."""
    names = list(context.scores.tasks)
    vectors = dict(zip(names, unit(context, names), strict=True))
    chosen = unit(context, context.train)
    picked = []
    for _ in range(context.quotas.num_tasks):
        left = [name for name in names if name not in picked]
        best = max(left, key=lambda name: worth(name, vectors[name], chosen, vectors.values()))
        picked.append(best)
        chosen = [*chosen, vectors[best]]
    return picked


def test_k_center():
    given = context(40, 12)

    def distance(_, vector, chosen, everything):
        return min(((vector - other) ** 2).sum() for other in chosen)

    assert list(select(KCenter(Given()), given).tasks) == greedy(given, distance)
    alone = replace(given, train=())
    vectors = dict(zip(given.scores.tasks, unit(given, given.scores.tasks), strict=True))
    middle = sum(vectors.values())
    nearest = max(vectors, key=lambda name: vectors[name] @ middle)
    assert select(KCenter(Given()), alone).tasks[0] == nearest


def test_facility_location():
    given = context(40, 12)

    def gain(_, vector, chosen, everything):
        def total(of):
            return sum(max(0, *(v @ other for other in of)) for v in everything)

        return total([*chosen, vector]) - total(chosen)

    # Two tasks that are near each other alone add the same, so their order is rounding.
    assert set(select(FacilityLocation(Given()), given).tasks) == set(greedy(given, gain))


def test_diverse_uncertainty():
    given = context(40, 12)
    uncertainty = dict(zip(given.scores.tasks, given.scores.prompt_uncertainty, strict=True))

    def worth(name, vector, chosen, everything):
        return uncertainty[name] * min(1 - vector @ other for other in chosen)

    assert list(select(DiverseUncertainty(Given()), given).tasks) == greedy(given, worth)
    # Where all tasks but two are alike, the second choice is the other kind, however sure it is.
    same = {name: np.ones(2, np.float32) for name in given.embeddings}
    least = min(uncertainty, key=lambda name: uncertainty[name])
    same[least] = np.array([1, -1], np.float32)
    two = replace(given, train=(), embeddings=same, quotas=Quotas(2, None))
    most = max(uncertainty, key=lambda name: uncertainty[name])
    assert select(DiverseUncertainty(Given()), two).tasks == (most, least)


def test_nearest_instructions():
    given = context(40, 12)
    targets = unit(given, DEV)
    vectors = dict(zip(given.scores.tasks, unit(given, given.scores.tasks), strict=True))
    nearness = {name: max(v @ t for t in targets) for name, v in vectors.items()}
    expected = sorted(nearness, key=lambda name: -nearness[name])[:12]
    found = select(NearestInstructions(Given()), given)
    assert list(found.tasks) == expected
    margin = nearness[expected[-1]] - sorted(nearness.values())[-13]
    assert found.margins["all"] == pytest.approx(margin, abs=1e-6)


def test_representation_similarity():
    given = context(40, 12)
    left = dict(zip(given.scores.tasks, unit(given, given.scores.tasks), strict=True))
    expected = []
    for turn in range(12):
        target = unit(given, DEV)[turn % len(DEV)]
        expected.append(max(left, key=lambda name: left[name] @ target))
        del left[expected[-1]]
    assert list(select(RepresentationSimilarity(Given()), given).tasks) == expected


@pytest.mark.parametrize("strategy", [NearestInstructions, RepresentationSimilarity])
def test_targets_are_needed(strategy):
    with pytest.raises(UserError, match="there are none; use splits with dev tasks"):
        select(strategy(Given()), context(8, 2, dev=()))


def test_damaged_embeddings_and_settings():
    given = context(8, 2)
    name = given.scores.tasks[3]
    for wrong in (np.nan, 0.0):
        broken = {**given.embeddings, name: np.full(6, wrong, np.float32)}
        with pytest.raises(UserError, match=f"1 of 8 tasks have no direction, such as .*{name}"):
            select(KCenter(Given()), replace(given, embeddings=broken))
    with pytest.raises(UserError, match=r"KCenter.embedder = 'x' cannot embed; give @embeddings"):
        KCenter("x")
    with pytest.raises(UserError, match=r"KCenter.of = 'datum' must be one of instruction, data"):
        KCenter(Given(), of="datum")
    with pytest.raises(UserError, match="instances = 0 must be at least 1"):
        KCenter(Given(), instances=0)


def test_longest_instructions():
    words = {"a": 3, "b": 9, "c": 1}
    tasks = [Task(name, Instruction("go " * n), (), ("any",)) for name, n in words.items()]
    pool = TaskPool(tasks, dict.fromkeys(words, True))
    scores = TaskScores.unscored(words)
    given = SelectionContext(scores, pool, Quotas(2, None), Key(0, 0))
    assert select(InstructionLength(), given).tasks == ("b", "a")


def test_inverse_confidence_draws_in_proportion():
    """How often each of three tasks comes first, against 1 / probability, over 4,000 seeds."""
    scores = scores_at({"a": (0.1, 0.8), "b": (0.1, 0.4), "c": (0.1, 0.2)})
    first = [
        select(InverseConfidence(), context_of(scores, 1, seed=seed)).tasks[0]
        for seed in range(4000)
    ]
    shares = [first.count(name) / 4000 for name in "abc"]
    np.testing.assert_allclose(shares, np.array([1, 2, 4]) / 7, atol=0.025)
    assert first[:50] == [
        select(InverseConfidence(), context_of(scores, 1, seed=seed)).tasks[0] for seed in range(50)
    ]
