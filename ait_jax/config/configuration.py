"""Gin, T5X style: files, overrides, search paths, and errors that name the nearest valid name."""

import ast
import copy
import io
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gin
from ait_jax.config import gin_checks, gin_errors, gin_internals
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, nearest

Kind = TypeVar("Kind", bound=Callable[..., Any])
_REFERENCE = re.compile(r"%([A-Za-z_]\w*)")


def gin_folder() -> Path:
    """Returns the folder of shipped gin files, inside the installed package or beside it."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "gin", package.parent / "gin"):
        if (folder / "experiments").is_dir():
            return folder
    raise UserError(f"The shipped gin files are missing from {package}; install ait-jax again.")


def parse(
    flags: GinFlags, default_file: str, unused: Iterable[str] = (), required: bool = True
) -> None:
    """Loads gin files and overrides into gin's global configuration.

    Later files win over earlier ones, and overrides over files. Files, their includes and the
    modules they import are looked up in --gin_search_paths, beside the given files, in the working
    folder, and among the shipped files, in that order.

    Args:
      flags: of the command line.
      default_file: loaded if no file is given.
      unused: macros of shared files that need no use here.
      required: False accepts missing values.

    Raises:
      UserError: a missing file, an unknown configurable, parameter or macro, bad syntax, an unused
        macro, or a missing value.
    """
    from ait_jax.runtime import disk  # imported late, as below: what checks flags opens no file

    gin.clear_config()
    gin_checks.typed.clear()
    gin_internals.read_with(_File)
    _quiet_gin()
    search_paths = [str(disk.local_path(path)) for path in flags.search_paths]
    names = flags.files or (default_file,)
    paths = [_find_file(name, [*search_paths, str(Path.cwd())]) for name in names]
    shipped = gin_folder()
    beside = [str(path.parent) for path in paths if not path.is_relative_to(shipped)]
    folders = list(dict.fromkeys([*search_paths, *beside, str(Path.cwd())]))
    gin_internals.set_search_path([*folders, str(shipped)])
    sys.path += [folder for folder in folders if folder not in sys.path]
    referred_to = set(unused)
    for path in paths:
        _try(lambda path=path: referred_to.update(_macros_in(gin.parse_config_file(str(path)))))
    macros = tuple(gin_checks.macro_values())
    for binding in flags.bindings:
        macro, _, source = binding.partition(" = ")
        gin_checks.check_override(macro, macros)
        gin_checks.typed[macro] = source
        _override(binding)
        referred_to.update(_REFERENCE.findall(binding))
    hint = (
        f" --gin_file replaces {default_file}; to change it, give --gin_file={default_file} first."
    )
    if default_file in names:
        hint = ""
    gin_checks.check_macros_used(referred_to, hint)
    if required:  # gin's last step also requires the values
        gin_checks.check_values_exist()
        _try(gin.finalize)


class _File(io.StringIO):
    """A gin file as gin reads it: UTF-8, with or without a byte-order mark.

    Raises:
      UserError: it is in another encoding.
    """

    def __init__(self, name: str) -> None:
        from ait_jax.runtime import files

        super().__init__(files.read_given_text(name, "the gin file"))
        self.name = name


def _macros_in(parsed: Any) -> set[str]:
    """Returns the macros that a gin file and its includes refer to, overridden or not."""
    macros = set(_REFERENCE.findall(gin_internals.source_of(parsed.filename)))
    return macros.union(*(_macros_in(include) for include in parsed.includes))


def _quiet_gin() -> None:
    """Keeps gin from logging an error for every folder of the search path that lacks a file.

    It logs through the root logger, which also installs a handler there.
    """
    from gin import resource_reader

    logger = logging.getLogger("gin")
    logger.setLevel(logging.CRITICAL)
    resource_reader.logging = logger


def _find_file(name: str, folders: Sequence[str]) -> Path:
    """Returns the absolute path of a `--gin_file`."""
    from ait_jax.runtime import disk

    given = disk.local_path(name)
    for folder in [*folders, str(gin_folder())]:
        path = Path(folder) / given  # just `given` if that is absolute
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
    """Parses an override, with the imports of the files or with the names already in use.

    `--gin.STRATEGY=@selection.Random()` needs the first (no file mentions Random),
    `--gin.Scorer.num_instances=5` the second (gin's short form).
    """
    name, _, value = binding.partition(" = ")
    flag = f"--gin.{name}={value}"
    with gin_internals.import_statements() as header:
        try:
            _try(lambda: gin.parse_config([*header, binding]), flag)
        except UserError as error:
            # AttributeError: the module is right, so the nearest name is one of its own.
            if not isinstance(error.__cause__, NameError | AttributeError):
                raise
            try:
                _try(lambda: gin.parse_config(binding), flag)
            except UserError:
                if isinstance(error.__cause__, AttributeError):
                    raise error from None
                raise


def build(configurable: Callable[..., Any], default_file: str = "experiments/mini.gin") -> Any:
    """Calls `configurable` with what gin binds to its parameters.

    Args:
      default_file: what `parse` loads if no file is given.

    Raises:
      UserError: the configuration is for something else, or a value is missing, of the wrong type
        or refused by the parts themselves.
    """
    _configured([configurable], configurable.__name__, default_file)
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


def _configured(kinds: Iterable[Kind], what: str, default_file: str) -> Kind:
    """Returns the first of `kinds` that gin binds something to."""
    for kind in kinds:
        if gin_checks.is_configured(kind):
            return kind
    raise UserError(
        f"the gin files configure no {what}. --gin_file replaces the default: give an experiment "
        f"first (--gin_file={default_file}), then the files that change it."
    )


def read(
    flags: GinFlags, default_file: str, unused: Iterable[str], kinds: Iterable[Kind]
) -> tuple[Kind, Callable[[str], Any]]:
    """Loads gin files and flags as `parse` does, but what is not asked for needs no value.

    Returns:
      The first class of `kinds` that they configure, and a function that makes what gin binds to
      one of its parameters, or its default, or else None.

    Raises:
      UserError: as `parse` and `build`.
    """
    parse(flags, default_file, unused, required=False)
    gin_checks.check_types()
    kind = _configured(kinds, "experiment", default_file)
    bound = gin.get_bindings(kind, resolve_references=False)

    def value(name: str) -> Any:
        try:
            # To call what a reference names, gin copies it.
            return copy.deepcopy(bound[name]) if name in bound else getattr(kind, name, None)
        except UserError as error:
            raise original(error) from None

    return kind, value


def original(error: BaseException) -> BaseException:
    """Returns the error without gin's "In call to configurable"."""
    while type(error) is not UserError and error.__context__ is not None:
        error = error.__context__
    return error


def operative_config() -> str:
    """Returns every parameter in use, defaults included, as gin source (config.gin)."""
    gin_internals.complete_operative_config()
    return gin.operative_config_str() + "\n"


def differences(
    saved: str, current: str, ignored: Iterable[str] = (), ignored_prefixes: tuple[str, ...] = ()
) -> list[str]:
    """Returns a line for every parameter that differs between two configurations.

    Args:
      saved, current: as `operative_config` returns them.
      ignored: parameters that may differ.
      ignored_prefixes: of further ones.
    """
    old, new = parameters_of(saved), parameters_of(current)
    return [
        f"{name}: was {old.get(name, 'not set')}, now {new.get(name, 'not set')}"
        for name in sorted((old.keys() | new.keys()) - set(ignored))
        if old.get(name) != new.get(name) and not name.startswith(ignored_prefixes)
    ]


def macros_of(config: str) -> dict[str, str | int | float]:
    """Returns the macros of a configuration as `operative_config` returns it.

    Numbers, booleans and strings are values, everything else is gin source.
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
    r"""Returns parameter -> value of an operative configuration.

    A value of several lines begins on the line after ` = \`, indented.
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
