"""What a task is: tasks, pools of them, their splits, and what kind of answer each asks for."""

from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import Splits
from ait_jax.pool.task import Example, Instance, Instruction, Task, read_task

__all__ = ["Example", "Instance", "Instruction", "Splits", "Task", "TaskPool", "read_task"]
