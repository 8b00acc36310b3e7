"""The built-in pool: short generated tasks in NIV2's schema, from trivial to pure noise.

The families are in four modules, each a table of rows (`TaskSpec`). The families of
`heldout_families` are the test split. The dev split is a fixed list from the other families; all
other tasks remain to be selected.
"""

from collections.abc import Mapping

from ait_jax.tasks.mini import heldout_families, number_families, sentence_families, word_families
from ait_jax.tasks.mini.generator import TaskSpec, build_task

from ait_jax.pool.pool import Splits, Task, TaskPool

TEST_FAMILIES = tuple(heldout_families.TABLE)
DEV_TASKS = (
    "second_word",
    "food_or_tool_classification",
    "find_the_job",
    "past_or_future_classification",
    "remove_the_last_word",
    "which_colour_was_it",
    "extract_the_city",
    "food_or_fashion_topic_classification",
    "word_in_list_classification",
    "replace_the_person",
    "good_or_bad_word_classification",
    "name_and_city_to_sentence",
)


def specs() -> dict[str, tuple[str, TaskSpec]]:
    """Returns the pool's table: task name ("mini012_first_word") -> (family, row)."""
    tables: tuple[Mapping[str, tuple[TaskSpec, ...]], ...] = (
        word_families.TABLE,
        sentence_families.TABLE,
        number_families.TABLE,
        heldout_families.TABLE,
    )
    rows = [(family, row) for table in tables for family, rows in table.items() for row in rows]
    return {
        f"mini{number:03d}_{row.name}": (family, row)
        for number, (family, row) in enumerate(rows, start=1)
    }


def generate_tasks(instances_per_task: int = 120, seed: int = 0) -> tuple[Task, ...]:
    """Returns the tasks of the pool, a function of the arguments alone.

    Raises:
      ValueError: a task has fewer than `instances_per_task` distinct inputs.
    """
    return tuple(
        build_task(row, number, family, instances_per_task, seed)
        for number, (family, row) in enumerate(specs().values(), start=1)
    )


def default_splits() -> Splits:
    """Returns the default splits; the loop draws the initial training tasks."""
    table = specs()
    test = tuple(name for name, (family, _) in table.items() if family in TEST_FAMILIES)
    dev = tuple(name for name, (_, row) in table.items() if row.name in DEV_TASKS)
    remain = tuple(name for name in table if name not in test and name not in dev)
    return Splits(remain=remain, dev=dev, test=test)


def load_pool(instances_per_task: int = 120, seed: int = 0) -> TaskPool:
    """Returns the pool with its default splits and its CLS/GEN labels."""
    labels = {name: row.is_cls for name, (_, row) in specs().items()}
    tasks = generate_tasks(instances_per_task, seed)
    return TaskPool(tasks, cls_labels=labels, name="mini", splits=default_splits())
