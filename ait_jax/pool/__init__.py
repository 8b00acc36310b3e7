"""What a task is: tasks, pools of them, their splits, and what kind of answer each asks for."""

from ait_jax.pool.pool import TaskPool, fingerprint_of, task_digest
from ait_jax.pool.splits import Splits
from ait_jax.pool.task import (
    Example,
    Instance,
    Instruction,
    Task,
    read_task,
    task_from_json,
    task_to_json,
)

__all__ = [
    "Example",
    "Instance",
    "Instruction",
    "Splits",
    "Task",
    "TaskPool",
    "fingerprint_of",
    "read_task",
    "task_digest",
    "task_from_json",
    "task_to_json",
]
