"""DEITA without a paid judge: what prompts tell of answers, without what is alike."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ait_jax.errors import UserError
from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions
from ait_jax.selection.k_center import nearness_to
from ait_jax.selection.reference_strategy import ReferenceLosses, ReferenceStrategy
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import TaskScores


@dataclass(frozen=True)
class DeitaLike(ReferenceStrategy, EmbeddedStrategy):
    """Highest complexity times quality, skipping tasks that are near one already taken.

    Liu et al., "What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data
    Selection in Instruction Tuning", ICLR 2024, has both judged by models that learned it from
    ChatGPT. Here the model itself says: an answer is complex by its loss without a prompt, and good
    by the share of that which its prompt explains. Their product is the difference of the losses.

    Args:
      threshold: a task with a larger cosine to one that is trained on or taken waits behind the
        others.

    Raises:
      UserError: it is not in (0, 1]; as `EmbeddedStrategy`.
    """

    needs_alone: ClassVar[bool] = True
    threshold: float = 0.9

    def __post_init__(self) -> None:
        EmbeddedStrategy.__post_init__(self)
        if not 0 < self.threshold <= 1:
            raise UserError(
                f"DeitaLike.threshold = {self.threshold} is a cosine; give one in (0, 1]."
            )

    def worth(self, losses: ReferenceLosses) -> np.ndarray:
        """Returns nats a token that the prompt explains, at least 0."""
        assert losses.alone is not None
        return np.maximum(losses.alone - losses.prompted, 0)

    def preference(self, scores: TaskScores, context: SelectionContext) -> None:
        """Returns None: what is alike is not taken by worth."""

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns as many tasks as may be asked for, no two alike, then the others by worth."""
        scores = scores.subset(sorted(scores.tasks))
        worth = self.means(scores, context)
        vectors = directions(scores.tasks, context)
        near = nearness_to(directions(context.train, context), vectors)
        order = np.argsort(-worth, kind="stable").tolist()
        taken: dict[int, None] = {}
        for row in order:
            if len(taken) == context.quotas.num_tasks:
                break
            if near[row] <= self.threshold:
                taken[row] = None
                np.maximum(near, vectors @ vectors[row], out=near)
        return [scores.tasks[row] for row in [*taken, *(row for row in order if row not in taken)]]
