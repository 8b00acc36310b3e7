"""Contexts of selections among tasks of which only names and scores matter."""

from collections.abc import Callable, Iterable

import numpy as np

from ait_jax.pool import Instruction, Task, TaskPool
from ait_jax.selection import Key, Quotas, SelectionContext, TaskScores
from ait_jax.selection.likelihood_table import Encoded, LikelihoodTable
from ait_jax.selection.uncertainty import task_scores


def table_of(
    rows: Iterable[tuple[str, str, int, float]], generated: Iterable[float] | None = None
) -> LikelihoodTable:
    """Returns the table of (task, instance id, prompt, log-likelihood) rows.

    Args:
      generated: of the rows' decoded tokens, NaN where there are none.
    """
    task, instance, prompt, value = list(zip(*rows, strict=True)) or [()] * 4

    def encoded(texts: tuple[str, ...]) -> Encoded:
        code_of = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        return Encoded(np.array([code_of[text] for text in texts], np.int64), list(code_of))

    return LikelihoodTable.from_columns(
        encoded(task),
        encoded(instance),
        np.array(prompt, np.int64),
        np.array(value, np.float64),
        generated=None if generated is None else np.array(list(generated), np.float64),
    )


def pool_of(
    names: Iterable[str],
    is_cls: Callable[[str], bool] = lambda name: name.startswith("c"),
    category: Callable[[str], str] = lambda name: name[0],
) -> TaskPool:
    """Returns a pool of tasks without instances."""
    tasks = [Task(name, Instruction("Do it."), (), (category(name),)) for name in names]
    return TaskPool(tasks, {task.name: is_cls(task.name) for task in tasks})


def context_of(
    scores: TaskScores,
    num_tasks: int,
    cls_ratio: float | None = None,
    *,
    seed: int = 0,
    round_index: int = 0,
    is_cls: Callable[[str], bool] = lambda name: name.startswith("c"),
) -> SelectionContext:
    pool = pool_of(scores.tasks or ("none",), is_cls)
    return SelectionContext(scores, pool, Quotas(num_tasks, cls_ratio), Key(seed, round_index))


def scores_at(points: dict[str, tuple[float, float]]) -> TaskScores:
    """Scores with given (prompt uncertainty, probability), through a likelihood table."""
    rows = []
    for name, (uncertainty, probability) in points.items():
        for j, p in enumerate((probability, probability - uncertainty)):
            rows.append((name, "0", j, np.log(p)))
    return task_scores(table_of(rows))


def random_scores(n: int) -> TaskScores:
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.3, 1.0, n)
    uncertainty = probability * generator.beta(1, 8, n)
    return scores_at(
        {
            f"{'cg'[i % 3 > 0]}task{i:04d}_with_quite_a_long_name_of_its_own": point
            for i, point in enumerate(zip(uncertainty, probability, strict=True))
        }
    )
