"""Which earlier tasks are trained on again: Dynosaur's replay rules for continual learning.

S_cp are the cosine similarities of embeddings of current x previous tasks, S_pp of previous x
previous ones (arXiv 2305.14327, section on continual learning; the sums follow a reimplementation,
since the authors released no code for them):

    instruction_diverse   smallest column sums of S_cp: least similar to the current tasks
    instruction_similar   largest column sums of S_cp: most similar to them
    instruction_support   largest row sums of S_pp: most representative of the previous tasks
    data_diverse          as instruction_diverse, on mean embeddings of tasks' instances
    random, none          the baselines

Everything is float64 NumPy and independent of where embeddings come from.
"""

from collections.abc import Sequence

import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError, nearest, shown

NONE, RANDOM = "none", "random"
DIVERSE, SIMILAR, SUPPORT = "instruction_diverse", "instruction_similar", "instruction_support"
DATA_DIVERSE = "data_diverse"
RULES = (NONE, RANDOM, DIVERSE, SIMILAR, SUPPORT, DATA_DIVERSE)


def check_rule(rule: str) -> None:
    """Raises UserError unless `rule` is one of RULES."""
    if rule not in RULES:
        raise UserError(
            f"REPLAY = {shown(rule)} is not a rule.{nearest(str(rule), RULES)} Give one of "
            f"{', '.join(RULES)}."
        )


def cosine_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosines of rows, float64 [len(first), len(second)]; 0 for a row of zeros.

    Raises:
      UserError: an embedding is not finite.
    """
    return _unit(first) @ _unit(second).T


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if not np.isfinite(rows).all():
        raise UserError(
            "An embedding is not finite, so replay tasks cannot be chosen: the checkpoint or the "
            "EMBEDDER is damaged, or ACTIVATION_DTYPE is too narrow."
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def replay_scores(rule: str, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Returns float64 [previous]: tasks with higher scores are replayed first.

    Args:
      rule: one that needs embeddings.
      current: embeddings of the current tasks, [current, size].
      previous: embeddings of the previous tasks, [previous, size].
    """
    if rule == SUPPORT:
        return cosine_similarities(previous, previous).sum(axis=1)
    column_sums = cosine_similarities(current, previous).sum(axis=0)
    return column_sums if rule == SIMILAR else -column_sums


def choose(
    previous: Sequence[str], scores: Sequence[float] | np.ndarray, count: int
) -> tuple[str, ...]:
    """Returns the `count` tasks with the highest scores, best first, ties by name."""
    ranked = sorted(zip(previous, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(name for name, _ in ranked[:count])


def choose_at_random(
    previous: Sequence[str], count: int, seed: int, round_index: int
) -> tuple[str, ...]:
    """Returns `count` tasks; a task's draw depends on its own name, not on the other tasks."""
    keys = [-randomness.uniform(seed, "replay", round_index, name) for name in previous]
    return choose(previous, keys, count)
