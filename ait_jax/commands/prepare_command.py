"""`ait-jax prepare`: a pool's files, read once and stored for fast access."""

import argparse
import importlib
import inspect

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError, nearest, shown
from ait_jax.tasks import DEFAULT_DATA_DIR

# Pools whose module in `ait_jax.tasks` has a function `prepare`.
POOLS = ("niv2", "self_instruct")


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    prepare = subcommand.add(
        subparsers, "prepare", "read a pool from disk once, for fast access later"
    )
    prepare.add_argument("pool", metavar="POOL", help=" or ".join(POOLS))
    prepare.add_argument(
        "--source",
        required=True,
        help="niv2: a clone of natural-instructions; self_instruct: files of rows (JSON lists or "
        "lines, also in gzip, or Parquet), separated by commas",
    )
    prepare.add_argument(
        "--test_source",
        metavar="FILES",
        default=argparse.SUPPRESS,
        help="self_instruct: files of the test tasks, such as user_oriented_instructions.jsonl",
    )
    prepare.add_argument(
        "--name",
        default=argparse.SUPPRESS,
        help="self_instruct: name of the prepared pool, to keep several (default: self_instruct)",
    )
    prepare.add_argument(
        "--filter_instances",
        action="store_true",
        default=argparse.SUPPRESS,
        help="self_instruct: leave out of training what Self-Instruct's code leaves out: outputs "
        "that repeat the input, texts that end in a colon, inputs with different outputs",
    )
    prepare.add_argument(
        "--data_dir",
        default=DEFAULT_DATA_DIR,
        help="where prepared pools are kept, also gs://... (default: %(default)s, as in gin/pools)",
    )
    prepare.add_argument(
        "--on_bad_task",
        choices=("error", "skip"),
        default="error",
        help="refuse malformed files and rows, or skip and report them (default: %(default)s)",
    )
    prepare.add_argument(
        "--overwrite", action="store_true", help="prepare again and replace what is there"
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    if options.pool not in POOLS:
        raise UserError(
            f"Unknown pool {shown(options.pool)}.{nearest(options.pool, POOLS)} "
            f"Known: {', '.join(POOLS)}."
        )
    from ait_jax.runtime.terminal import quiet_stderr

    with quiet_stderr():
        module = importlib.import_module(f"ait_jax.tasks.{options.pool}")
    optional = ("test_source", "name", "columns", "filter_instances")
    given = {name: getattr(options, name) for name in optional if name in options}
    known = inspect.signature(module.prepare).parameters
    for name in given:
        if name not in known:
            raise UserError(f"`ait-jax prepare {options.pool}` takes no --{name}.")
    prepared = module.prepare(
        options.source,
        options.data_dir,
        on_bad_task=options.on_bad_task,
        overwrite=options.overwrite,
        **given,
    )
    print(*prepared.describe(), sep="\n")
    return ExitCode.OK
