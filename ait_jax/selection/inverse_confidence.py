"""Sampling by inverse confidence: unsure tasks more often, sure ones not never."""

import math
from dataclasses import dataclass

from ait_jax import randomness
from ait_jax.selection.selection import SelectionContext, Strategy
from ait_jax.selection.uncertainty import TaskScores

# Of a prediction probability, which may be 0.
_LEAST = 1e-6


@dataclass(frozen=True)
class InverseConfidence(Strategy):
    """Draws tasks without replacement, each as likely as 1 / its prediction probability.

    Task Diversity's weighting of tasks (the less confident a model is on a task, the more it
    samples of it), here of whole tasks. Exponential keys make the draw one of sequential sampling
    (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006), stateless: a
    task's key depends on seed, round and its name.
    """

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the tasks as they are drawn."""
        confidence = self.finite(scores.prediction_probability, scores)
        key = (context.key.seed, "select", context.key.round_index, self.name)

        def waiting(task: str, probability: float) -> float:
            return -math.log(1 - randomness.uniform(*key, task)) * max(probability, _LEAST)

        times = {t: waiting(t, p) for t, p in zip(scores.tasks, confidence.tolist(), strict=True)}
        return sorted(times, key=lambda task: (times[task], task))
