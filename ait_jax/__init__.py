"""Active instruction tuning on JAX: find the tasks worth training on."""

__version__ = "0.1.0"
