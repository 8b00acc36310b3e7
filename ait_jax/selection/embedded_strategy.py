"""Strategies that look at where tasks lie among each other: what they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ait_jax.errors import UserError, shown
from ait_jax.selection.selection import SelectionContext, Strategy

TEXTS = ("instruction", "data")


@dataclass(frozen=True)
class EmbeddedStrategy(Strategy):
    """Ranks by embeddings of the remaining tasks, and of those trained on and on dev.

    Args:
      embedder: texts -> vectors: `scorer.embeddings.ModelEncoder`, the model as trained so far, or
        `HuggingFaceEncoder`.
      of: what stands for a task, its "instruction" or its "data": the mean over the inputs of its
        first `instances`.

    Raises:
      UserError: no embedder, another word for `of`, or fewer than one instance.
    """

    needs_scores: ClassVar[bool] = False
    embedder: Any = None
    of: str = "instruction"
    instances: int = 8

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not hasattr(self.embedder, "embed"):
            raise UserError(
                f"{owner}.embedder = {shown(self.embedder)} cannot embed; give "
                "@embeddings.ModelEncoder(), @embeddings.HuggingFaceEncoder() or a class with "
                "embed(texts, asker)."
            )
        if self.of not in TEXTS:
            raise UserError(f"{owner}.of = {shown(self.of)} must be one of {', '.join(TEXTS)}.")
        if self.instances < 1:
            raise UserError(f"{owner}.instances = {self.instances} must be at least 1.")


def directions(
    tasks: Sequence[str], context: SelectionContext
) -> Float[np.ndarray, "tasks dimensions"]:
    """Returns the tasks' embeddings with length 1, float32: their products are cosines.

    Raises:
      UserError: one is not finite or 0, and so has no direction.
    """
    if not len(tasks):
        return np.zeros((0, 0), np.float32)
    vectors = np.stack([context.embeddings[name] for name in tasks]).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(wrong):
        raise UserError(
            f"The embeddings of {len(wrong)} of {len(tasks)} tasks have no direction, such as that "
            f"of {shown(tasks[wrong[0]])}: the model has diverged, its embedder is damaged, or the "
            "text is empty."
        )
    return vectors / lengths


def target_directions(
    strategy: Strategy, context: SelectionContext
) -> Float[np.ndarray, "tasks dimensions"]:
    """Returns `directions` of the dev tasks; UserError if there are none."""
    if not context.dev:
        raise UserError(
            f"Strategy {shown(strategy.name)} prefers tasks like the dev tasks, and there are "
            "none; use splits with dev tasks, or another STRATEGY."
        )
    return directions(context.dev, context)
