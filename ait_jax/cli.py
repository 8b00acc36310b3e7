"""The command line: thin, and slow imports happen only inside the command that needs them."""

import argparse
import os
import sys
from collections.abc import Sequence

from ait_jax import __version__
from ait_jax.errors import UserError, nearest

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_GIN_HELP = """\
gin flags (run, pretrain):
  --gin_file=FILE          a configuration, from the working folder or the shipped ones
                           (experiments/mini.gin, experiments/niv2.gin, ...); may be repeated,
                           later files win
  --gin.NAME=VALUE         overrides one value: --gin.ROUNDS=5, --gin.MODEL_DIR=runs/a,
                           --gin.scorer.Scorer.num_instances=5
  --gin_search_paths=A,B   more folders to look for gin files and the modules they import

The same command continues an interrupted run.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ait-jax",
        description="Active instruction tuning: find the tasks worth training on.",
        epilog=_GIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ait-jax {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "run", help="rounds of train, evaluate, score, select (experiments/mini.gin by default)"
    )
    commands.add_parser(
        "pretrain", help="pre-train a small model from nothing (experiments/mini_base.gin by default)"
    )
    prepare = commands.add_parser("prepare", help="read a pool from disk once, for fast access later")
    prepare.add_argument("pool", help="niv2")
    prepare.add_argument("--source", required=True, help="a clone of natural-instructions")
    prepare.add_argument("--data_dir", default=None, help="where prepared pools lie")
    prepare.add_argument(
        "--on_bad_task",
        choices=("error", "skip"),
        default="error",
        help="stop at a malformed task file, or leave it out and count it",
    )
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 2 the user's mistake, 1 a defect."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        return _main(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"ait-jax: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\nait-jax: interrupted; the same command continues.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_FAILED


def _main(arguments: list[str]) -> int:
    from ait_jax.configuration import split_flags

    flags, others = split_flags(arguments)
    parser = _parser()
    _suggest_command(parser, others)
    options = parser.parse_args(others)
    if options.command is None:
        parser.print_help()
        return EXIT_OK
    if options.command != "prepare":
        _prepare_process()
    return {"run": _run, "pretrain": _pretrain, "prepare": _prepare}[options.command](
        options, flags
    )


def _suggest_command(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Turns argparse's list of choices into the nearest command."""
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    given = next((a for a in arguments if not a.startswith("-")), None)
    if given is not None and given not in commands:
        raise UserError(
            f"Unknown command {given!r}.{nearest(given, commands)} "
            f"Commands: {', '.join(commands)}."
        )


def _prepare_process() -> None:
    """Sets what must be set before JAX starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import logging

    import jax

    # Orbax and Grain log every save and read at INFO through absl.
    logging.getLogger("absl").setLevel(logging.WARNING)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ait_jax", "xla"
    )
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _run(options, flags) -> int:
    from ait_jax import active, configuration

    configuration.parse(flags, "experiments/mini.gin")
    experiment = configuration.build(active.Experiment)
    active.run(experiment, configuration.operative_config())
    return EXIT_OK


def _pretrain(options, flags) -> int:
    from ait_jax import configuration, pretraining

    configuration.parse(flags, "experiments/mini_base.gin")
    configuration.build(pretraining.Pretraining).run()
    return EXIT_OK


def _prepare(options, flags) -> int:
    pools = ("niv2",)
    if options.pool not in pools:
        raise UserError(
            f"Unknown pool {options.pool!r}.{nearest(options.pool, pools)} Known: {', '.join(pools)}."
        )
    from ait_jax.tasks import niv2

    niv2.prepare(options.source, options.data_dir, on_bad_task=options.on_bad_task)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
