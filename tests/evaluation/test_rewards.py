"""Rewards: right and wrong by each metric, the best reference, and what is refused."""

import pytest

from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import rouge_l
from ait_jax.evaluation.rewards import Reward


def test_exact_match():
    reward = Reward("exact_match")
    assert reward("The Answer.", ["no", "the answer"]) == 1.0
    assert reward("an answer", ["no", "the answer"]) == 0.0


def test_rouge_l_with_a_threshold():
    references = ["the cat sat on the mat", "a dog"]
    value = rouge_l("the cat sat", references)
    assert 0.5 < value < 0.8
    assert Reward("rougeL", 0.5)("the cat sat", references) == 1.0
    assert Reward("rougeL", 0.8)("the cat sat", references) == 0.0
    assert Reward("rougeL", None)("the cat sat", references) == value
    # At the threshold is right.
    assert Reward("rougeL", value)("the cat sat", references) == 1.0
    assert Reward("rougeL", None)("a dog", references) == 1.0 and Reward()("", references) == 0.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("rogueL",), r"\(REWARD\) = 'rogueL' must be one of .*Did you mean 'rougeL'"),
        (("exact",), r"\(REWARD\) = 'exact' must be one of \('exact_match', 'rougeL'\)"),
        (("rougeL", 0.0), r"\(REWARD_THRESHOLD\) = 0.0 must be above 0"),
        (("rougeL", 50), r"\(REWARD_THRESHOLD\) = 50 must be above 0"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Reward(*arguments)
