"""The built-in pool: short generated tasks in NIV2's schema, from trivial to pure noise.

`instructions.toml` has the texts of the tasks by family, their splits, and what their inputs are
drawn from; what takes code to draw is in four modules.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ait_jax.tasks.mini import heldout_families, number_families, sentence_families, word_families
from ait_jax.tasks.mini.generator import TaskSpec, build_task
from ait_jax.tasks.mini.scenes import about_scene, about_two_scenes

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


def specs() -> dict[str, tuple[str, TaskSpec]]:
    """Returns the pool's table: task name ("mini012_first_word") -> (family, row)."""
    rows = [
        (family, _spec(name, **row))
        for family, rows in _INSTRUCTIONS.items()
        for name, row in rows.items()
    ]
    return {
        f"mini{number:03d}_{row.name}": (family, row)
        for number, (family, row) in enumerate(rows, start=1)
    }


def _spec(
    name: str,
    scene: Sequence[str] = (),
    two_scenes: Sequence[str] = (),
    answers: Sequence[str] = (),
    noise: int = 0,
    **texts: Any,
) -> TaskSpec:
    """Returns the row that instructions.toml describes."""
    if scene:
        draw = about_scene(scene, answers)
    elif two_scenes:
        draw = about_two_scenes(two_scenes, answers)
    elif noise:
        draw = number_families.noise(name, texts.get("labels", ()), noise)
    else:
        draw = _DRAWERS[name]
    return TaskSpec(name, draw=draw, **texts)


def generate_tasks(instances_per_task: int = 120, seed: int = 0) -> tuple[Task, ...]:
    """Returns the tasks of the pool, a function of the arguments alone.

    Raises:
      ValueError: a task has fewer than `instances_per_task` distinct inputs.
    """
    return tuple(
        build_task(row, number, family, instances_per_task, seed)
        for number, (family, row) in enumerate(specs().values(), start=1)
    )


def load_pool(instances_per_task: int = 120, seed: int = 0) -> TaskPool:
    """Returns the pool with its default splits and its CLS/GEN labels."""
    rows = {name: row for name, (_, row) in specs().items()}
    splits = {
        split: tuple(name for name, row in rows.items() if row.split == split)
        for split in ("remain", "dev", "test")
    }
    return TaskPool(
        generate_tasks(instances_per_task, seed),
        cls_labels={name: row.is_cls for name, row in rows.items()},
        name="mini",
        splits=Splits(**splits),
    )
