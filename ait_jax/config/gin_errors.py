"""Gin's errors in one line: where, what, and the nearest valid name.

Gin raises ValueError, NameError, AttributeError, SyntaxError, ImportError and OSError with texts
of several lines. The patterns match those of gin-config 0.5.0; other texts pass unchanged.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ait_jax.config import gin_internals
from ait_jax.errors import nearest, shown

_LOCATION = re.compile(r'\n  In file "(?P<file>[^"\n]+)", line (?P<line>\d+)')
_IMPORT = re.compile(r"^\s*(?:from\s+\S+\s+)?import\s+(\S+)(?:\s+as\s+(\w+))?", re.MULTILINE)


def explain(error: Exception, shipped_files: Iterable[str], override: str = "") -> str:
    """Returns the message for an error that gin raised while reading files or overrides.

    Args:
      error: raised by gin.
      shipped_files: names that `--gin_file` and `include` may have meant.
      override: the flag that was read ("--gin.X=5"); "" for a file.
    """
    text = str(error)
    if isinstance(error, SyntaxError):
        file, line, what = error.filename, error.lineno, error.msg
    else:
        found = _LOCATION.search(text)
        file, line = (found["file"], found["line"]) if found else (None, None)
        what = text.split("\n  In ", maxsplit=1)[0].strip() or type(error).__name__
    where = override or (f"{file}, line {line}" if file else "gin")
    for pattern, describe in _PATTERNS:
        match = re.search(pattern, what)
        if match:
            return f"{where}: {describe(match, file, shipped_files)}"
    return f"{where}: {' '.join(what.split())}"


def _unknown_configurable(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    wanted = match["name"]
    parts = wanted.count(".") + 1
    names = {".".join(s.split(".")[-parts:]) for s in gin_internals.selectors()}
    hint = ""
    if file and "dynamic_registration" not in _read(file):
        hint = (
            " A file that names classes of its imports begins with "
            "`from __gin__ import dynamic_registration`."
        )
    return f"unknown name {shown(wanted)}.{nearest(wanted, names)}{hint}"


def _not_imported(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    wanted = match["name"]
    imports = _IMPORT.findall(_read(file)) if file else []
    names = {alias or name.split(".")[0] for name, alias in imports} - {"dynamic_registration"}
    return (
        f"unknown name {shown(wanted)}.{nearest(wanted, names)} This file must import it; "
        f"imported: {', '.join(sorted(names)) or 'nothing'}."
    )


def _not_in_module(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    wanted = match["name"].rpartition(".")[2]
    module = sys.modules.get(match["module"])
    names = [name for name in vars(module) if not name.startswith("_")] if module else []
    return f"{match['module']} has no {shown(wanted)}.{nearest(wanted, names)}"


def _unknown_parameter(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    wanted = match["parameter"]
    names = _parameters(match["name"])
    return f"{match['name']} has no parameter {shown(wanted)}.{nearest(wanted, names)}" + (
        f" It has: {', '.join(names)}." if names else ""
    )


def _missing_file(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    return f"cannot find the gin file {shown(match['name'])}.{nearest(match['name'], shipped)}"


def _missing_module(match: re.Match, file: str | None, shipped: Iterable[str]) -> str:
    return (
        f"no Python module {shown(match['name'])}; modules are looked up on Python's path, beside "
        "the gin file, in the working folder and in --gin_search_paths=FOLDER."
    )


_Describe = Callable[[re.Match, str | None, Iterable[str]], str]
_PATTERNS: tuple[tuple[str, _Describe], ...] = (
    (r"No configurable matching reference '@(?P<name>[^'()]+)", _unknown_configurable),
    (r"No configurable matching '(?P<name>[^']+)'", _unknown_configurable),
    (r"'(?P<name>\w+)' was not provided by an import statement", _not_imported),
    (r"selector (?P<name>[\w.]+); <module '(?P<module>[\w.]+)'", _not_in_module),
    (
        r"Configurable '(?P<name>[^']+)' doesn't have a parameter named '(?P<parameter>[^']+)'",
        _unknown_parameter,
    ),
    (r"Unable to open file: (?P<name>.+)\. Searched config paths", _missing_file),
    (r"No module named '(?P<name>[^']+)'", _missing_module),
)


def missing_arguments(error: Exception) -> str | None:
    """Returns the message for a configurable called without a required argument, or None."""
    text = str(error)
    missing = re.search(r"missing \d+ required [\w-]+ arguments?: (.*)", text)
    called = re.search(r"In call to configurable '(\w+)'", text)
    if not (isinstance(error, TypeError) and missing and called):
        return None
    names = sorted(re.findall(r"'(\w+)'", missing[1]))
    return (
        f"{called[1]} has no value for {', '.join(names)}; bind {called[1]}.{names[0]} in a gin "
        f"file or give --gin.{called[1]}.{names[0]}=..."
    )


def _read(file: str) -> str:
    path = Path(file)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _parameters(selector: str) -> list[str]:
    """Returns the parameters of a configurable, given by its full or short name."""
    full = [s for s in gin_internals.selectors() if s == selector or s.endswith(f".{selector}")]
    if len(full) != 1:
        return []
    wrapped = gin_internals.wrapped(full[0])
    return [name for name in inspect.signature(wrapped).parameters if name != "self"]
