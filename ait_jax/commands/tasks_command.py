"""`ait-jax tasks`: a pool's tasks, listed or shown as the model sees them."""

import argparse
import sys
from typing import Any

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode, UserError, shown

_HELP = "list and search a pool, or show tasks as the model sees them (the mini pool by default)"
_FEW = 40


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    tasks = subcommand.add(subparsers, "tasks", _HELP, "gin_flags", "tasks")
    tasks.add_argument("names", metavar="NAME", nargs="*", help="show these tasks; none: list all")
    tasks.add_argument(
        "--run", metavar="MODEL_DIR", help="the pool of a run or of scores, with its results"
    )
    tasks.add_argument(
        "--trust_config",
        action="store_true",
        help="with --run: import and call what its config.gin names, as `run` does; it is read as "
        "data otherwise, which opens every pool and encoding of ait-jax's own",
    )
    tasks.add_argument(
        "--search", metavar="WORDS", default="", help="in name, definition, category"
    )
    tasks.add_argument("--category", default="", help="part of a category's name")
    kind = tasks.add_mutually_exclusive_group()
    for flag, words in (("cls", "classification"), ("gen", "generation")):
        kind.add_argument(
            f"--{flag}",
            dest="kind",
            action="store_const",
            const=flag.upper(),
            help=f"{words} tasks only",
        )
    tasks.add_argument("--split", choices=("train", "remain", "dev", "test"))
    tasks.add_argument(
        "--sort",
        metavar="COLUMN",
        help="text from a to z, numbers from the largest; -COLUMN: reversed",
    )
    tasks.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"rows to list, 0 for all (default: {_FEW} in a table)",
    )
    form = tasks.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="as CSV")
    form.add_argument("--json", action="store_true", help="as JSON")
    tasks.add_argument(
        "--instance", metavar="ID", help="the instance to show: its id, or its number from 0"
    )
    tasks.add_argument(
        "--perturbation", type=int, default=1, metavar="J", help="the perturbed form to show"
    )
    tasks.add_argument("--tokens", action="store_true", help="show all tokens of the prompt")


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax()
    if options.limit is not None and options.limit < 0:
        raise UserError(f"--limit={options.limit} must be 0 (all) or more.")
    if options.names and options.csv:
        raise UserError(
            "--csv is for lists; tasks given by name are shown as text, or with --json."
        )
    from ait_jax.runtime.terminal import quiet_stderr

    with quiet_stderr():
        from ait_jax.report import pool_view
    view = pool_view.open_pool(flags, options.run, options.trust_config)
    if options.names:
        _show(view, options)
    else:
        _list(view, options)
    return ExitCode.OK


def _console() -> Any:
    from rich.console import Console

    # Without a terminal nothing is cut or wrapped.
    wide = None if sys.stdout.isatty() else 100_000
    return Console(
        width=wide, highlight=False, markup=False, emoji=False, soft_wrap=wide is not None
    )


def _list(view: Any, options: argparse.Namespace) -> None:
    from ait_jax.report import task_table

    plain = options.csv or options.json
    limit = options.limit if options.limit is not None else (None if plain else _FEW)
    same = ("search", "category", "kind", "split", "sort")
    given = {name: getattr(options, name) for name in same}
    query = task_table.Query(**given, limit=limit or None)
    rows, count = task_table.rows(view, query)
    names = task_table.columns(view)
    if options.csv:
        task_table.write_csv(rows, names, sys.stdout)
    elif options.json:
        task_table.write_json(rows, sys.stdout)
    else:
        more = f"; {len(rows)} shown, --limit=0 shows all" if len(rows) < count else ""
        if rows:
            console = _console()
            table, left_out = task_table.printed(rows, names, console.width)
            console.print(table)
            more += f"; no room for {', '.join(left_out)}" if left_out else ""
        print(
            f"{count:,} of the {len(view.pool):,} tasks of the pool {shown(view.pool.name)}{more}"
        )


def _show(view: Any, options: argparse.Namespace) -> None:
    from ait_jax.report import prompt_view, task_page

    console = _console()
    # Look up all names before showing the first.
    seen = [
        prompt_view.see(view, name, options.instance, options.perturbation)
        for name in options.names
    ]
    if options.json:
        print("[" + ",\n".join(task_page.to_json(view, one) for one in seen) + "]")
        return
    for number, one in enumerate(seen):
        if number:
            console.print()
        task_page.show(console, view, one, all_tokens=options.tokens)
