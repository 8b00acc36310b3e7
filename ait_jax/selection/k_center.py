"""k-center: tasks that leave no task far from a chosen one."""

from dataclasses import dataclass

import numpy as np

from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import TaskScores


@dataclass(frozen=True)
class KCenter(EmbeddedStrategy):
    """The task farthest from all that are trained on and chosen, again and again.

    The greedy 2-approximation of k-center (Sener and Savarese, "Active Learning for Convolutional
    Neural Networks: A Core-Set Approach", ICLR 2018). Distances are Euclidean between embeddings of
    length 1. If nothing is trained on, the task nearest to the mean comes first.
    """

    @property
    def name(self) -> str:
        """The class name in snake_case."""
        return "k_center"

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns as many tasks as may be asked for in that order, then the others by distance."""
        tasks = sorted(scores.tasks)
        vectors = directions(tasks, context)
        near = nearness_to(directions(context.train, context), vectors)
        chosen: list[int] = []
        if not len(context.train):
            chosen.append(int(np.argmax(vectors @ vectors.mean(axis=0))))
            near = vectors @ vectors[chosen[0]]
        while len(chosen) < min(len(tasks), context.quotas.num_tasks):
            near[chosen] = np.inf
            chosen.append(int(np.argmin(near)))
            np.maximum(near, vectors @ vectors[chosen[-1]], out=near)
        near[chosen] = np.inf
        rest = np.argsort(near, kind="stable")[: len(tasks) - len(chosen)]
        return [tasks[row] for row in [*chosen, *rest.tolist()]]


@dataclass(frozen=True)
class DiverseEvol(KCenter):
    """k-center among the data as the model sees it, which changes from round to round.

    Wu et al., "Self-Evolved Diverse Data Sampling for Efficient Instruction Tuning", 2023, of whole
    tasks.
    """

    of: str = "data"

    name = EmbeddedStrategy.name


def nearness_to(chosen: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns each vector's largest cosine to one of `chosen`, float32; -inf if there are none.

    Args:
      chosen, vectors: rows of length 1.
    """
    near = np.full(len(vectors), -np.inf, np.float32)
    for row in chosen:
        np.maximum(near, vectors @ row, out=near)
    return near
