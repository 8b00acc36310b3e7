"""INSTA: tasks whose instructions are like those of the dev tasks."""

from dataclasses import dataclass, field

from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions, target_directions
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import PerTask, TaskScores


@dataclass(frozen=True)
class NearestInstructions(EmbeddedStrategy):
    """Highest cosine of a task's instruction to that of the dev task most like it.

    Lee et al., "Instruction Matters: A Simple yet Effective Task Selection for Optimized
    Instruction Tuning of Specific Tasks", EMNLP 2024. (They fine-tune the sentence encoder on the
    instructions; give such a one as `embedder` for that.)
    """

    of: str = field(default="instruction", init=False)

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns the cosines, float64."""
        cosines = directions(scores.tasks, context) @ target_directions(self, context).T
        return cosines.max(axis=1).astype(float)
