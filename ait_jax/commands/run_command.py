"""`ait-jax run`: rounds of active instruction tuning, or a continual training."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    summary = "rounds of train, evaluate, score, select (experiments/mini.gin by default)"
    subcommand.add(subparsers, "run", summary, "gin_flags", "continuing").add_argument(
        "--round_0_from",
        metavar="MODEL_DIR",
        help="reuse round 0 of a run that differs only in its strategy",
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax(joins=True)
    from ait_jax.config import configuration
    from ait_jax.config.gin_checks import is_configured
    from ait_jax.report.run_report import make_page
    from ait_jax.rounds import active, continual
    from ait_jax.rounds.experiment import Experiment

    configuration.parse(flags, "experiments/mini.gin", unused=continual.UNUSED_MACROS)
    if is_configured(continual.Continual):
        if options.round_0_from is not None:
            raise UserError("--round_0_from is for rounds of selection, not a continual training.")
        built = configuration.build(continual.Continual)
        continual.run(built, configuration.operative_config(), page=make_page)
    else:
        experiment = configuration.build(Experiment)
        given = {} if options.round_0_from is None else {"round_0_from": options.round_0_from}
        active.run(experiment, configuration.operative_config(), page=make_page, **given)
    return ExitCode.OK
