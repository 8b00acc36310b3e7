"""Plain text as markdown that shows it as it is: names, prompts and answers are untrusted.

TensorBoard renders markdown and lets some HTML through; here nothing of a text is either.
"""

import re
from collections.abc import Sequence

# Every ASCII character that is no letter, digit or white space may mean something to markdown.
_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
_LINE_ENDS = re.compile(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def escape(text: str) -> str:
    """Returns one line of markdown: special characters as entities, line ends as `<br>`."""
    lines = _LINE_ENDS.split(_printable(text))
    return "<br>".join(_SPECIAL.sub(lambda m: f"&#{ord(m[0])};", line).strip() for line in lines)


def code(text: str) -> str:
    """Returns a block of code, which markdown escapes by itself."""
    return "\n".join(f"    {line}" for line in _LINE_ENDS.split(_printable(text)))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; a row shorter than `columns` is filled up."""
    lines = [_row(columns, len(columns)), _row(["---"] * len(columns), len(columns), raw=True)]
    return "\n".join([*lines, *(_row(row, len(columns)) for row in rows)])


def _row(cells: Sequence[str], width: int, raw: bool = False) -> str:
    texts = [cell if raw else escape(str(cell)) for cell in cells]
    return "| " + " | ".join([*texts, *[""] * (width - len(texts))]) + " |"


def _printable(text: str) -> str:
    """Replaces what protocol buffers and HTML cannot hold."""
    return _CONTROL.sub("\ufffd", text).encode("utf-8", "replace").decode()
