"""A bandit over strategies: the one that helped dev tasks most selects most often."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ait_jax.errors import UserError, shown
from ait_jax.selection.selection import Strategy


@dataclass(frozen=True)
class StrategyBandit(Strategy):
    """UCB1 (Auer et al., "Finite-time Analysis of the Multiarmed Bandit Problem", 2002).

    A round's reward is the gain of ROUGE-L on the dev tasks by the training after its selection.
    Every arm selects once, in order; then the one with the highest mean gain plus
    `exploration` * sqrt(2 ln(rounds) / its rounds). So it needs more rounds than arms, and dev
    tasks. What it chose before follows from the dev scores: it keeps no state.

    Args:
      arms: strategies.
      exploration: in points of ROUGE-L, about as much as gains differ.

    Raises:
      UserError: fewer than two arms, something else among them, or a negative `exploration`.
    """

    arms: tuple[Strategy, ...] = ()
    exploration: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(self.arms))
        wrong = [arm for arm in self.arms if not isinstance(arm, Strategy)]
        if len(self.arms) < 2 or wrong:
            given = f" {shown(wrong[0])} is no strategy." if wrong else ""
            raise UserError(
                f"StrategyBandit.arms has {len(self.arms)} strategies.{given} Give at least two, "
                "such as (@selection.Random(), @selection.PromptUncertainty())."
            )
        if self.exploration < 0:
            raise UserError(f"StrategyBandit.exploration = {self.exploration} must not be below 0.")

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """Whether an arm needs scores."""
        return any(arm.needs_scores for arm in self.arms)

    def of_round(self, dev_scores: Sequence[float]) -> Strategy:
        """Returns the arm whose turn it is.

        Raises:
          UserError: a round has no dev score.
        """
        if any(map(math.isnan, dev_scores)):
            raise UserError(
                f"Strategy {shown(self.name)} is rewarded by dev tasks with reference outputs, and "
                "there are none; use splits with dev tasks, or another STRATEGY."
            )
        gains: list[list[float]] = [[] for _ in self.arms]
        chosen = 0
        for rounds, (before, after) in enumerate(itertools.pairwise(dev_scores), 1):
            gains[chosen].append(after - before)
            chosen = self._best(gains, rounds)
        return self.arms[chosen].of_round(dev_scores)

    def _best(self, gains: Sequence[Sequence[float]], rounds: int) -> int:
        def bound(arm: int) -> float:
            times = len(gains[arm])
            if not times:
                return math.inf
            width = self.exploration * math.sqrt(2 * math.log(rounds) / times)
            return sum(gains[arm]) / times + width

        return max(range(len(self.arms)), key=bound)  # the first of equals
