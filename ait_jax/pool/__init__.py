"""What a task is, and a pool of tasks with its splits."""
