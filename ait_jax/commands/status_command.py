"""`ait-jax status`: its flags and what they start; imports nothing slow."""

import argparse
import json
import sys
import time

from ait_jax.runtime import exit_codes

_HELP = "what a run does just now, or how it ended: stage, progress, loss, time left, curve"
_EPILOG = """\
examples:
  ait-jax status runs/mini
  ait-jax status runs/mini --follow        redrawn until it ends
  ait-jax status runs/mini --json
  ait-jax status runs/comparison           every run below a folder, a line each
  ait-jax status gs://bucket/runs/xl       what the bucket has, half a minute old at most

It reads files only and may be asked from any shell, also while the run goes on. Of a run on another
machine it knows what that wrote to live.json.

Exit codes: 0 running or finished; 2 no run directory, or a damaged one; 3 it has ended and is not
finished (stopped, preempted, interrupted, failed, killed): the same command continues it.
"""
_FOLLOW_SECONDS = 1.0
_WELL = ("running", "finished")


def add(commands) -> None:
    """Adds the command to argparse's subcommands."""
    status = commands.add_parser(
        "status",
        help=_HELP,
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    status.add_argument(
        "directory", metavar="MODEL_DIR", help="of a run or scores, or a folder of several"
    )
    status.add_argument("--json", action="store_true", help="everything, for scripts")
    status.add_argument(
        "--follow", action="store_true", help="look again every second until it ends"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.rounds import run_status
    from ait_jax.runtime import files

    path = files.as_path(options.directory)
    if not run_status.is_run(path) and path.is_dir():
        runs = run_status.runs_below(path)
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


def _code(status) -> int:
    return exit_codes.OK if status["state"] in _WELL else exit_codes.UNFINISHED


def _print(status) -> None:
    from ait_jax.report import run_view
    from ait_jax.runtime import terminal

    # Without a terminal nothing is cut at a width that nobody looks at.
    columns = terminal.size()[0] if sys.stdout.isatty() else 100_000
    lines = run_view.status_lines(status, min(columns - 1, terminal.MOST_COLUMNS))
    for text, _ in run_view.drawn(lines, columns, sys.stdout):
        print(text)


def _follow(path, status, as_json: bool):
    """Shows the status until the run ends; on a terminal in place, else a line when it changes."""
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


def _list(path, runs, options) -> int:
    from ait_jax.errors import UserError
    from ait_jax.report import run_view
    from ait_jax.rounds import run_status
    from ait_jax.runtime.plain_text import visible

    if options.follow:
        raise UserError(
            f"--follow shows one run; {path} holds {len(runs)}, {runs[0]} for one. Give one."
        )
    found = []
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
        for name, status in zip(names, found):
            damaged = status["state"] == "damaged"
            line = f"damaged: {visible(status['problem'])}" if damaged else run_view.summary(status)
            print(f"{name:<{width}}  {line}")
    codes = [_code(status) for status in found]
    return max(codes)
