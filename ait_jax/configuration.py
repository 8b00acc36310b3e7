"""Gin, T5X style: files, overrides, search paths, and errors that name the nearest valid name."""

import ast
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError, nearest

REQUIRED = "%gin.REQUIRED"
_MACRO = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class GinFlags:
    """What the command line gave: `--gin_file`, `--gin.NAME=VALUE`, `--gin_search_paths`."""

    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()


def gin_folder() -> Path:
    """Returns the folder of shipped gin files, inside the installed package or beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "gin", package.parent / "gin"):
        if (folder / "experiments").is_dir():
            return folder
    raise UserError(f"The shipped gin files are missing from {package}; install ait-jax again.")


def split_flags(arguments: Sequence[str]) -> tuple[GinFlags, list[str]]:
    """Separates gin flags (`--gin_file=F`, `--gin_file F`, `--gin.X=V`) from other arguments."""
    files: list[str] = []
    bindings: list[str] = []
    search_paths: list[str] = []
    others: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if name in ("--gin_file", "--gin_search_paths"):
            if not equals:
                if not waiting:
                    raise UserError(f"{name} needs a value: {name}=...")
                value = waiting.pop(0)
            (files if name == "--gin_file" else search_paths).extend(
                [value] if name == "--gin_file" else [p for p in value.split(",") if p]
            )
        elif name.startswith("--gin."):
            if not equals:
                raise UserError(f"{argument} needs a value: {argument}=VALUE")
            bindings.append(f"{name.removeprefix('--gin.')} = {_literal(value)}")
        elif name.startswith("--gin"):
            raise UserError(
                f"Unknown flag {name}."
                + nearest(name, ["--gin_file", "--gin_search_paths", "--gin."])
            )
        else:
            others.append(argument)
    return GinFlags(tuple(files), tuple(bindings), tuple(search_paths)), others


def _literal(value: str) -> str:
    """Returns `value` as gin source; what is no gin literal is taken as a string."""
    text = value.strip()
    if text.startswith(("@", "%")):
        return text
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if re.search(r"[@%]\w", text) and text[:1] in "[({":
            return text
        return repr(value)
    return text


def parse(flags: GinFlags, default_file: str) -> None:
    """Loads gin files and overrides into gin's global configuration.

    Later files win over earlier ones, overrides over files, the user's search paths over
    the shipped folder.

    Raises:
      UserError: a missing file, an unknown configurable, parameter or macro, bad syntax.
    """
    import gin

    gin.clear_config()
    # Gin logs an error for every folder of the search path that lacks a file.
    logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("Path not found"))
    folders = [*flags.search_paths, str(Path.cwd()), str(gin_folder())]
    for folder in reversed(folders):
        gin.add_config_file_search_path(folder)
    # `import my_strategies` in a gin file finds a module beside it.
    for folder in [*flags.search_paths, str(Path.cwd())]:
        if folder not in sys.path:
            sys.path.append(folder)
    files = flags.files or (default_file,)
    for file in files:
        _check_file(file, folders)
    try:
        gin.parse_config_files_and_bindings(list(files), None, finalize_config=False)
        _check_macros(flags.bindings)
        gin.parse_config(list(flags.bindings))
        gin.finalize()
    except UserError:
        raise
    except Exception as error:  # gin raises ValueError, SyntaxError, KeyError, IOError, ImportError
        raise UserError(_explain(error)) from error


def _check_file(file: str, folders: Sequence[str]) -> None:
    if Path(file).is_file() or any((Path(f) / file).is_file() for f in folders):
        return
    shipped = gin_folder()
    known = [str(p.relative_to(shipped)) for p in sorted(shipped.rglob("*.gin"))]
    raise UserError(
        f"--gin_file={file} was not found in {', '.join(folders)}.{nearest(file, known)}"
    )


def _check_macros(bindings: Sequence[str]) -> None:
    """Refuses an override of a macro that no file defines: gin would silently ignore it."""
    import gin

    known = [name for scope, name in _bound() if name == "gin.macro" for name in [scope]]
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if _MACRO.fullmatch(name) and name not in known:
            raise UserError(
                f"--gin.{name}: no gin file defines {name}.{nearest(name, known)} "
                f"Defined: {', '.join(sorted(known))}."
            )


def _bound() -> list[tuple[str, str]]:
    import gin

    return list(gin.config._CONFIG)  # (scope, selector); gin has no public view of it


def _explain(error: Exception) -> str:
    """Makes gin's error one line, with the nearest valid name."""
    import gin

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(dict.fromkeys(lines)) or type(error).__name__
    unknown = re.search(r"No configurable matching '([^']+)'", text)
    if unknown:
        wanted = unknown.group(1)
        names = {
            short
            for selector in gin.config._REGISTRY._selector_map
            for short in _suffixes(selector)
            if short.count(".") == wanted.count(".")
        }
        return f"Unknown gin name {wanted!r}: {text}{nearest(wanted, names)}"
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text)
    if parameter:
        return text + nearest(parameter.group(2), _parameters(parameter.group(1)))
    return f"Gin: {text}"


def _suffixes(selector: str) -> list[str]:
    parts = selector.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _parameters(selector: str) -> list[str]:
    import inspect

    import gin

    try:
        return list(inspect.signature(gin.get_configurable(selector)).parameters)
    except (ValueError, TypeError, KeyError):
        return []


def build(configurable: Callable[..., Any]) -> Any:
    """Calls `configurable` with what gin binds to its parameters.

    Raises:
      UserError: a parameter without value or default, naming it.
    """
    import gin

    try:
        return gin.get_configurable(configurable)()
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from error
            cause = cause.__cause__
        raise UserError(_explain(error)) from error


def operative_config() -> str:
    """Returns every parameter in use, defaults included, as gin source (config.gin)."""
    import gin

    return gin.operative_config_str() + "\n"


def differences(saved: str, current: str) -> list[str]:
    """Returns one line for every parameter that differs between two configurations."""
    old, new = _parameters_of(saved), _parameters_of(current)
    return [
        f"{name}: was {old.get(name, 'not set')}, now {new.get(name, 'not set')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _parameters_of(config: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    name = None
    for line in config.splitlines():
        if not line.strip() or line.startswith(("#", "import", "from")):
            continue
        head, equals, value = line.partition(" = ")
        if equals and not line[0].isspace():
            name = head
            parameters[name] = value.strip().rstrip("\\").strip()
        elif name is None or not line[0].isspace():
            name = line.split(" =")[0]
            parameters[name] = ""
        else:
            parameters[name] += " " + line.strip()
    return parameters
