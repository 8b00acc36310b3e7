"""`ait-jax report MODEL_DIR`: its flags; slow imports come later."""

import argparse
import math
from typing import Any

from ait_jax.errors import UserError

_HELP = "one page of a run: learning curves, task maps, prompts, time and cost"
_EPILOG = """\
The page is one file that opens from disk, without network. A run makes it after every round; this
command makes it at any time, of a run that is at work or was killed, too: it reads, takes no lock
and writes nothing but the page. Where the pool can be opened, as config.gin says, the page has
the tasks' instructions and the prompts that were scored.

examples:
  ait-jax report runs/mini
  ait-jax report runs/niv2 --out=niv2.html --price_per_device_hour=1.2
  ait-jax report gs://bucket/runs/niv2 --out=niv2.html --detail_megabytes=20
"""


def add(commands: Any) -> None:
    """Adds `report` to the sub-parsers of `ait-jax`."""
    report = commands.add_parser(
        "report",
        help=_HELP,
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "model_dir", metavar="MODEL_DIR", help="of `ait-jax run` or `ait-jax score`"
    )
    report.add_argument("--out", metavar="FILE", help="the page (default: MODEL_DIR/report.html)")
    report.add_argument(
        "--detail_megabytes",
        type=float,
        default=12.0,
        metavar="N",
        help="room in the page for tasks' prompts and answers, selected tasks first (default: 12)",
    )
    report.add_argument(
        "--price_per_device_hour",
        type=float,
        metavar="X",
        help="of one chip or GPU, to show what the run cost",
    )


def run(options: argparse.Namespace) -> int:
    """Runs `ait-jax report`; returns the exit code.

    Raises:
      UserError: a wrong value, no run directory, a damaged file, or a page that cannot be written.
    """
    for name in ("detail_megabytes", "price_per_device_hour"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{name}={value} must be a number, 0 or more.")
    from ait_jax.report import making

    path = making.make(
        options.model_dir,
        out=options.out,
        detail_megabytes=options.detail_megabytes,
        price_per_device_hour=options.price_per_device_hour,
    )
    print(f"report: {path}")
    return 0
