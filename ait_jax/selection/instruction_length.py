"""Longest instructions: a baseline that needs no model."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ait_jax.selection.selection import SelectionContext, Strategy
from ait_jax.selection.uncertainty import PerTask, TaskScores


@dataclass(frozen=True)
class InstructionLength(Strategy):
    """Most words in the definition.

    Zhao et al., "Long Is More for Alignment: A Simple but Tough-to-Beat Baseline for Instruction
    Fine-Tuning", ICML 2024, found the longest responses hard to beat; of a task, the instruction is
    what is known before training.
    """

    needs_scores: ClassVar[bool] = False

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns the numbers of words, float64."""
        definitions = (context.pool[name].instruction.definition for name in scores.tasks)
        return np.array([len(text.split()) for text in definitions], np.float64)
