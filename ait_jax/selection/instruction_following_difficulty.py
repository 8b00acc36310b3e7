"""IFD: tasks whose prompts help the model little with their answers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ait_jax.selection.reference_strategy import ReferenceLosses, ReferenceStrategy


@dataclass(frozen=True)
class InstructionFollowingDifficulty(ReferenceStrategy):
    """Highest loss of an answer under its prompt, divided by its loss without one.

    Li et al., "From Quantity to Quality: Boosting LLM Performance with Self-Guided Data Selection
    for Instruction Tuning", NAACL 2024, here the mean over a task's instances. From 1 on the
    prompt misleads: as there, such instances are left out, and tasks of such alone come last.
    """

    needs_alone: ClassVar[bool] = True

    def worth(self, losses: ReferenceLosses) -> np.ndarray:
        """Returns the ratios below 1; -1 if all are above."""
        assert losses.alone is not None
        ratios = losses.prompted / np.maximum(losses.alone, np.finfo(np.float64).tiny)
        helped = ratios[ratios < 1]
        return helped if len(helped) else np.array([-1.0])
