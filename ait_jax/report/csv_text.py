"""CSV that spreadsheets read as it is meant: text is never a formula."""

import csv
import re
from collections.abc import Iterable
from typing import Any

from ait_jax.errors import visible

# Spreadsheets compute cells that begin so, also behind space, in the wide forms of East Asia, too.
# `assets/tables.js` has the same.
_FORMULA = re.compile(r"[\s\x00-\x20\ufeff\u200b-\u200f]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def write(rows: Iterable[Iterable[Any]], stream: Any) -> None:
    """Writes rows as CSV; None is empty, numbers stay numbers.

    Text that a spreadsheet would take for a formula begins with an apostrophe, and what could
    control a terminal is escaped.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    guard = "'" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else ""
    return guard + visible(value)
