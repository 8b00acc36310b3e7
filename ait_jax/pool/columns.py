"""Which columns of a data set's rows hold instruction, input and answer.

Read without being told: Alpaca's and Self-Instruct's (instruction, input, output), Dolly's
(instruction, context, response), prompt and completion or response, conversations (messages;
ShareGPT's conversations), each with a system text and LLaMA-Factory's history beside it. Any other
is told by `Columns`.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ait_jax.errors import UserError, nearest, shown

INSTRUCTION, INPUT, OUTPUT, MESSAGES = "instruction", "input", "output", "messages"
SYSTEM, HISTORY, ID = "system", "history", "id"
_INPUTS, _OUTPUTS = ("input", "context"), ("output", "response")
_CONVERSATIONS = ("messages", "conversations")
_COMPLETIONS = ("completion", "response")
_SYSTEMS = ("system", "system_prompt")
_MOST_COMPARED = 200
_KNOWN = {*_INPUTS, *_OUTPUTS, *_CONVERSATIONS, *_COMPLETIONS, *_SYSTEMS, "history"}
_KNOWN |= {"instruction", "prompt"}
# What else people call them: only for advice.
_ALSO_CALLED = {
    INSTRUCTION: ("instruction", "prompt", "question", "query", "task", "inputs", "problem",
                  "source", "user", "human", "instructions"),
    INPUT: ("input", "context", "passage", "document", "article"),
    OUTPUT: ("output", "response", "answer", "answers", "completion", "target", "targets", "reply",
             "solution", "summary", "label", "assistant", "chosen", "outputs", "text"),
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Where a row's parts are.

    Attributes:
      names: "instruction", "input", "output", "system", "history", "messages" or "id" -> the
        column. Empty: by the names that data sets use.
    """

    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (INSTRUCTION, INPUT, OUTPUT, SYSTEM, HISTORY, MESSAGES, ID)
        for name, column in self.names.items():
            if name not in known:
                raise UserError(
                    f"columns: {shown(name)} is no part of a row; write "
                    f"PART=COLUMN with {', '.join(known)}." + nearest(str(name), known)
                )
            if not isinstance(column, str) or not column:
                raise UserError(f"columns: {name}={shown(column)} is no column's name.")
        if self.names and not {INSTRUCTION, MESSAGES} & set(self.names):
            raise UserError(
                f"columns: {', '.join(self.names)} without an instruction; add "
                "instruction=COLUMN or messages=COLUMN."
            )


def columns_of(given: "Columns | Mapping[str, str] | str | None") -> Columns:
    """Returns the columns that a flag or gin name gives.

    Args:
      given: "instruction=question,output=answer", or the same as a mapping.

    Raises:
      UserError: it is neither, or names no known part.
    """
    if isinstance(given, Columns):
        return given
    if isinstance(given, Mapping):
        return Columns(dict(given))
    names: dict[str, str] = {}
    for pair in (given or "").split(","):
        name, equals, column = (text.strip() for text in pair.partition("="))
        if not equals and pair.strip():
            raise UserError(f"columns: {shown(pair)} is no PART=COLUMN.")
        if equals and name in names:
            raise UserError(f"columns: {name} is given twice.")
        if equals:
            names[name] = column
    return Columns(names)


class Parts(NamedTuple):
    """A row's parts as they are in the file, None where there are none.

    Attributes:
      used: the columns that they are from.
      has_output: whether there is a column for the answer.
    """

    instruction: Any = None
    input: Any = None
    output: Any = None
    system: Any = None
    history: Any = None
    messages: Any = None
    identity: Any = None
    used: frozenset[str] = frozenset()
    has_output: bool = False


def parts_of(row: Mapping[str, Any], columns: Columns) -> Parts | None:
    """Returns a row's parts, None if it has neither instruction nor conversation."""
    conversation = next((n for n in _CONVERSATIONS if isinstance(row.get(n), list)), "")
    known = tuple(name for name in row if name in _KNOWN)
    names = columns.names or _usual(known, conversation)
    found = {part: column for part, column in names.items() if column in row}
    if not {INSTRUCTION, MESSAGES} & set(found):
        return None
    values = {part: row[column] for part, column in found.items() if part != ID}
    prompt, completion = values.get(INSTRUCTION), values.get(OUTPUT)
    if isinstance(prompt, list) and (isinstance(completion, list) or completion is None):
        # A conversation in two parts, as TRL writes prompt and completion.
        del values[INSTRUCTION]
        values |= {MESSAGES: [*prompt, *(completion or [])], OUTPUT: None}
    return Parts(
        **values,
        identity=row.get(found.get(ID, ID)),
        used=frozenset(found.values()),
        has_output=OUTPUT in found or MESSAGES in found,
    )


@functools.lru_cache(maxsize=256)
def _usual(row: tuple[str, ...], conversation: str) -> Mapping[str, str]:
    """Returns part -> column by the names that data sets use, for rows with these known columns.

    `conversation` is the one that holds messages, or "".
    """

    def first(names: Iterable[str]) -> str:
        return next((name for name in names if name in row), "")

    beside = {SYSTEM: first(_SYSTEMS), HISTORY: first(("history",))}
    if "instruction" in row and (first(_OUTPUTS) or not conversation):
        found = {INSTRUCTION: "instruction", INPUT: first(_INPUTS), OUTPUT: first(_OUTPUTS)}
    elif conversation:
        found = {MESSAGES: conversation}
    elif "prompt" in row and first(_COMPLETIONS):
        found = {INSTRUCTION: "prompt", OUTPUT: first(_COMPLETIONS)}
    else:
        found = {}
    return {part: column for part, column in (found | beside).items() if column}


def advice(row: Mapping[str, Any]) -> str:
    """Returns the columns of a row and the nearest mapping: what to give as `--columns`."""
    few = list(itertools.islice(row, _MOST_COMPARED))
    listed = ", ".join(shown(name) for name in few[:20]) or "none"
    listed += ", ..." if len(row) > 20 else ""
    taken: set[str] = set()
    pairs = []
    for part, names in _ALSO_CALLED.items():
        column = _nearest_column([name for name in few if name not in taken], names)
        if column:
            taken.add(column)
        if column or part != INPUT:
            pairs.append(f"{part}={column or 'COLUMN'}")
    return f"the columns are {listed}; give --columns={','.join(pairs)} (gin name COLUMNS)"


def may_hold_an_answer(row: Mapping[str, Any], used: Iterable[str]) -> bool:
    """Whether a column that is not used is called as answers are."""
    rest = {str(name).lower() for name in row if name not in set(used)}
    return bool(rest & set(_ALSO_CALLED[OUTPUT]) - {"text"})


def _nearest_column(columns: list[str], names: tuple[str, ...]) -> str:
    import difflib

    by_name = {str(column).lower(): column for column in reversed(columns)}
    exact = next((by_name[name] for name in names if name in by_name), "")
    if exact:
        return exact
    words = {column: _words(column) for column in by_name}
    within = next((by_name[c] for name in names for c in words if name in words[c]), "")
    close = within or next(iter(difflib.get_close_matches(names[0], by_name, 1, 0.75)), "")
    return by_name.get(close, close)


def _words(name: str) -> list[str]:
    """Returns the words of a column's name in lower case."""
    return name.replace("-", "_").replace(" ", "_").split("_")
