"""Loss and its drop: what the model cannot do yet, and what its training helps with."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ait_jax.errors import UserError
from ait_jax.selection.reference_strategy import ReferenceLosses, ReferenceStrategy
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import PerTask, TaskScores


@dataclass(frozen=True)
class Loss(ReferenceStrategy):
    """Highest mean loss of the reference outputs.

    Loshchilov and Hutter, "Online Batch Selection for Faster Training of Neural Networks", 2015, of
    whole tasks. It also takes what nobody can learn: noise has a high loss.
    """

    def worth(self, losses: ReferenceLosses) -> np.ndarray:
        """Returns the losses under the prompt."""
        return losses.prompted


@dataclass(frozen=True)
class LossDrop(Loss):
    """Largest fall of that loss since before any training: tasks that the training reaches.

    Learning progress (Graves et al., "Automated Curriculum Learning for Neural Networks", ICML
    2017) of tasks not trained on. Noise does not fall, what is known has nowhere to fall.
    """

    needs_before: ClassVar[bool] = True

    def worth(self, losses: ReferenceLosses) -> np.ndarray:
        """Returns loss before minus loss now."""
        assert losses.before is not None
        return losses.before - losses.prompted

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns every task's mean drop, float64; UserError if nothing was trained."""
        drops = self.means(scores, context)
        if len(drops) and not drops.any():
            raise UserError(
                "Strategy 'loss_drop' compares the model with itself before training, and no loss "
                "has changed; score a trained model within a run, or choose another STRATEGY."
            )
        return drops
