"""`ait-jax tasks`: its flags and what they start; imports nothing slow."""

import argparse
import sys

from ait_jax.errors import UserError
from ait_jax.runtime import exit_codes

_HELP = "list and search a pool, or show tasks as the model sees them (the mini pool by default)"
_EPILOG = """\
examples:
  ait-jax tasks --gin_file=experiments/mini.gin --search "count letters"
  ait-jax tasks --run=runs/mini --sort=uncertainty --limit=20
  ait-jax tasks --run=runs/mini --split=remain --csv > tasks.csv
  ait-jax tasks mini_add_numbers
  ait-jax tasks --run=runs/mini NAME --perturbation=3 --tokens

Columns to sort by: task, category, kind, split, instances; with --run also uncertainty,
probability, region, selected. Neither a checkpoint nor a vocabulary is needed to list.
"""
_FEW = 40


def add(commands, gin_help: str) -> None:
    """Adds the command to argparse's subcommands; `gin_help` tells of the gin flags."""
    tasks = commands.add_parser(
        "tasks",
        help=_HELP,
        description=_HELP,
        epilog=f"{gin_help.rpartition(chr(10) * 2)[0]}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks.add_argument("names", metavar="NAME", nargs="*", help="show these tasks; none: list them")
    tasks.add_argument(
        "--run", metavar="MODEL_DIR", help="a run's or scores' pool, with what it found out"
    )
    tasks.add_argument(
        "--search", metavar="WORDS", default="", help="in name, definition, category"
    )
    tasks.add_argument("--category", default="", help="part of a category's name")
    kind = tasks.add_mutually_exclusive_group()
    kind.add_argument("--cls", dest="kind", action="store_const", const="CLS",
                      help="classification tasks only")  # fmt: skip
    kind.add_argument("--gen", dest="kind", action="store_const", const="GEN",
                      help="generation tasks only")  # fmt: skip
    tasks.add_argument("--split", choices=("train", "remain", "dev", "test"))
    tasks.add_argument(
        "--sort", metavar="COLUMN", help="text from a on, numbers from the largest; -COLUMN: turned"
    )
    tasks.add_argument(
        "--limit", type=int, metavar="N", help=f"most rows, 0 is all (default: {_FEW} as a table)"
    )
    form = tasks.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="the list as CSV")
    form.add_argument("--json", action="store_true", help="as JSON")
    tasks.add_argument("--instance", metavar="ID", help="of the task: its id, or 0 for the first")
    tasks.add_argument(
        "--perturbation", type=int, default=1, metavar="J", help="the form shown beside the prompt"
    )
    tasks.add_argument("--tokens", action="store_true", help="show all tokens of the prompt")


def run(options: argparse.Namespace, flags) -> int:
    """Runs the command and returns the exit code."""
    if options.limit is not None and options.limit < 0:
        raise UserError(f"--limit={options.limit} must be 0 (all) or more.")
    if options.names and options.csv:
        raise UserError("--csv writes lists; a task alone is shown as text, or with --json.")
    from ait_jax.runtime.terminal import quiet_stderr

    with quiet_stderr():
        from ait_jax.report import task_source
    source = task_source.open_source(flags, options.run)
    if options.names:
        _show(source, options)
    else:
        _list(source, options)
    return exit_codes.OK


def _console():
    from rich.console import Console

    # Without a terminal nothing is cut or broken at a width that nobody looks at.
    wide = None if sys.stdout.isatty() else 100_000
    return Console(
        width=wide, highlight=False, markup=False, emoji=False, soft_wrap=wide is not None
    )


def _list(source, options) -> None:
    from ait_jax.report import task_table

    plain = options.csv or options.json
    limit = options.limit if options.limit is not None else (None if plain else _FEW)
    query = task_table.Query(
        search=options.search,
        category=options.category,
        kind=options.kind,
        split=options.split,
        sort=options.sort,
        limit=limit or None,
    )
    rows, count = task_table.rows(source, query)
    names = task_table.columns(source)
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
        print(f"{count:,} of the {len(source.pool):,} tasks of the pool {source.pool.name!r}{more}")


def _show(source, options) -> None:
    from ait_jax.report import prompt_view, task_page

    console = _console()
    # All names are looked up before the first is shown.
    seen = [
        prompt_view.see(source, name, options.instance, options.perturbation)
        for name in options.names
    ]
    if options.json:
        print("[" + ",\n".join(task_page.to_json(source, one) for one in seen) + "]")
        return
    for number, one in enumerate(seen):
        if number:
            console.print()
        task_page.show(console, source, one, all_tokens=options.tokens)
