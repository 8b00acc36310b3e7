"""The command line: thin, and slow imports happen only inside the command that needs them."""

import argparse
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Never

from ait_jax import __version__
from ait_jax.commands import (
    compare_command,
    convert_command,
    judge_command,
    plan_command,
    status_command,
    tasks_command,
)
from ait_jax.commands import grow_command as grow
from ait_jax.commands import launch_command as launch
from ait_jax.commands import report_command as report
from ait_jax.errors import UserError, nearest
from ait_jax.runtime import distributed, exit_codes, preemption, watching
from ait_jax.runtime.buckets import Unavailable
from ait_jax.runtime.preemption import Preempted
from ait_jax.runtime.reporter import Reporter
from ait_jax.tasks import DEFAULT_DATA_DIR

# Pool -> the module of `ait_jax.tasks` that prepares it.
POOLS = {"niv2": "niv2", "self_instruct": "self_instruct"}
_GIN_COMMANDS = {
    "run": "rounds of train, evaluate, score, select (experiments/mini.gin by default)",
    "score": "score a pool with a checkpoint, no training (experiments/score.gin by default)",
    "pretrain": "pre-train a small model from nothing (experiments/mini_base.gin by default)",
}

_GIN_HELP = """\
gin flags (run, compare, score, pretrain, plan, tasks):
  --gin_file=FILE          a configuration, from the working folder or the shipped ones
                           (experiments/mini.gin, experiments/niv2.gin, ...); may be repeated,
                           later files win
  --gin.NAME=VALUE         overrides one value: --gin.ROUNDS=5, --gin.MODEL_DIR=runs/a,
                           --gin.scorer.Scorer.num_instances=5
  --gin_search_paths=A,B   more folders to look for gin files and the modules they import

The same command continues an interrupted run.
"""

_DEBUG_HELP = "show the whole traceback of an error"


class _Parser(argparse.ArgumentParser):
    """Argparse with this program's errors: one line, no usage text."""

    def error(self, message: str) -> Never:
        raise UserError(f"{message}. See `{self.prog} --help`.")


