"""Rewards of answers, from reference metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ait_jax.errors import UserError, nearest, shown
from ait_jax.evaluation import rouge
from ait_jax.evaluation.evaluation import EXACT_MATCH, exact_match
from ait_jax.evaluation.rouge import ROUGE_L


def _rouge_l(answer: str, references: Sequence[str]) -> float:
    # By the script of its own references: nobody compares the rewards of different instances.
    return rouge.chosen(rouge.AUTO, {"": references}).scores(answer, references)[ROUGE_L]


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    EXACT_MATCH: exact_match,
    ROUGE_L: _rouge_l,
}


@dataclass(frozen=True)
class Reward:
    """The reward of an answer, the best over its references (`evaluation`).

    Args:
      metric: "exact_match" or "rougeL".
      threshold: the reward is 1 if the metric is at least this, else 0; None gives the metric
        itself.

    Raises:
      UserError: unknown metric, or a threshold that is not above 0 and at most 1.
    """

    metric: str = ROUGE_L
    threshold: float | None = 0.5

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UserError(
                f"rewards.Reward.metric (REWARD) = {shown(self.metric)} must be one of "
                f"{tuple(METRICS)}." + nearest(str(self.metric), METRICS)
            )
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(
                f"rewards.Reward.threshold (REWARD_THRESHOLD) = {self.threshold} must be above 0 "
                "and at most 1, or None for the metric itself."
            )

    def __call__(self, answer: str, references: Sequence[str]) -> float:
        """Returns a number in [0, 1]; needs at least one reference."""
        value = METRICS[self.metric](answer, references)
        return value if self.threshold is None else float(value >= self.threshold)
