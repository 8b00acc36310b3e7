"""Prompt uncertainty times distance: sensitive tasks that are not all alike."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions
from ait_jax.selection.k_center import nearness_to
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import TaskScores


@dataclass(frozen=True)
class DiverseUncertainty(EmbeddedStrategy):
    """Greedily the largest prompt uncertainty times cosine distance to the nearest chosen task.

    Uncertainty alone picks near-duplicates of what confuses the model; batch selection weighs it by
    the distance to what is chosen (Zhdanov, "Diverse mini-batch Active Learning", 2019; Ash et al.,
    "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020). What is
    trained on counts as chosen. With a CLS/GEN ratio each group is ranked by itself.
    """

    needs_scores: ClassVar[bool] = True

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns as many tasks as may be asked for in that order, then the others by it."""
        scores = scores.subset(sorted(scores.tasks))
        uncertainty = self.finite(scores.prompt_uncertainty, scores)
        vectors = directions(scores.tasks, context)
        trained = directions(context.train, context)
        # Alone, all are equally far.
        near = nearness_to(trained, vectors) if len(trained) else np.zeros(len(vectors))
        chosen: list[int] = []
        while True:
            worth = uncertainty * np.maximum(1 - near, 0)
            worth[chosen] = -np.inf
            order = np.argsort(-worth, kind="stable")
            if len(chosen) == min(len(scores), context.quotas.num_tasks):
                rest = order[: len(scores) - len(chosen)].tolist()
                return [scores.tasks[row] for row in [*chosen, *rest]]
            chosen.append(int(order[0]))
            near = np.maximum(near, vectors @ vectors[chosen[-1]])
