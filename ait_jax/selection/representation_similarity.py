"""RDS+: tasks that the model sees as it sees the dev tasks."""

from dataclasses import dataclass

import numpy as np

from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions, target_directions
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import TaskScores


@dataclass(frozen=True)
class RepresentationSimilarity(EmbeddedStrategy):
    """In turn for every dev task, the task most like it that is left.

    Ivison et al., "Large-Scale Data Selection for Instruction Tuning", 2025 (RDS+): cosines of the
    model's last hidden states, for decoder-only models weighted by position, taken in a round robin
    over the target's examples. Here a task's embedding, the mean over its data, stands where theirs
    selects single examples.
    """

    of: str = "data"

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the tasks in that order."""
        tasks = sorted(scores.tasks)
        cosines = target_directions(self, context) @ directions(tasks, context).T
        wanted = [iter(row) for row in np.argsort(-cosines, axis=1, kind="stable").tolist()]
        taken: dict[int, None] = {}
        while len(taken) < len(tasks):
            for of_dev_task in wanted:
                row = next((row for row in of_dev_task if row not in taken), None)
                if row is not None:
                    taken[row] = None
        return [tasks[row] for row in taken]
