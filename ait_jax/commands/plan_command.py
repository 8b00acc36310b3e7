"""`ait-jax plan`: memory, FLOPs and time of a configuration, compiled ahead."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode

_HELP = "compile for devices you do not have: memory, FLOPs, time (experiments/mini.gin by default)"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    plan = subcommand.add(subparsers, "plan", _HELP, "gin_flags", "plan")
    plan.add_argument("--topology", help="a TPU slice, v5e:16x16 (default: this machine's devices)")
    plan.add_argument("--json", metavar="FILE", help="also write everything to this file")
    plan.add_argument(
        "--stages",
        metavar="A,B",
        type=lambda text: [stage.strip() for stage in text.split(",")],
        default=argparse.SUPPRESS,
        help="compile only these of: train step, teacher forcing, decode",
    )
    plan.add_argument(
        "--quick",
        action="store_true",
        help="spend less effort on compiling: several times as fast, nearly the same numbers",
    )
    plan.add_argument(
        "--no_search",
        dest="search",
        action="store_false",
        help="skip the search for the largest batches that fit",
    )
    plan.add_argument(
        "--efficiency",
        type=float,
        default=0.5,
        help="share of the roofline assumed for chip-hours (default: %(default)s)",
    )
    for name, what in (
        ("tasks", "tasks of the pool"),
        ("prompt_tokens", "mean tokens per prompt"),
        ("answer_tokens", "mean tokens per answer"),
    ):
        plan.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{what} (default: the pool's, or NIV2's)"
        )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax()
    from ait_jax.plan import plan

    names = vars(plan.Options())
    given = {name: value for name, value in vars(options).items() if name in names}
    plan.run(flags, plan.Options(**given))
    return ExitCode.OK
