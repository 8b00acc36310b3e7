"""`ait-jax report MODEL_DIR`: the HTML page of a run."""

import argparse
import math

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError

_HELP = "one page of a run: learning curves, task maps, prompts, time and cost"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    report = subcommand.add(subparsers, "report", _HELP, "report")
    report.add_argument(
        "model_dir", metavar="MODEL_DIR", help="of `ait-jax run` or `ait-jax score`"
    )
    report.add_argument("--out", metavar="FILE", help="the page (default: MODEL_DIR/report.html)")
    report.add_argument(
        "--detail_megabytes",
        type=float,
        default=12.0,
        metavar="N",
        help="space for the prompts and answers of tasks, selected tasks first (default: 12)",
    )
    report.add_argument(
        "--price_per_device_hour",
        type=float,
        metavar="X",
        help="of one chip or GPU, to show what the run cost",
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    for name in ("detail_megabytes", "price_per_device_hour"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{name}={value} must be a number, 0 or more.")
    from ait_jax.report import run_report

    path = run_report.make(
        options.model_dir,
        out=options.out,
        detail_megabytes=options.detail_megabytes,
        price_per_device_hour=options.price_per_device_hour,
    )
    print(f"report: {path}")
    return ExitCode.OK
