"""The built-in pool: short generated tasks in NIV2's schema, from trivial to pure noise.

`instructions.toml` has the texts of the tasks by family, four modules have what draws their inputs.
The families of `heldout_families` are the test split. The dev split is a fixed list from the other
families; all other tasks remain to be selected.
"""

import tomllib
from pathlib import Path

from ait_jax.tasks.mini import heldout_families, number_families, sentence_families, word_families
from ait_jax.tasks.mini.generator import TaskSpec, build_task

from ait_jax.pool import Splits, Task, TaskPool

_INSTRUCTIONS = tomllib.loads(
    Path(__file__).with_name("instructions.toml").read_text(encoding="utf-8")
)
_DRAWERS = (
    word_families.DRAWERS
    | sentence_families.DRAWERS
    | number_families.DRAWERS
    | heldout_families.DRAWERS
)
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
    rows = [
        (family, TaskSpec(name, draw=_DRAWERS[name], **text))
        for family, texts in _INSTRUCTIONS.items()
        for name, text in texts.items()
    ]
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
    test = tuple(name for name, (_, row) in table.items() if row.name in heldout_families.DRAWERS)
    dev = tuple(name for name, (_, row) in table.items() if row.name in DEV_TASKS)
    remain = tuple(name for name in table if name not in test and name not in dev)
    return Splits(remain=remain, dev=dev, test=test)


def load_pool(instances_per_task: int = 120, seed: int = 0) -> TaskPool:
    """Returns the pool with its default splits and its CLS/GEN labels."""
    labels = {name: row.is_cls for name, (_, row) in specs().items()}
    tasks = generate_tasks(instances_per_task, seed)
    return TaskPool(tasks, cls_labels=labels, name="mini", splits=default_splits())
