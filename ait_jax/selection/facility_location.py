"""Facility location: tasks that every task of the pool is near to one of."""

from dataclasses import dataclass

import numpy as np

from ait_jax.selection.embedded_strategy import EmbeddedStrategy, directions
from ait_jax.selection.k_center import nearness_to
from ait_jax.selection.selection import SelectionContext
from ait_jax.selection.uncertainty import TaskScores

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class FacilityLocation(EmbeddedStrategy):
    """The task that adds most to the sum of all tasks' cosines to their nearest chosen one.

    Unlike k-center it does not go after outliers. The sum, of max(0, cosine), is submodular, so the
    greedy choice reaches at least 1 - 1/e of the best (Nemhauser et al., 1978; Lin and Bilmes, "A
    Class of Submodular Functions for Document Summarization", ACL 2011). What is trained on counts
    as chosen.
    """

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns as many tasks as may be asked for in that order, then others by their gain."""
        tasks = sorted(scores.tasks)
        vectors = directions(tasks, context)
        near = np.maximum(nearness_to(directions(context.train, context), vectors), 0)
        everything = np.arange(len(tasks))
        gains = _change(vectors, everything, np.full(len(tasks), np.inf, np.float32), near)
        chosen: list[int] = []
        while len(chosen) < min(len(tasks), context.quotas.num_tasks):
            gains[chosen] = -np.inf
            chosen.append(int(np.argmax(gains)))
            nearer = np.maximum(near, vectors @ vectors[chosen[-1]])
            # Only for tasks that are nearer now do others add less: for fewer and fewer.
            gains += _change(vectors, everything[nearer > near], near, nearer)
            near = nearer
        gains[chosen] = -np.inf
        rest = np.argsort(-gains, kind="stable")[: len(tasks) - len(chosen)]
        return [tasks[row] for row in [*chosen, *rest.tolist()]]


def _change(
    vectors: np.ndarray, rows: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Returns by how much what each task would add for the tasks `rows` changes, float64.

    Args:
      before, after: each task's nearness to the chosen ones.
    """
    change = np.zeros(len(vectors))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        cosines = vectors[some] @ vectors.T
        gained = np.maximum(cosines - after[some, None], 0)
        gained -= np.maximum(cosines - before[some, None], 0)
        change += gained.sum(axis=0, dtype=np.float64)
    return change
