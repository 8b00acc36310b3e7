"""Gin, T5X style: files, overrides, search paths, and errors that name the nearest valid name."""

import ast
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ait_jax.config import gin_checks, gin_errors
from ait_jax.errors import UserError, nearest

_LITERALS = (str, int, float, list, tuple, dict, type(None))
_REFERENCE = re.compile(r"%([A-Za-z_]\w*)")
_NAME = re.compile(r"[A-Za-z_][\w./]*")


@dataclass(frozen=True)
class GinFlags:
    """What the command line gave: `--gin_file`, `--gin.NAME=VALUE`, `--gin_search_paths`.

    Attributes:
      files: in order; later ones win.
      bindings: gin source, `NAME = VALUE`; they win over files.
      search_paths: folders for gin files and the modules they import.
    """

    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()


def gin_folder() -> Path:
    """Returns the folder of shipped gin files, inside the installed package or beside it."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "gin", package.parent / "gin"):
        if (folder / "experiments").is_dir():
            return folder
    raise UserError(f"The shipped gin files are missing from {package}; install ait-jax again.")


def split_flags(arguments: Sequence[str]) -> tuple[GinFlags, list[str]]:
    """Separates gin flags (`--gin_file=F`, `--gin_file F`, `--gin.X=V`) from other arguments.

    Raises:
      UserError: a gin flag without a value, an unknown one, or a name that gin cannot have.
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
        raise UserError(f"{argument}: {name!r} is no gin name; write --gin.NAME=VALUE.")
    return f"{name} = {_literal(value)}"


def _literal(value: str) -> str:
    """Returns `value` as gin source; what is no gin literal is taken as a string."""
    text = value.strip()
    if re.match(r"[@%][A-Za-z_]", text):
        return text
    try:
        literal = isinstance(ast.literal_eval(text), _LITERALS)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        # A list with references is no Python literal, but gin reads it.
        literal = text[:1] in "[({" and re.search(r"[@%][A-Za-z_]", text)
    if literal and text[:1] not in "[({" and isinstance(ast.literal_eval(text), tuple):
        return f"({text})"  # 0,1,2: gin wants the parentheses
    return text if literal else repr(value)


def parse(
    flags: GinFlags, default_file: str, unused: Iterable[str] = (), required: bool = True
) -> None:
    """Loads gin files and overrides into gin's global configuration.

    Later files win over earlier ones, and overrides over files. A file, its includes and the
    modules it imports are looked for in --gin_search_paths, beside the files that were given,
    in the working folder, and among the shipped files, in that order.

    Args:
      flags: of the command line.
      default_file: what is loaded where no file is given.
      unused: macros that shared files set and that may have no use here.
      required: False lets values that must be given be missing: not all of them are used.

    Raises:
      UserError: a missing file, an unknown configurable, parameter or macro, bad syntax, a
        macro that nothing uses, or a value that is required and not given.
    """
    import gin

    gin.clear_config()
    _quiet_gin()
    search_paths = [str(Path(path).expanduser()) for path in flags.search_paths]
    names = flags.files or (default_file,)
    files = [_find_file(name, [*search_paths, str(Path.cwd())]) for name in names]
    shipped = gin_folder()
    beside = [str(f.parent) for f in files if not f.is_relative_to(shipped)]
    folders = list(dict.fromkeys([*search_paths, *beside, str(Path.cwd())]))
    gin.config._LOCATION_PREFIXES[:] = [*folders, str(shipped)]
    sys.path += [folder for folder in folders if folder not in sys.path]
    referred_to = set(unused)
    for file in files:
        _try(lambda: referred_to.update(_macros_in(gin.parse_config_file(str(file)))))
    macros = tuple(gin_checks.macro_values())
    for binding in flags.bindings:
        gin_checks.check_override(binding.partition(" = ")[0], macros)
        _override(binding)
        referred_to.update(_REFERENCE.findall(binding))
    hint = (
        ""
        if default_file in names
        else (
            f" --gin_file replaces {default_file}: to change that one, give --gin_file={default_file} "
            "before."
        )
    )
    gin_checks.check_macros_used(referred_to, hint)
    if required:  # gin's own last step asks for the values, too
        gin_checks.check_values_exist()
        _try(gin.finalize)


def _macros_in(parsed: Any) -> set[str]:
    """Returns the macros that a gin file and its includes refer to, even where a later binding
    of the same parameter took their place.
    """
    macros = set(_REFERENCE.findall(_read_as_gin_does(parsed.filename)))
    return macros.union(*(_macros_in(include) for include in parsed.includes))


def _read_as_gin_does(name: str) -> str:
    """Returns a file's text; gin finds files in folders and inside Python packages."""
    import gin

    for folder in gin.config._LOCATION_PREFIXES:
        path = os.path.join(folder, name)
        for reader, exists in gin.config._FILE_READERS:
            if exists(path):
                with reader(path) as file:
                    return file.read()
    return ""


def _quiet_gin() -> None:
    """Keeps gin from logging an error for every folder of the search path that lacks a file.

    It logs through the root logger, which would also install a handler there.
    """
    from gin import resource_reader

    logger = logging.getLogger("gin")
    logger.setLevel(logging.CRITICAL)
    resource_reader.logging = logger


