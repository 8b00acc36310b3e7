"""What gin-config 0.5 has no public functions for: bindings, registry, search path, imports.

No other file uses gin's private names.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import gin.config

import gin

MACRO, CONSTANT = "gin.macro", "gin.constant"


def bindings() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Returns (scope, selector) -> {parameter: value}; a macro NAME is ("NAME", `MACRO`)."""
    return gin.config._CONFIG


def selectors() -> list[str]:
    """Returns the full names of all registered functions and classes."""
    return list(gin.config._REGISTRY._selector_map)


def wrapped(selector: str) -> Any:
    """Returns the function or class itself."""
    return gin.config._REGISTRY[selector].wrapped


def short_name(selector: str) -> str:
    """Returns the shortest unambiguous name."""
    return gin.config._REGISTRY.minimal_selector(selector)


def search_path() -> list[str]:
    """Returns the folders in which gin looks for files."""
    return list(gin.config._LOCATION_PREFIXES)


def set_search_path(folders: Sequence[str]) -> None:
    """Replaces `search_path`."""
    gin.config._LOCATION_PREFIXES[:] = folders


def read_with(reader: Callable[[str], TextIO]) -> None:
    """Opens files on a disk with `reader` from now on."""
    readers: list[Any] = gin.config._FILE_READERS
    readers[0] = (reader, os.path.isfile)


def source_of(name: str) -> str:
    """Returns the text of a file that gin has parsed, of a folder or a Python package."""
    for folder in search_path():
        path = os.path.join(folder, name)
        for reader, exists in gin.config._FILE_READERS:
            if exists(path):
                with reader(path) as file:
                    return file.read()
    return ""


@contextmanager
def import_statements() -> Iterator[list[str]]:
    """Yields the import statements of the files so far; forgets those of the block.

    Statements that are read twice may get aliases in the operative configuration.
    """
    imports = set(gin.config._IMPORTS)
    try:
        yield [line.format() for line in gin.config.ImportManager(imports).sorted_imports]
    finally:
        gin.config._IMPORTS.clear()
        gin.config._IMPORTS.update(imports)


def complete_operative_config() -> None:
    """Adds functions that are passed uncalled (`optimizer = @optimizer.adamw`).

    Gin records only those that were called.
    """
    operative = gin.config._OPERATIVE_CONFIG
    # Other references have been called already, in the scope of a macro.
    waiting = [r for r in gin.config.iterate_references(operative) if not r.evaluate]
    while waiting:
        reference = waiting.pop()
        if reference.config_key in operative:
            continue
        configurable = gin.config._REGISTRY[reference.config_key[1]]
        values = gin.config._get_default_configurable_parameter_values(
            configurable.wrapped, configurable.allowlist, configurable.denylist
        )
        values |= gin.config._get_bindings(configurable.selector, reference.scopes)
        operative[reference.config_key] = values
        waiting += gin.config.iterate_references(values)
