"""`ait-jax status`: what a run is doing, or how it ended."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError

_HELP = "what a run is doing now, or how it ended: stage, progress, loss, time left, curve"
_FOLLOW_SECONDS = 1.0
_WELL = ("running", "finished")


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    status = subcommand.add(subparsers, "status", _HELP, "status")
    status.add_argument(
        "directory", metavar="MODEL_DIR", help="of `run` or `score`, or a folder of several"
    )
    status.add_argument("--json", action="store_true", help="everything, for scripts")
    status.add_argument(
        "--follow", action="store_true", help="update every second until the run ends"
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.rounds import record, run_status
    from ait_jax.runtime import files

    path = files.as_path(options.directory)
    if not record.is_run(path) and path.is_dir():
        runs = record.runs_below(path)
        if runs:
            return _list(path, runs, options)
    status = run_status.read(path)
    if options.follow:
        status = _follow(path, status, options.json)
    elif options.json:
        print(json.dumps(status))
    else:
        _print(status)
    return _code(status)


def _code(status: Mapping[str, Any]) -> int:
    return ExitCode.OK if status["state"] in _WELL else ExitCode.UNFINISHED


def _print(status: Mapping[str, Any]) -> None:
    from ait_jax.report import run_view
    from ait_jax.runtime import terminal

    # Without a terminal nothing is cut.
    columns = terminal.size()[0] if sys.stdout.isatty() else 100_000
    lines = run_view.status_lines(status, min(columns - 1, terminal.MOST_COLUMNS))
    for text, _ in run_view.drawn(lines, columns, sys.stdout):
        print(text)


def _follow(path: Any, status: Mapping[str, Any], as_json: bool) -> Mapping[str, Any]:
    """Shows the status until the run ends: in place on a terminal, else a line per change."""
    from ait_jax.report import run_view
    from ait_jax.rounds import run_status
    from ait_jax.runtime import terminal

    def lines(columns: int, rows: int) -> list[tuple[str, int]]:
        wanted = run_view.status_lines(status, columns)
        return run_view.drawn(wanted[:rows], columns, sys.stdout)

    area = None
    if terminal.is_terminal() and not as_json:
        area = terminal.LiveArea(lines, sys.stdout)
        area.start()
    said = ""
    try:
        while status["state"] == "running":
            line = json.dumps(status) if as_json else run_view.summary(status)
            if area:
                area.redraw()
            elif line != said:
                print(line, flush=True)
                said = line
            time.sleep(_FOLLOW_SECONDS)
            status = run_status.read(path)
    finally:
        if area:
            area.stop()
    if as_json:
        print(json.dumps(status))
    else:
        _print(status)
    return status


def _list(path: Any, runs: Sequence[Any], options: argparse.Namespace) -> int:
    from ait_jax.errors import visible
    from ait_jax.report import run_view
    from ait_jax.rounds import run_status

    if options.follow:
        raise UserError(
            f"--follow shows one run, and {path} holds {len(runs)}; give one, such as {runs[0]}."
        )
    found: list[Mapping[str, Any]] = []
    for run_path in runs:
        try:
            found.append(run_status.read(run_path))
        except UserError as error:
            found.append({"directory": str(run_path), "state": "damaged", "problem": str(error)})
    if options.json:
        print(json.dumps(found))
    else:
        names = [visible(str(run_path.relative_to(path))) for run_path in runs]
        width = max(map(len, names))
        for name, status in zip(names, found, strict=True):
            damaged = status["state"] == "damaged"
            line = f"damaged: {visible(status['problem'])}" if damaged else run_view.summary(status)
            print(f"{name:<{width}}  {line}")
    return max(map(_code, found))