def _find_file(name: str, folders: Sequence[str]) -> Path:
    """Returns the absolute path of a `--gin_file`."""
    given = Path(name).expanduser()
    for folder in [*folders, str(gin_folder())]:
        path = Path(folder) / given  # an absolute `given` stands alone
        if path.is_file():
            return path.resolve()
    raise UserError(
        f"--gin_file={name} was not found in {', '.join(folders)} or among the shipped files."
        + nearest(name, _shipped_files())
    )


def _shipped_files() -> list[str]:
    shipped = gin_folder()
    return [str(path.relative_to(shipped)) for path in sorted(shipped.rglob("*.gin"))]


def _try(step: Callable[[], Any], override: str = "") -> None:
    try:
        step()
    except UserError:
        raise
    except Exception as error:  # gin raises many kinds, and a user's module any kind
        raise UserError(gin_errors.explain(error, _shipped_files(), override)) from error


def _override(binding: str) -> None:
    """Parses one override, with the names that the files import and those already in use.

    `--gin.STRATEGY=@selection.Random()` needs the first (no file mentions Random),
    `--gin.Scorer.num_instances=5` the second (gin's short form).
    """
    import gin

    name, _, value = binding.partition(" = ")
    flag = f"--gin.{name}={value}"
    imports = set(gin.config._IMPORTS)
    manager = gin.config.ImportManager(imports)
    header = [statement.format() for statement in manager.sorted_imports]
    try:
        _try(lambda: gin.parse_config([*header, binding]), flag)
    except UserError as error:
        # AttributeError: the module is right, so its own names are the nearest.
        if not isinstance(error.__cause__, (NameError, AttributeError)):
            raise
        try:
            _try(lambda: gin.parse_config(binding), flag)
        except UserError:
            if isinstance(error.__cause__, AttributeError):
                raise error from None
            raise
    finally:
        # The header's statements are the files' own; twice they could get aliases.
        gin.config._IMPORTS.clear()
        gin.config._IMPORTS.update(imports)


def build(configurable: Callable[..., Any], default_file: str = "experiments/mini.gin") -> Any:
    """Calls `configurable` with what gin binds to its parameters.

    Args:
      default_file: what `parse` loads where no file is given.

    Raises:
      UserError: the configuration is for something else, has a value of the wrong type or
        lacks one; or what the parts themselves raise.
    """
    import gin

    if not gin_checks.is_configured(configurable):
        raise UserError(
            f"the gin files configure no {configurable.__name__}. --gin_file replaces the default: "
            f"give an experiment first (--gin_file={default_file}), then what changes it."
        )
    gin_checks.check_types()
    try:
        return gin.get_configurable(configurable)()
    except UserError as error:
        raise original(error) from None
    except TypeError as error:
        missing = gin_errors.missing_arguments(error)
        if missing is None:
            raise
        raise UserError(missing) from error


def original(error: BaseException) -> BaseException:
    """Returns the error as it was raised: gin adds "In call to configurable" to its text."""
    while type(error) is not UserError and error.__context__ is not None:
        error = error.__context__
    return error


def operative_config() -> str:
    """Returns every parameter in use, defaults included, as gin source (config.gin).

    Gin notes what was called so far. A function that is passed on to be called later
    (`optimizer = @optimizer.adamw`) belongs to the configuration as well, and is added.
    """
    import gin

    operative = gin.config._OPERATIVE_CONFIG
    # What the others refer to has been called already, in the scope of a macro.
    waiting = [r for r in gin.config.iterate_references(operative) if not r.evaluate]
    while waiting:
        reference = waiting.pop()
        if reference.config_key in operative:
            continue
        configurable = reference.configurable
        values = gin.config._get_default_configurable_parameter_values(
            configurable.wrapped, configurable.allowlist, configurable.denylist
        )
        values |= gin.config._get_bindings(configurable.selector, reference.scopes)
        operative[reference.config_key] = values
        waiting += gin.config.iterate_references(values)
    return gin.operative_config_str() + "\n"


def differences(
    saved: str, current: str, ignored: Iterable[str] = (), ignored_prefixes: tuple[str, ...] = ()
) -> list[str]:
    """Returns one line for every parameter that differs between two configurations.

    Args:
      saved, current: as `operative_config` returns them.
      ignored: parameters that may differ.
      ignored_prefixes: likewise, by how their names begin.
    """
    old, new = parameters_of(saved), parameters_of(current)
    return [
        f"{name}: was {old.get(name, 'not set')}, now {new.get(name, 'not set')}"
        for name in sorted((old.keys() | new.keys()) - set(ignored))
        if old.get(name) != new.get(name) and not name.startswith(ignored_prefixes)
    ]


def macros_of(config: str) -> dict[str, str | int | float]:
    """Returns the macros of a configuration as `operative_config` returns it.

    Numbers, truth values and strings are what they are, everything else is its gin source.
    """
    macros: dict[str, str | int | float] = {}
    for name, text in parameters_of(config).items():
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            continue
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        macros[name] = value if isinstance(value, (str, int, float)) else text
    return macros


def parameters_of(config: str) -> dict[str, str]:
    """Returns parameter -> value of an operative configuration.

    A value that goes on over several lines begins on the line after ` = \\`, and its lines are
    indented.
    """
    parameters: dict[str, str] = {}
    name = ""
    for line in config.splitlines():
        if line[:1].isspace() and name:
            parameters[name] = f"{parameters[name]} {line.strip()}".strip()
        elif " = " in line and not line.startswith("#"):
            name, _, value = line.partition(" = ")
            parameters[name] = value.strip().removesuffix("\\")
    return parameters
