"""The tasks of a pool as a table: searched, filtered, sorted; for a terminal, CSV or JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, nearest, visible
from ait_jax.report import csv_text
from ait_jax.report.pool_view import Found, PoolView

COLUMNS = ("task", "category", "kind", "split", "instances")
# Of `Found`.
RUN_COLUMNS = ("uncertainty", "probability", "region", "selected")
_GAP = 2
# Dropped on narrow terminals, the first one first.
_DISPENSABLE = ("category", "instances", "kind", "split")
_NUMBERS = ("instances", *RUN_COLUMNS[:2], "selected")


@dataclass(frozen=True)
class Query:
    """Which tasks to list, and in which order.

    Attributes:
      search: words that must all occur in a task's name, definition or categories.
      category: part of a category's name.
      kind: "CLS", "GEN" or None for both.
      split: one of `splits.SPLIT_NAMES`, or None.
      sort: a column, reversed after "-"; None is the pool's order.
      limit: most rows; None for all.
    """

    search: str = ""
    category: str = ""
    kind: str | None = None
    split: str | None = None
    sort: str | None = None
    limit: int | None = None


def columns(view: PoolView) -> tuple[str, ...]:
    """Returns the names of the columns, more of them with a run."""
    return COLUMNS + (RUN_COLUMNS if view.run is not None else ())


def rows(view: PoolView, query: Query) -> tuple[list[dict[str, Any]], int]:
    """Returns the matching rows, and how many there are without the limit.

    Raises:
      UserError: no task is in such a category, or there is no such column.
    """
    column, backwards = _sort_column(view, query.sort)
    names = [name for name in view.pool if _matches(view, name, query)]
    if query.category and not names:
        _check_category(view, query.category)
    if column is not None:
        value_of = {name: _value(view, name, column) for name in names}
        # Unknown values come last in either order.
        known = [name for name in names if value_of[name] not in (None, "")]
        known.sort(key=lambda name: _key(value_of[name], column))
        unknown = [name for name in names if value_of[name] in (None, "")]
        names = (known[::-1] if backwards else known) + unknown
    shown = names[: query.limit]
    return [{c: _value(view, n, c) for c in columns(view)} for n in shown], len(names)


def _sort_column(view: PoolView, sort: str | None) -> tuple[str | None, bool]:
    if sort is None:
        return None, False
    name = sort.removeprefix("-")
    known = columns(view)
    if name not in known:
        hint = nearest(name, known)
        if name in RUN_COLUMNS:
            hint = " Only runs have it: give --run=MODEL_DIR."
        raise UserError(f"--sort={sort}: no such column.{hint} Known: {', '.join(known)}.")
    return name, sort.startswith("-")


def _key(value: Any, column: str) -> Any:
    """Sorts text from a to z, numbers from the largest."""
    if column in _NUMBERS:
        return math.inf if math.isnan(value) else -value
    return str(value).casefold()


def _matches(view: PoolView, name: str, query: Query) -> bool:
    task = view.pool[name]
    if query.split is not None and view.split_of.get(name) != query.split:
        return False
    if query.category and query.category.casefold() not in " ".join(task.categories).casefold():
        return False
    if query.search:
        text = " ".join((name, task.instruction.definition, *task.categories)).casefold()
        if not all(word in text for word in query.search.casefold().split()):
            return False
    return query.kind is None or view.pool.is_cls(name) == (query.kind == "CLS")


def _check_category(view: PoolView, category: str) -> None:
    known = sorted({c for task in view.pool.values() for c in task.categories})
    if not any(category.casefold() in c.casefold() for c in known):
        hint = nearest(category.capitalize(), known) or nearest(category, known)
        raise UserError(
            f"--category={category}: no such category.{visible(hint)} There are {len(known)}, such "
            f"as {visible(', '.join(known[:5]))}."
        )


def _value(view: PoolView, name: str, column: str) -> Any:
    """Returns one cell, and computes no other: CLS or GEN may take reading a task's instances."""
    if column in RUN_COLUMNS:
        return getattr(view.found.get(name, Found()), column)
    task = view.pool[name]
    return {
        "task": lambda: name,
        "category": lambda: task.category,
        "kind": lambda: "CLS" if view.pool.is_cls(name) else "GEN",
        "split": lambda: view.split_of.get(name, ""),
        "instances": lambda: len(task.instances),
    }[column]()


def write_csv(table: Sequence[dict[str, Any]], names: Sequence[str], stream: Any) -> None:
    """Writes the rows as CSV: `csv_text.write`."""
    csv_text.write([names, *([row[name] for name in names] for row in table)], stream)


def write_json(table: Sequence[dict[str, Any]], stream: Any) -> None:
    """Writes the rows as a JSON list, in ASCII, so that nothing in it controls a terminal."""
    clean = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in table
    ]
    stream.write(json.dumps(clean, indent=1) + "\n")


def printed(
    table: Sequence[dict[str, Any]], names: Sequence[str], columns: int
) -> tuple[Any, list[str]]:
    """Returns the rows as a rich table at most `columns` wide, and the names left out.

    Cuts long categories and names; drops columns only if names would become unreadable.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = {name: [name, *(_cell(row[name], name) for row in table)] for name in names}
    widths = {name: max(map(cell_len, column)) for name, column in cells.items()}
    widths["category"] = min(widths["category"], 24)
    left_out: list[str] = []
    wanted = min(widths["task"], 30)
    while len(left_out) < len(_DISPENSABLE):
        others = sum(width + _GAP for name, width in widths.items() if name != "task")
        if others + wanted <= columns:
            break
        left_out.append(_DISPENSABLE[len(left_out)])
        del widths[left_out[-1]]
    names = [name for name in names if name in widths]
    excess = sum(widths.values()) + _GAP * len(names) - columns
    if "category" in widths and excess > 0:
        widths["category"] = max(min(12, widths["category"]), widths["category"] - excess)
    others = sum(widths[name] + _GAP for name in names if name != "task")
    widths["task"] = max(8, min(widths["task"], columns - others))
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name in names:
        made.add_column(
            Text(name),
            justify="right" if name in _NUMBERS else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=widths[name],
        )
    for texts in zip(*(cells[name][1:] for name in names), strict=True):
        made.add_row(*map(Text, texts))
    return made, left_out


def _cell(value: Any, name: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}" if name == "instances" else f"{value}"
    return visible(value)
