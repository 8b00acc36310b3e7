"""The command line's gin flags as gin source, without importing gin: `--help` stays fast."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ait_jax.errors import UserError, nearest, shown

_LITERALS = (str, int, float, list, tuple, dict, type(None))
_NAME = re.compile(r"[A-Za-z_][\w./]*")


@dataclass(frozen=True)
class GinFlags:
    """The gin flags of a command line: `--gin_file`, `--gin.NAME=VALUE`, `--gin_search_paths`.

    Attributes:
      files: in order; later ones win.
      bindings: gin source, `NAME = VALUE`; they win over files.
      search_paths: folders of gin files and the modules they import.
    """

    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()


def split_flags(arguments: Sequence[str]) -> tuple[GinFlags, list[str]]:
    """Separates gin flags (`--gin_file=F`, `--gin_file F`, `--gin.X=V`) from other arguments.

    Raises:
      UserError: a gin flag without a value, an unknown one, or an invalid gin name.
    """
    files: list[str] = []
    bindings: list[str] = []
    search_paths: list[str] = []
    others: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if name.startswith("--gin."):
            bindings.append(_binding(argument))
        elif name in ("--gin_file", "--gin_search_paths"):
            if not equals:
                value = waiting.pop(0) if waiting else ""
            if not value or value.startswith("--"):
                raise UserError(f"{name} needs a value: {name}=...")
            if name == "--gin_file":
                files.append(value)
            else:
                search_paths += [path for path in value.split(",") if path]
        elif name.startswith("--gin"):
            known = ("--gin_file", "--gin_search_paths", "--gin.")
            raise UserError(f"Unknown flag {name}.{nearest(name, known)}")
        else:
            others.append(argument)
    return GinFlags(tuple(files), tuple(bindings), tuple(search_paths)), others


def _binding(argument: str) -> str:
    """Returns `--gin.NAME=VALUE` as gin source."""
    name, equals, value = argument.removeprefix("--gin.").partition("=")
    if not equals:
        raise UserError(f"{argument} needs a value: {argument}=VALUE")
    if not _NAME.fullmatch(name):
        raise UserError(f"{argument}: {shown(name)} is not a gin name; write --gin.NAME=VALUE.")
    return f"{name} = {_literal(value)}"


def _literal(value: str) -> str:
    """Returns `value` as gin source; anything but a gin literal is a string."""
    text = value.strip()
    if re.match(r"[@%][A-Za-z_]", text):
        return text
    try:
        literal = isinstance(ast.literal_eval(text), _LITERALS)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        # A list with references is not a Python literal, but gin reads it.
        literal = text[:1] in "[({" and re.search(r"[@%][A-Za-z_]", text)
    if literal and text[:1] not in "[({" and isinstance(ast.literal_eval(text), tuple):
        return f"({text})"  # 0,1,2: gin needs parentheses
    return text if literal else repr(value)
