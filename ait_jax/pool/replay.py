"""Which tasks of earlier stages are trained on again: Dynosaur's rules for continual learning.

With the cosine similarities of embeddings, S_cp of current x previous tasks and S_pp of previous x
previous ones (arXiv 2305.14327, section on continual learning; the sums follow a
re-implementation, since the authors released no code for them):

    instruction_diverse   the smallest column sums of S_cp: least like the current tasks
    instruction_similar   the largest column sums of S_cp: most like them
    instruction_support   the largest row sums of S_pp: those that stand for most previous tasks
    data_diverse          as instruction_diverse, on mean embeddings of tasks' instances
    random, none          the yardsticks

Everything is float64 NumPy; nothing here knows where embeddings come from.
"""

from collections.abc import Sequence

import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError, nearest

NONE, RANDOM = "none", "random"
DIVERSE, SIMILAR, SUPPORT = "instruction_diverse", "instruction_similar", "instruction_support"
DATA_DIVERSE = "data_diverse"
RULES = (NONE, RANDOM, DIVERSE, SIMILAR, SUPPORT, DATA_DIVERSE)
# What is embedded for a rule; the others need no embeddings.
ON_INSTRUCTIONS, ON_DATA = (DIVERSE, SIMILAR, SUPPORT), (DATA_DIVERSE,)


def check_rule(rule: str) -> None:
    """Raises UserError unless `rule` is one of RULES."""
    if rule not in RULES:
        raise UserError(
            f"REPLAY = {rule!r} is no rule.{nearest(str(rule), RULES)} Known: {', '.join(RULES)}."
        )


def cosine_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosines of rows, float64 [len(first), len(second)]; 0 beside a row of zeros.

    Raises:
      UserError: an embedding that is not finite.
    """
    return _unit(first) @ _unit(second).T


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if not np.isfinite(rows).all():
        raise UserError(
            "An embedding is not finite: the checkpoint or the EMBEDDER is damaged, or "
            "ACTIVATION_DTYPE too narrow; replay tasks cannot be chosen."
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def replay_scores(rule: str, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Returns float64 [previous]: the higher, the sooner a task is replayed.

    Args:
      rule: one that needs embeddings.
      current, previous: embeddings of the tasks, [current, size] and [previous, size].
    """
    if rule == SUPPORT:
        return cosine_similarities(previous, previous).sum(axis=1)
    column_sums = cosine_similarities(current, previous).sum(axis=0)
    return column_sums if rule == SIMILAR else -column_sums


def choose(previous: Sequence[str], scores: Sequence[float], count: int) -> tuple[str, ...]:
    """Returns the `count` tasks with the highest scores, best first; equal ones by name."""
    ranked = sorted(zip(previous, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(name for name, _ in ranked[:count])


def choose_at_random(previous: Sequence[str], count: int, seed: int, round_index: int) -> tuple[str, ...]:
    """Returns `count` tasks; a task's draw depends on its own name, not on the other tasks."""
    keys = [-randomness.uniform(seed, "replay", round_index, name) for name in previous]
    return choose(previous, keys, count)
