"""`ait-jax grow`: datasets' metadata turned into a pool of tasks."""

import argparse
from typing import Any

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.endpoint import endpoint_flags
from ait_jax.errors import ExitCode, UserError
from ait_jax.runtime import disk

_HELP = "turn datasets' metadata into tasks, as Dynosaur does"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    description = f"{_HELP}; counts every dataset, answer and task left out, by reason"
    grow = subcommand.add(subparsers, "grow", _HELP, "grow", description=description)
    grow.add_argument("--pool", required=True, metavar="DIR", help="the pool to create or extend")
    grow.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        metavar="SOURCE",
        help="where metadata or instructions come from; see below",
    )
    grow.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="FILE",
        help="a huggingface_data.jsonl whose rows go to the datasets of the same names",
    )
    grow.add_argument(
        "--generator",
        choices=("templates", "endpoint"),
        default="templates",
        help="templates needs no model (default); endpoint asks one through OpenAI's protocol",
    )
    grow.add_argument(
        "--languages",
        default="en",
        help="en: only datasets in English or code, or without a language (default); any: all",
    )
    grow.add_argument(
        "--unlicensed",
        choices=("drop", "keep"),
        help="datasets whose source records no license (default: drop; tfds: keep and say so in "
        "the task, because the catalog records few)",
    )
    grow.add_argument(
        "--filters",
        choices=("own", "authors"),
        default="own",
        help="which tasks and rows are left out: by ait-jax's rules, or by Dynosaur's code to the "
        "letter (default: %(default)s)",
    )
    _add_limits(grow)
    endpoint_flags.add(grow, cache="cache in the pool's folder")


def _add_limits(grow: argparse.ArgumentParser) -> None:
    grow.add_argument("--max_datasets", type=int, metavar="N", help="use the first N only")
    grow.add_argument("--max_tasks", type=int, metavar="N", help="stop after adding N tasks")
    grow.add_argument(
        "--steer",
        metavar="DIR",
        help="MODEL_DIR/round_NNN of a run on this pool, or MODEL_DIR of `ait-jax score`: begin "
        "with datasets like those on which the model is most prompt-sensitive",
    )
    grow.add_argument(
        "--steer_only",
        action="store_true",
        help="with --steer: leave out datasets that are not more prompt-sensitive than average",
    )
    grow.add_argument(
        "--style",
        choices=("aware", "unaware", "both"),
        default="both",
        help="of questions to an endpoint: show the dataset's description, hide it, or ask twice "
        "(default: %(default)s)",
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    for flag in ("max_datasets", "max_tasks"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag}={value} must be at least 1.")
    if options.steer_only and not options.steer:
        raise UserError("--steer_only needs --steer=MODEL_DIR/round_NNN, a round that was scored.")
    from ait_jax.tasks.grow.conversation import STYLES
    from ait_jax.tasks.grow.growth import Growth, grow
    from ait_jax.tasks.grow.screening import Screening

    endpoint = _endpoint(options)
    same = (
        "pool",
        "sources",
        "rows",
        "filters",
        "max_datasets",
        "max_tasks",
        "steer",
        "steer_only",
    )
    growth = Growth(
        **{name: getattr(options, name) for name in same},
        endpoint=endpoint,
        styles=STYLES if options.style == "both" else (f"description-{options.style}",),
        screening=Screening(options.languages, options.unlicensed),
    )
    grow(growth)
    return ExitCode.UNFINISHED if endpoint and endpoint.stopped else ExitCode.OK


def _endpoint(options: argparse.Namespace) -> Any:
    if options.generator == "endpoint":
        return endpoint_flags.build(options, cache_dir=disk.local_path(options.pool) / "cache")
    if given := endpoint_flags.given(options):
        raise UserError(f"{given[0]} needs --generator=endpoint; templates ask no model.")
    return None
