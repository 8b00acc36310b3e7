"""Strategies that look at the reference outputs: what they cost the model, with and without."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from ait_jax.errors import UserError, shown
from ait_jax.selection.selection import SelectionContext, Strategy
from ait_jax.selection.uncertainty import PerTask, TaskScores


class ReferenceLosses(NamedTuple):
    """A task's losses: mean cross-entropy in nats a token of its instances' first references.

    Attributes:
      prompted: under the prompt.
      alone: without a prompt; None where the strategy does not ask for it.
      before: under the prompt, of the model before any training; None likewise.
    """

    prompted: Float[np.ndarray, " instances"]
    alone: Float[np.ndarray, " instances"] | None = None
    before: Float[np.ndarray, " instances"] | None = None


@dataclass(frozen=True)
class ReferenceStrategy(Strategy):
    """Ranks by losses of the remaining tasks' reference outputs.

    Attributes:
      needs_alone, needs_before: which losses are computed beside `ReferenceLosses.prompted`.

    Args:
      instances: of a task, its first ones.

    Raises:
      UserError: fewer than one instance.
    """

    needs_scores: ClassVar[bool] = False
    needs_alone: ClassVar[bool] = False
    needs_before: ClassVar[bool] = False
    instances: int = 8

    def __post_init__(self) -> None:
        if self.instances < 1:
            owner = type(self).__name__
            raise UserError(f"{owner}.instances = {self.instances} must be at least 1.")

    def losses(self, task: str, context: SelectionContext) -> ReferenceLosses:
        """Returns a task's losses.

        Raises:
          UserError: none of its instances has a reference output.
        """
        losses = context.reference_losses.get(task)
        if losses is None or not len(losses.prompted):
            raise UserError(
                f"Strategy {shown(self.name)} reads reference outputs, and the first "
                f"{self.instances} instances of task {shown(task)} have none; take such tasks out "
                "of the pool, or choose another STRATEGY."
            )
        return losses

    def means(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns every task's mean of `worth` over its instances, float64."""
        means = [self.worth(self.losses(task, context)).mean() for task in scores.tasks]
        return self.finite(np.array(means, np.float64), scores)

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask | None:
        """Returns `means`."""
        return self.means(scores, context)

    def worth(self, losses: ReferenceLosses) -> np.ndarray:
        """Returns a number for each instance; the higher a task's mean, the more it is wanted."""
        raise NotImplementedError(f"{type(self).__name__} needs a worth()")
