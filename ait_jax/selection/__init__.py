"""From likelihoods to measures to the next tasks; what a strategy is written with."""

from ait_jax.pool.cls_gen import Quotas
from ait_jax.randomness import Key
from ait_jax.selection.selection import Selection, SelectionContext, Strategy, select
from ait_jax.selection.uncertainty import TaskScores

__all__ = [
    "Key",
    "Quotas",
    "Selection",
    "SelectionContext",
    "Strategy",
    "TaskScores",
    "select",
]
