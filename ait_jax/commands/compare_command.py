"""`ait-jax compare`: strategies x seeds, run and compared."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError
from ait_jax.runtime import distributed

_HELP = "strategies x seeds: run them, and say whether their difference is noise"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    compare = subcommand.add(subparsers, "compare", _HELP, "compare")
    compare.add_argument(
        "runs", nargs="*", metavar="RUN", help="compare these finished runs; run nothing"
    )
    compare.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, sharing this machine's processors (default: %(default)s)",
    )
    compare.add_argument(
        "--until",
        choices=["decided"],
        help="take the seeds one after the other; end when every strategy is found better or worse "
        "than the baseline, by intervals that hold at every look",
    )
    compare.add_argument(
        "--print_commands",
        action="store_true",
        help="print the command of every unfinished run, to run elsewhere; run nothing",
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax()
    if options.processes < 1:
        raise UserError(f"--processes={options.processes} must be at least 1.")
    from ait_jax.compare import comparison
    from ait_jax.compare.schedule import Stopped

    if options.until and (options.runs or options.print_commands):
        raise UserError(
            "--until runs seed after seed; leave out --print_commands and the folders of runs."
        )
    built = comparison.build(flags, has_runs=bool(options.runs))
    if options.runs:
        if options.print_commands:
            raise UserError(
                "--print_commands prints what is left to run; leave out the folders of runs."
            )
        comparison.compare_folders(built, options.runs)
        return ExitCode.OK
    jobs = comparison.plan(built, flags)
    if options.print_commands:
        print(*comparison.commands(jobs), sep="\n")
        return ExitCode.OK
    try:
        complete = comparison.run(built, jobs, options.processes, options.until == "decided")
    except Stopped as stop:
        from signal import SIGINT

        distributed.say("told to stop; the runs are saved, and the same command continues.")
        return ExitCode.INTERRUPTED if stop.number == SIGINT else ExitCode.PREEMPTED
    return ExitCode.OK if complete else ExitCode.UNFINISHED