def _parser() -> _Parser:
    parser = _Parser(
        prog="ait-jax",
        description="Active instruction tuning: find the tasks worth training on.",
        epilog=_GIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ait-jax {__version__}")
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, description in _GIN_COMMANDS.items():
        commands.add_parser(
            name,
            help=description,
            description=description,
            epilog=_GIN_HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    commands.choices["run"].add_argument(
        "--round_0_from",
        metavar="MODEL_DIR",
        help="begin with round 0 of a run that differs in its strategy alone",
    )
    plan_command.add(commands, _GIN_HELP)
    _add_prepare(commands)
    convert_command.add(commands)
    grow.add(commands)
    judge_command.add(commands)
    report.add(commands)
    compare_command.add(commands)
    launch.add(commands)
    status_command.add(commands)
    tasks_command.add(commands, _GIN_HELP)
    parser.commands = commands.choices
    for command in commands.choices.values():
        command.allow_abbrev = False
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP
        )
    return parser


def _add_prepare(commands) -> None:
    description = "read a pool from disk once, for fast access later"
    prepare = commands.add_parser("prepare", help=description, description=description)
    prepare.add_argument("pool", metavar="POOL", help=" or ".join(POOLS))
    prepare.add_argument(
        "--source",
        required=True,
        help="niv2: a clone of natural-instructions; self_instruct: files of instructions, JSON "
        "lists or JSON lines, separated by commas",
    )
    prepare.add_argument(
        "--test_source",
        metavar="FILES",
        default=argparse.SUPPRESS,
        help="self_instruct: files of the test tasks, as user_oriented_instructions.jsonl",
    )
    prepare.add_argument(
        "--name",
        default=argparse.SUPPRESS,
        help="self_instruct: of the prepared pool, one of several (default: self_instruct)",
    )
    prepare.add_argument(
        "--data_dir",
        default=DEFAULT_DATA_DIR,
        help="where prepared pools lie, gs://... too (default: %(default)s, as in gin/pools)",
    )
    prepare.add_argument(
        "--on_bad_task",
        choices=("error", "skip"),
        default="error",
        help="refuse malformed files and rows, or leave them out and say so (default: %(default)s)",
    )
    prepare.add_argument(
        "--overwrite", action="store_true", help="prepare again and replace what is there"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    0 done; 2 the user's mistake; 3 an endpoint failed or a budget ended, and what is there is
    kept; 69 another process was lost; 75 preempted and saved; 130 Ctrl-C.

    A defect leaves as the exception it is: Python prints the traceback and exits with 1.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    watching.show_with(_view)
    try:
        code = _main(arguments)
        sys.stdout.flush()  # here, where a broken pipe is caught
        return code
    except UserError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _leave(exit_codes.USER_ERROR, str(error))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _leave(exit_codes.INTERRUPTED, "interrupted; the same command continues.")
    except Preempted:
        distributed.say("told to stop (SIGTERM), and saved; the same command continues.")
        return exit_codes.PREEMPTED
    except distributed.PeerLost as error:
        return _leave(exit_codes.HOST_LOST, f"{error}. The same command continues the run.")
    except Unavailable as error:
        return _leave(exit_codes.FAILED, f"{error}. The same command continues.")
    except BrokenPipeError:
        # The reader of standard output is gone (`ait-jax run | head`); Python's own flush at
        # exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.FAILED
    except Exception as error:
        if distributed.process_count() > 1:
            # Another process may be the cause, and this one cannot end as if it were alone.
            traceback.print_exc()
            distributed.leave(exit_codes.FAILED, f"{type(error).__name__}: {error}")
        raise


def _leave(code: int, message: str) -> int:
    distributed.say(message)
    distributed.leave(code, message)
    return code


def _view(shown: Reporter, columns: int, rows: int) -> list[tuple[str, int]]:
    from ait_jax.report import run_view  # rich, for terminals alone

    return run_view.reporter_lines(shown, columns, rows)


def _main(arguments: list[str]) -> int:
    from ait_jax.config.configuration import GinFlags, split_flags

    own, hosts_command = launch.split(arguments)
    flags, others = split_flags(own)
    parser = _parser()
    _suggest_command(parser.commands, others)
    options, unknown = parser.parse_known_args(others)
    if unknown:
        _refuse(unknown[0], parser.commands.get(options.command, parser))
    if options.command is None:
        if flags != GinFlags():
            raise UserError("gin flags need a command: `ait-jax run --gin_file=...`.")
        parser.print_help()
        return exit_codes.OK
    if hosts_command and options.command != "launch":
        raise UserError(f"`ait-jax {options.command}` takes nothing after `--`.")
    if options.command in (*_GIN_COMMANDS, "plan", "tasks", "compare"):
        _prepare_process()
        if options.command in _GIN_COMMANDS:
            _join_others()
    elif flags != GinFlags():
        raise UserError(f"`ait-jax {options.command}` takes no gin flags.")
    work = {
        "run": _run,
        "compare": compare_command.run,
        "score": _score,
        "pretrain": _pretrain,
        "plan": plan_command.run,
        "prepare": _prepare,
        "convert": _convert,
        "grow": lambda options, flags: grow.run(options),
        "judge": lambda options, flags: judge_command.run(options),
        "report": lambda options, flags: report.run(options),
        "launch": lambda options, flags: launch.run(options, hosts_command),
        "status": lambda options, flags: status_command.run(options),
        "tasks": tasks_command.run,
    }
    return work[options.command](options, flags)


def _suggest_command(commands: Iterable[str], arguments: list[str]) -> None:
    """Turns argparse's list of choices into the nearest command."""
    given = next((a for a in arguments if not a.startswith("-")), None)
    if given is not None and given not in commands:
        raise UserError(
            f"Unknown command {given!r}.{nearest(given, commands)} Commands: {', '.join(commands)}."
        )


def _refuse(argument: str, parser: argparse.ArgumentParser) -> None:
    name = argument.partition("=")[0]
    known = [*parser._option_string_actions, "--gin_file", "--gin_search_paths"]
    hint = nearest(name, known)
    if name.lstrip("-").startswith("gin."):
        hint = f" Did you mean '--{argument.lstrip('-')}'?"
    raise UserError(f"Unknown argument {argument!r}.{hint} See `{parser.prog} --help`.")


def _prepare_process() -> None:
    """Sets what must be set before JAX starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import logging

    import jax

    # Orbax and Grain log every save and read through absl, and Orbax warns at every checkpoint
    # between two evaluations that it has no dev metric.
    logging.getLogger("absl").setLevel(logging.ERROR)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ait_jax", "xla"
    )
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _join_others() -> None:
    """Makes this process one of several, if the environment says so, and heeds SIGTERM."""
    distributed.initialize()
    preemption.heed()


def _run(options, flags) -> int:
    from ait_jax.config import configuration
    from ait_jax.config.gin_checks import is_configured
    from ait_jax.rounds import active, continual
    from ait_jax.rounds.experiment import Experiment

    configuration.parse(flags, "experiments/mini.gin", unused=continual.UNUSED_MACROS)
    if is_configured(continual.Continual):
        if options.round_0_from is not None:
            raise UserError("--round_0_from is for rounds of selection, not a continual training.")
        built = configuration.build(continual.Continual)
        continual.run(built, configuration.operative_config())
    else:
        experiment = configuration.build(Experiment)
        given = {} if options.round_0_from is None else {"round_0_from": options.round_0_from}
        active.run(experiment, configuration.operative_config(), **given)
    return exit_codes.OK


def _score(options, flags) -> int:
    from ait_jax.config import configuration
    from ait_jax.rounds import scoring

    default_file = "experiments/score.gin"
    configuration.parse(flags, default_file, unused=scoring.UNUSED_MACROS)
    built = configuration.build(scoring.Scoring, default_file)
    scoring.run(built, configuration.operative_config())
    return exit_codes.OK


def _pretrain(options, flags) -> int:
    from ait_jax.config import configuration
    from ait_jax.rounds import pretraining

    default_file = "experiments/mini_base.gin"
    configuration.parse(flags, default_file)
    configuration.build(pretraining.Pretraining, default_file).run()
    return exit_codes.OK


def _prepare(options, flags) -> int:
    if options.pool not in POOLS:
        raise UserError(
            f"Unknown pool {options.pool!r}.{nearest(options.pool, POOLS)} "
            f"Known: {', '.join(POOLS)}."
        )
    from ait_jax.runtime.terminal import quiet_stderr

    with quiet_stderr():
        module = importlib.import_module(f"ait_jax.tasks.{POOLS[options.pool]}")
    given = {name: getattr(options, name) for name in ("test_source", "name") if name in options}
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
    return exit_codes.OK


def _convert(options, flags) -> int:
    _prepare_process()
    return convert_command.run(options)


if __name__ == "__main__":
    sys.exit(main())
