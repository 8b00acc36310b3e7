"""The values of a run's config.gin, read without running whatever it names.

A run directory may come from a stranger, and gin calls whatever a file refers to. Here gin's parser
only parses the text; of the functions that it refers to, only those of `BUILDABLE` are called:
they open pools and make encodings, perturbations, scorers and vocabularies.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any

from ait_jax.errors import UserError, first_line, shown
from gin import config_parser

# Function -> parameters that are not passed on, because they would prepare a pool.
BUILDABLE: Mapping[str, tuple[str, ...]] = {
    "ait_jax.assets.mini_vocabulary": (),
    "ait_jax.assets.paper_tasks": (),
    "ait_jax.assets.smollm2_weights": (),
    "ait_jax.prompts.chat_format.ChatML": (),
    "ait_jax.prompts.chat_format.Llama3Chat": (),
    "ait_jax.prompts.perturb.ExampleResampling": (),
    "ait_jax.prompts.perturb.MCDropout": (),
    "ait_jax.prompts.perturb.WordDrop": (),
    "ait_jax.prompts.perturb.WordDropMix": (),
    "ait_jax.prompts.perturb.WordMask": (),
    "ait_jax.prompts.prompts.AlpacaEncoding": (),
    "ait_jax.prompts.prompts.SelfInstructMixture": (),
    "ait_jax.prompts.prompts.TkInstructEncoding": (),
    "ait_jax.prompts.prompts.TkInstructMixture": (),
    "ait_jax.tasks.dynosaur.load_pool": (),
    "ait_jax.tasks.joined.load_pool": (),
    "ait_jax.tasks.mini.load_pool": (),
    "ait_jax.tasks.niv2.load_pool": ("source",),
    "ait_jax.tasks.self_instruct.load_pool": ("source", "test_source"),
    "ait_jax.tasks.stored_pool.load": (),
    "ait_jax.prompts.tokenizers_vocabulary.TokenizersVocabulary": (),
    "ait_jax.prompts.vocabulary.Vocabulary": (),
    "ait_jax.scorer.racing.Racing": (),
    "ait_jax.scorer.scorer.Scorer": (),
}
_DEEPEST = 50
_BUCKET = re.compile(r"\w[\w+.-]*://[^/]*")


def _short_name(name: str) -> str:
    return ".".join(name.split(".")[-2:])


_FULL_NAMES = {_short_name(name): name for name in BUILDABLE}


def _bucket(path: str) -> str:
    """Returns "gs://name" of a path in a bucket, "" of any other."""
    found = _BUCKET.match(path)
    return found[0].lower() if found else ""


@dataclass(frozen=True)
class Reference:
    """`@scope/name()`, or `@name` if it is not called."""

    name: str
    called: bool

    @property
    def selector(self) -> str:
        """The name without its scopes."""
        return self.name.rpartition("/")[2]

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes, outermost first."""
        return tuple(self.name.split("/")[:-1])


@dataclass(frozen=True)
class Macro:
    """`%NAME`."""

    name: str


class ConfigValues:
    """The bindings of gin source.

    Args:
      text: as `configuration.operative_config` returns it.
      folder: where it is from. Of buckets only that of the folder is asked: a stranger's file
        would have this user's credentials sent wherever it likes.

    Raises:
      UserError: it is not gin source.
    """

    def __init__(self, text: str, folder: Any = "") -> None:
        self._bucket = _bucket(str(folder))
        self._imports: dict[str, str] = {}
        self._macros: dict[str, Any] = {}
        # (scope, selector) -> {parameter: value}
        self._bindings: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            for statement in config_parser.ConfigParser(text, _Delegate()):
                self._add(statement)
        except (SyntaxError, ValueError, RecursionError, TokenError) as error:
            raise UserError(f"config.gin is damaged ({first_line(error)})") from error

    def _add(self, statement: Any) -> None:
        if hasattr(statement, "module"):
            self._imports[statement.bound_name()] = statement.partial_path()
        elif getattr(statement, "arg_name", None):
            where = (statement.scope or "", statement.selector)
            self._bindings.setdefault(where, {})[statement.arg_name] = statement.value
        elif hasattr(statement, "arg_name"):
            self._macros[statement.selector] = statement.value

    def of_class(self, name: str) -> dict[str, Any] | None:
        """Returns what is bound to a class of any module outside of scopes, None if nothing is."""
        found: dict[str, Any] = {}
        for (scope, selector), values in self._bindings.items():
            if not scope and selector.rpartition(".")[2] == name:
                found |= values
        return found or None

    def of_reference(self, reference: Reference, scope: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns what is bound to a referenced function that is called in a scope."""
        scope = reference.scopes or scope
        values: dict[str, Any] = {}
        for depth in range(len(scope) + 1):
            values |= self._bindings.get(("/".join(scope[:depth]), reference.selector), {})
        return values

    def followed(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Returns the value behind a macro, and the scope in which it is called."""
        scope: tuple[str, ...] = ()
        for _ in range(_DEEPEST):
            if not isinstance(value, Macro):
                return value, scope
            if value.name not in self._macros:
                raise UserError(f"config.gin gives {value.name} no value")
            value, scope = self._macros[value.name], (value.name,)
        raise UserError("config.gin has macros that refer to each other")

    def build(self, value: Any, scope: tuple[str, ...] = (), depth: int = 0) -> Any:
        """Returns a value with its references called.

        Raises:
          UserError: one is not in `BUILDABLE`, or a function raises it.
        """
        if depth > _DEEPEST:
            raise UserError("config.gin refers to itself")
        if isinstance(value, Macro):
            value, scope = self.followed(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.build(item, scope, depth + 1) for item in value)
        if isinstance(value, dict):
            return {name: self.build(item, scope, depth + 1) for name, item in value.items()}
        if not isinstance(value, Reference):
            if isinstance(value, str) and _bucket(value) not in ("", self._bucket):
                raise UserError(f"config.gin names {shown(value)}, which is asked only by a run")
            return value
        function, left_out = self._function(value)
        arguments = {
            name: self.build(item, value.scopes or scope, depth + 1)
            for name, item in self.of_reference(value, scope).items()
            if name not in left_out
        }
        try:
            return function(**arguments)
        except UserError:
            raise
        except Exception as error:  # values of another version, or that no run has written
            problem = first_line(error)
            raise UserError(f"config.gin does not fit @{value.name} ({problem})") from error

    def _function(self, reference: Reference) -> tuple[Any, tuple[str, ...]]:
        first, _, rest = reference.selector.partition(".")
        given = f"{self._imports.get(first, first)}.{rest}".rstrip(".")
        # Packages may change between versions; the names of modules and functions do not.
        name = _FULL_NAMES.get(_short_name(given)) if given.startswith("ait_jax.") else None
        if name is None or not reference.called:
            raise UserError(
                f"config.gin refers to @{reference.name}, which is not part of ait-jax, so only a "
                "run calls it"
            )
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute), BUILDABLE[name]


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)
