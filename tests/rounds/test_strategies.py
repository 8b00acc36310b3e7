"""Strategies within runs: what they ask of the model is there, and follows the round."""

import dataclasses

import numpy as np
import pytest
from tiny_experiment import CONFIG, tiny_experiment

from ait_jax.pool.splits import read_names, read_splits
from ait_jax.rounds import active, record, stages
from ait_jax.rounds.run import OnDemand, opened
from ait_jax.scorer.embeddings import ModelEncoder
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection.deita_like import DeitaLike
from ait_jax.selection.diverse_uncertainty import DiverseUncertainty
from ait_jax.selection.facility_location import FacilityLocation
from ait_jax.selection.instruction_following_difficulty import InstructionFollowingDifficulty
from ait_jax.selection.instruction_length import InstructionLength
from ait_jax.selection.inverse_confidence import InverseConfidence
from ait_jax.selection.k_center import DiverseEvol, KCenter
from ait_jax.selection.loss import Loss, LossDrop
from ait_jax.selection.nearest_instructions import NearestInstructions
from ait_jax.selection.representation_similarity import RepresentationSimilarity
from ait_jax.selection.selection import PromptUncertainty, Random, select
from ait_jax.selection.strategy_bandit import StrategyBandit

STRATEGIES = [
    KCenter(ModelEncoder()), DiverseEvol(ModelEncoder()), FacilityLocation(ModelEncoder()),
    DiverseUncertainty(ModelEncoder()), NearestInstructions(ModelEncoder()),
    RepresentationSimilarity(ModelEncoder()), InverseConfidence(), InstructionLength(),
    Loss(instances=2), LossDrop(instances=2), InstructionFollowingDifficulty(instances=2),
    DeitaLike(ModelEncoder(), instances=2),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two rounds by prompt uncertainty."""
    folder = tmp_path_factory.mktemp("finished")
    active.run(tiny_experiment(folder), CONFIG, lambda line: None)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_every_strategy_selects_from_what_the_round_knows(finished, strategy):
    made = tiny_experiment(finished)
    with opened(made, record.ACTIVE, CONFIG, lambda line: None, None) as run:
        splits = read_splits(finished / "round_000")
        scores = read_task_scores(finished / "round_000" / "task_scores.parquet")
        others = {"train": splits.train, "dev": splits.dev}
        context = stages.selection_context(run, 0, scores, run.base, strategy, **others)
        if strategy.name == "loss_drop":
            # Of the base itself nothing has fallen; what falls is a difference of two models.
            losses = context.reference_losses
            for of_task in losses.values():
                np.testing.assert_array_equal(of_task.prompted, of_task.before)
            trained = OnDemand(lambda: dataclasses.replace(run.base.trained(), params=halved(run)))
            context = stages.selection_context(run, 0, scores, trained, strategy, **others)
            assert any((x.prompted != x.before).any() for x in context.reference_losses.values())
        chosen = select(strategy, context)
    assert len(set(chosen.tasks)) == made.tasks_per_round
    assert set(chosen.tasks) <= set(splits.remain)


def halved(run):
    import jax

    return jax.tree.map(lambda x: x / 2, run.base.params())


def test_a_bandit_follows_the_dev_scores(tmp_path):
    bandit = StrategyBandit((Random(), PromptUncertainty()))
    made = tiny_experiment(tmp_path, strategy=bandit, rounds=3, tasks_per_round=2)
    active.run(made, CONFIG, lambda line: None)
    run = record.read(tmp_path)
    # Every arm in turn; the first needs no scores.
    assert [run.stage(i, "select")["strategy"] for i in range(2)] == [
        "random",
        "high_prompt_uncertainty",
    ]
    assert run.stage(0, "score") is None and run.stage(1, "score")["tasks"] == 5
    assert len(read_names(tmp_path / "round_002" / "train_tasks.txt")) == 6
