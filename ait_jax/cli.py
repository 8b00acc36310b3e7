"""The command line: parses, hands over to a subcommand, turns errors into exit codes.

Slow imports happen inside the subcommand that needs them.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Never

from ait_jax import __version__
from ait_jax.assets import help_text
from ait_jax.commands import (
    compare_command,
    convert_command,
    grow_command,
    judge_command,
    launch_command,
    plan_command,
    prepare_command,
    pretrain_command,
    report_command,
    run_command,
    score_command,
    status_command,
    subcommand,
    tasks_command,
)
from ait_jax.errors import ExitCode, UserError, nearest, shown
from ait_jax.runtime import disk, distributed, preemption, watching
from ait_jax.runtime.buckets import Unavailable
from ait_jax.runtime.preemption import Preempted
from ait_jax.runtime.reporter import Reporter

# In the order of the help. Each module has `add(subparsers)` and `run(options, flags)`.
COMMANDS = {
    "run": run_command,
    "score": score_command,
    "pretrain": pretrain_command,
    "plan": plan_command,
    "prepare": prepare_command,
    "convert": convert_command,
    "grow": grow_command,
    "judge": judge_command,
    "report": report_command,
    "compare": compare_command,
    "launch": launch_command,
    "status": status_command,
    "tasks": tasks_command,
}
_TAKE_GIN_FLAGS = ("run", "score", "pretrain", "plan", "compare", "tasks")
_READ_ROWS = ("run", "score", "plan", "compare", "tasks", "prepare", "judge")
_DEBUG_HELP = "print the full traceback of an error"


class _Parser(argparse.ArgumentParser):
    """Argparse with this program's errors: one line, no usage text."""

    def error(self, message: str) -> Never:
        raise UserError(f"{message}. See `{self.prog} --help`.")


def _parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Returns the program's parser and those of its subcommands."""
    parser = _Parser(
        prog="ait-jax",
        description="Active instruction tuning: find the tasks worth training on.",
        epilog=help_text("gin_flags", "continuing"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ait-jax {__version__}")
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in COMMANDS.values():
        module.add(subparsers)
    for name in _READ_ROWS:
        subcommand.add_columns(subparsers.choices[name])
    for command in subparsers.choices.values():
        command.allow_abbrev = False
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP
        )
    return parser, subparsers.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    0 done; 2 the user's mistake; 3 unfinished, with what there is kept (an endpoint failed, a
    budget ran out); 69 another process was lost; 75 preempted and saved; 130 Ctrl-C.

    A bug is raised as it is: Python prints the traceback and exits with 1.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    watching.show_with(_view)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a locale that may lack characters of names
            stream.reconfigure(errors="replace")
    try:
        code = _main(arguments)
        sys.stdout.flush()  # here, where a broken pipe is caught
        return code
    except UserError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _leave(ExitCode.USER_ERROR, str(error))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _leave(ExitCode.INTERRUPTED, "interrupted; the same command continues.")
    except Preempted:
        if preemption.is_interrupted():
            distributed.say("interrupted (Ctrl-C), and saved; the same command continues.")
            return ExitCode.INTERRUPTED
        distributed.say("told to stop (SIGTERM), and saved; the same command continues.")
        return ExitCode.PREEMPTED
    except distributed.PeerLost as error:
        return _leave(ExitCode.HOST_LOST, f"{error}. The same command continues the run.")
    except Unavailable as error:
        return _leave(ExitCode.FAILED, f"{error}. The same command continues.")
    except BrokenPipeError:
        # The reader of standard output is gone (`ait-jax run | head`); Python's own flush at
        # exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:
        return _fail(error, "--debug" in arguments)
    finally:
        preemption.release_interrupts()


def _leave(code: int, message: str) -> int:
    distributed.say(message)
    distributed.leave(code, message)
    return code


def _fail(error: Exception, debug: bool) -> int:
    """Ends with one line if the disk is to blame; raises the `error` otherwise."""
    words, alone = disk.trouble(error), distributed.process_count() == 1
    if debug or (words is None and not alone):
        traceback.print_exc()
    if words is not None:
        return _leave(ExitCode.USER_ERROR, f"{words}. After that the same command continues.")
    # Another process may be the cause, and this one cannot end as if it were alone.
    distributed.leave(ExitCode.FAILED, f"{type(error).__name__}: {error}")
    raise error


def _view(shown: Reporter, columns: int, rows: int) -> list[tuple[str, int]]:
    from ait_jax.report import run_view  # imports rich, which only terminals need

    return run_view.reporter_lines(shown, columns, rows)


def _main(arguments: list[str]) -> int:
    from ait_jax.config.gin_flags import GinFlags, split_flags

    own, hosts_command = launch_command.split(arguments)
    flags, others = split_flags(own)
    parser, parser_of = _parsers()
    _suggest_command(others)
    options, unknown = parser.parse_known_args(others)
    if unknown:
        _refuse(unknown[0], parser_of.get(options.command, parser))
    if options.command is None:
        if flags != GinFlags():
            raise UserError("gin flags need a command: `ait-jax run --gin_file=...`.")
        parser.print_help()
        return ExitCode.OK
    if hosts_command and options.command != "launch":
        raise UserError(f"`ait-jax {options.command}` takes nothing after `--`.")
    if options.command not in _TAKE_GIN_FLAGS and flags != GinFlags():
        raise UserError(f"`ait-jax {options.command}` takes no gin flags.")
    options.hosts_command = hosts_command
    if options.command in _TAKE_GIN_FLAGS:
        flags = subcommand.with_columns(flags, options)
    return COMMANDS[options.command].run(options, flags)


def _suggest_command(arguments: list[str]) -> None:
    """Names the nearest command, where argparse would list them all."""
    given = next((a for a in arguments if not a.startswith("-")), None)
    if given is not None and given not in COMMANDS:
        raise UserError(
            f"Unknown command {shown(given)}.{nearest(given, COMMANDS)} Commands: "
            f"{', '.join(COMMANDS)}."
        )


def _refuse(argument: str, parser: argparse.ArgumentParser) -> None:
    name = argument.partition("=")[0]
    known = [*parser._option_string_actions, "--gin_file", "--gin_search_paths"]
    hint = nearest(name, known)
    if name.lstrip("-").startswith("gin."):
        hint = f" Did you mean '--{argument.lstrip('-')}'?"
    raise UserError(f"Unknown argument {shown(argument)}.{hint} See `{parser.prog} --help`.")


if __name__ == "__main__":
    sys.exit(main())
