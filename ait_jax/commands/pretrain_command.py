"""`ait-jax pretrain`: a small base model for the mini pool, trained on text."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode

_DEFAULT_FILE = "experiments/mini_base.gin"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command."""
    summary = f"pre-train a small model from scratch ({_DEFAULT_FILE} by default)"
    subcommand.add(subparsers, "pretrain", summary, "gin_flags", "continuing")


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax(joins=True)
    from ait_jax.config import configuration
    from ait_jax.rounds import pretraining

    configuration.parse(flags, _DEFAULT_FILE)
    configuration.build(pretraining.Pretraining, _DEFAULT_FILE).run()
    return ExitCode.OK
