"""`ait-jax score`: the task map of a pool under one checkpoint."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode

_DEFAULT_FILE = "experiments/score.gin"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command."""
    summary = f"score a pool with a checkpoint, no training ({_DEFAULT_FILE} by default)"
    subcommand.add(subparsers, "score", summary, "gin_flags", "continuing")


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax(joins=True)
    from ait_jax.config import configuration
    from ait_jax.report.run_report import make_page
    from ait_jax.rounds import scoring

    configuration.parse(flags, _DEFAULT_FILE, unused=scoring.UNUSED_MACROS)
    built = configuration.build(scoring.Scoring, _DEFAULT_FILE)
    scoring.run(built, configuration.operative_config(), page=make_page)
    return ExitCode.OK
