"""`ait-jax grow`: its flags; slow imports come later."""

import argparse
from pathlib import Path
from typing import Any

from ait_jax.endpoint import endpoint_flags
from ait_jax.errors import UserError
from ait_jax.runtime import exit_codes

_HELP = "turn datasets' metadata into tasks, as Dynosaur does"
_EPILOG = """\
sources (--from, may be repeated):
  tfds                         the catalogue of the installed TensorFlow Datasets: no network, no
                               download, no rows, so the tasks have no instances
  tfds:squad,glue              some of its data sets
  FOLDER                       Hugging Face dataset cards: NAME/README.md with a YAML header
  huggingface_metadata.jsonl   one dataset a line, as Dynosaur's code writes it; so is
  huggingface_data.jsonl       the one with rows, and its tasks have instances
  instructions-full.json       Dynosaur's released instructions, taken as they stand

examples:
  ait-jax grow --pool=pools/tfds --from=tfds
  ait-jax grow --pool=pools/dynosaur --from=instructions-full.json --rows=huggingface_data.jsonl
  ait-jax grow --pool=pools/new --from=cards/ --generator=endpoint \\
    --model=gpt-4o-mini --prices=0.15,0.60 --budget=2
  ait-jax grow --pool=pools/dynosaur --from=huggingface_data.jsonl --steer=runs/a/round_000 \\
    --max_tasks=100
  ait-jax run --gin_file=experiments/mini.gin --gin_file=pools/dynosaur.gin \\
    --gin.DYNOSAUR_DIR=pools/dynosaur

The same command continues; another one extends the pool, whose tasks stay as they are. Exit code
3: the endpoint failed or the budget ended; what was paid for is kept.
"""


def add(commands: Any) -> None:
    """Adds `grow` to the sub-parsers of `ait-jax`."""
    grow = commands.add_parser(
        "grow",
        help=_HELP,
        description=f"{_HELP}: every dataset, answer and task left out is counted by reason",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    grow.add_argument("--pool", required=True, metavar="DIR", help="the pool, new or to extend")
    grow.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        metavar="SOURCE",
        help="where the metadata or instructions come from; see below",
    )
    grow.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="FILE",
        help="a huggingface_data.jsonl whose rows the datasets of the same names get",
    )
    grow.add_argument(
        "--generator",
        choices=("templates", "endpoint"),
        default="templates",
        help="templates need no model (default); endpoint asks one in OpenAI's protocol",
    )
    grow.add_argument(
        "--languages",
        default="en",
        help="en: datasets in English or code alone, or that name no language (default); any: all",
    )
    grow.add_argument(
        "--unlicensed",
        choices=("drop", "keep"),
        help="datasets whose source records no licence (default: drop; tfds: keep, and say so in "
        "the task, for the catalogue records few)",
    )
    grow.add_argument("--max_datasets", type=int, metavar="N", help="go on with the first N only")
    grow.add_argument("--max_tasks", type=int, metavar="N", help="end when N tasks were added")
    grow.add_argument(
        "--steer",
        metavar="DIR",
        help="MODEL_DIR/round_NNN of a run on this pool, or the folder of `ait-jax score`: begin with the "
        "datasets on whose like the model is most prompt-sensitive",
    )
    grow.add_argument(
        "--steer_only",
        action="store_true",
        help="with --steer: leave out datasets that are no more prompt-sensitive than the average",
    )
    grow.add_argument(
        "--style",
        choices=("aware", "unaware", "both"),
        default="both",
        help="of an endpoint's questions: show the dataset's description, hide it, or ask twice "
        "(default: %(default)s)",
    )
    endpoint_flags.add(grow, cache="cache in the pool's folder")


def run(options: argparse.Namespace) -> int:
    """Grows the pool that the flags ask for; returns the exit code."""
    for flag in ("max_datasets", "max_tasks"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag}={value} must be at least 1.")
    if options.steer_only and not options.steer:
        raise UserError(
            "--steer_only needs --steer=MODEL_DIR/round_NNN: the round that was scored."
        )
    from ait_jax.tasks.grow.growth import Growth, grow
    from ait_jax.tasks.grow.screening import Screening

    endpoint = _endpoint(options)
    growth = Growth(
        pool=options.pool,
        sources=options.sources,
        rows=options.rows,
        endpoint=endpoint,
        styles=_styles(options.style),
        screening=Screening(options.languages, options.unlicensed),
        max_datasets=options.max_datasets,
        max_tasks=options.max_tasks,
        steer=options.steer,
        steer_only=options.steer_only,
    )
    grow(growth)
    return exit_codes.UNFINISHED if endpoint and endpoint.stopped else exit_codes.OK


def _styles(style: str) -> tuple[str, ...]:
    from ait_jax.tasks.grow.conversation import STYLES

    return STYLES if style == "both" else (f"description-{style}",)


def _endpoint(options: argparse.Namespace) -> Any:
    if options.generator == "endpoint":
        return endpoint_flags.build(options, cache_dir=Path(options.pool).expanduser() / "cache")
    if given := endpoint_flags.given(options):
        raise UserError(f"{given[0]} needs --generator=endpoint; templates ask nobody.")
    return None
