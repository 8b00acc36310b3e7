"""Checks of the parsed gin configuration that gin does not make, or makes too late.

Gin ignores unused macros, prints the whole configuration if a macro has no value, and passes a
string where a number is needed. Here each is an error that names what to change.
"""

import inspect
import json
import shlex
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gin.config import REQUIRED, ConfigurableReference, iterate_references

from ait_jax.config.gin_internals import CONSTANT, MACRO, bindings, short_name, wrapped
from ait_jax.errors import UserError, nearest, shown

# Name -> value of the command line's overrides, as they were typed.
typed: dict[str, str] = {}


def check_values_exist() -> None:
    """Refuses macros without a value and values that are still `%gin.REQUIRED`."""
    macros = macro_values()
    for where, reference in _references():
        if reference.config_key[1] == MACRO and reference.config_key[0] not in macros:
            name = reference.config_key[0]
            near = _nearest_macro(name, macros) or f" Give a gin file that sets {name}."
            raise UserError(f"{where} = %{name}, but {name} has no value.{near}")
    missing = [
        where
        for where, reference in _references()
        if reference.config_key[1] == CONSTANT and reference.scoped_configurable_fn() is REQUIRED
    ]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no value; give "
            + " ".join(f"--gin.{name}=..." for name in missing)
        )


# Names that only one kind of pool has -> its file.
_OF_POOLS = {
    "COLUMNS": "self_instruct.gin",
    "FILTER_INSTANCES": "self_instruct.gin",
    "SELF_INSTRUCT_FILES": "self_instruct.gin",
    "TEST_FILES": "self_instruct.gin",
    "NIV2_DIR": "niv2.gin",
    "DYNOSAUR_DIR": "dynosaur.gin",
}


def check_override(name: str, macros: Sequence[str]) -> None:
    """Refuses `--gin.NAME=...` for a macro that no file defines; gin ignores it."""
    if "." not in name and name not in macros:
        if name in _OF_POOLS:
            file = f"--gin_file=pools/{_OF_POOLS[name]}"
            raise UserError(f"--gin.{name}: no gin file defines {name}; {file} does.")
        near = _nearest_macro(name, macros) or f" Known: {', '.join(sorted(macros)) or 'none'}."
        raise UserError(f"--gin.{name}: no gin file defines {name}.{near}")


def check_macros_used(referred_to: set[str], hint: str = "") -> None:
    """Refuses a macro that is set but unused, a misspelled one, for example.

    Args:
      referred_to: macros that the gin files and overrides refer to.
      hint: ends the message if no macro has a similar name.
    """
    for name in macro_values():
        if name not in referred_to:
            near = _nearest_macro(name, referred_to) or hint
            raise UserError(f"{name} is set but nothing uses it.{near}")


def is_configured(function: Any) -> bool:
    """Says whether a parameter of a function or class has a binding."""
    return any(wrapped(selector) is function for _, selector in bindings())


def check_types() -> None:
    """Refuses values that do not fit the parameter's annotation (`--gin.ROUNDS=three`)."""
    for (_, selector), bound in bindings().items():
        if selector in (MACRO, CONSTANT):
            continue
        annotations = _annotations(wrapped(selector))
        for parameter, given in bound.items():
            name, value = _follow(f"{short_name(selector)}.{parameter}", given)
            annotation = annotations.get(parameter, Any)
            if not _accepts(annotation, value):
                owner = f"{selector.rpartition('.')[2]}.{parameter}"
                raise UserError(_misfit(name, value, annotation, owner))


def macro_values() -> dict[str, Any]:
    """Returns the macros that have a value, by name."""
    return {
        scope: b["value"] for (scope, s), b in bindings().items() if s == MACRO and "value" in b
    }


def _nearest_macro(name: str, macros: Collection[str]) -> str:
    return nearest(name, macros) or nearest(name.upper(), macros)


def _references() -> Iterator[tuple[str, Any]]:
    """Yields (binding as the user writes it, reference) for every reference in use."""
    for (scope, selector), bound in bindings().items():
        for parameter, value in bound.items():
            where = scope
            if selector != MACRO:
                where = f"{scope}/" if scope else ""
                where += f"{short_name(selector)}.{parameter}"
            for reference in iterate_references(value):
                yield where, reference


def _follow(name: str, value: Any) -> tuple[str, Any]:
    """Follows macros to the value, and returns it under the last one's name."""
    macros = macro_values()
    while isinstance(value, ConfigurableReference) and value.config_key[1] == MACRO:
        name = value.config_key[0]
        value = macros[name]
    return name, value


def _annotations(called: Any) -> Mapping[str, Any]:
    function = called.__init__ if inspect.isclass(called) else called
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names that exist only for type checkers
        return {}


def _accepts(annotation: Any, value: Any) -> bool:
    """Whether a literal or reference may be passed for `annotation`; in doubt, yes."""
    if isinstance(value, ConfigurableReference):
        if value.evaluate:
            return True
        value = wrapped(value.config_key[1])  # passed itself, not called: "@module.Name"
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_accepts(option, value) for option in get_args(annotation))
    if origin is Literal:
        return value in get_args(annotation)
    target = origin or annotation
    if target is Any or not isinstance(target, type):
        return True
    if target in (int, float):
        return isinstance(value, (int, target)) and not isinstance(value, bool)
    if issubclass(target, PurePath):
        return isinstance(value, str)
    if isinstance(value, (list, tuple)) and target in (list, tuple, Sequence):
        kinds = [kind for kind in get_args(annotation) if kind is not Ellipsis]
        return len(kinds) != 1 or all(_accepts(kinds[0], item) for item in value)
    try:
        return isinstance(value, target)
    except TypeError:  # a protocol that cannot be checked
        return True


def _misfit(name: str, value: Any, annotation: Any, owner: str) -> str:
    needed = _words(annotation)
    # 2026_11_28 is a number to Python, but its digits alone would be another folder.
    source = typed.get(name, repr(value))
    message = f"{name} = {source} does not fit {owner}, which needs {needed}"
    if repr(value).startswith("@"):
        return f"{message}; write {shown(value)}()."
    if isinstance(value, str) and value.lower() in ("true", "false", "none"):
        return f"{message}; write {value.capitalize()}."
    if needed.startswith("str") and name not in typed:
        return f"{message}; put what stands there in quotes."
    if needed.startswith("str"):
        return f"{message}; on the command line, --gin.{name}={shlex.quote(json.dumps(source))}."
    if not isinstance(value, str) or any(word in needed for word in ("int", "float", "bool")):
        return f"{message}; change --gin.{name}=..."
    return f"{message}; refer to one, as in --gin.{name}=@module.Name()."


def _words(annotation: Any) -> str:
    if inspect.isclass(annotation) and not get_args(annotation):
        return "None" if annotation is type(None) else annotation.__name__
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_words(option) for option in get_args(annotation))
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")
