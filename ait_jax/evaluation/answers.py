"""Files of two models' answers to instructions, matched by instruction.

The format is that of Self-Instruct's released predictions (paper_facts D), rows of {"prompt",
"instruction", "input", "response", "target"}, of which instruction and response are required; rows
of other kinds and columns are read as those of a pool (`instruction_rows`). predictions.jsonl of
`ait-jax run` and of T5X's infer is read, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ait_jax.errors import UserError, shown_path
from ait_jax.evaluation import evaluation
from ait_jax.runtime import files

if TYPE_CHECKING:  # pools are imported where rows are read: a prompt of the judge needs none
    from ait_jax.pool.columns import Columns
    from ait_jax.pool.instruction_rows import Row

_SHOWN = 3


@dataclass(frozen=True)
class Files:
    """What is compared.

    Attributes:
      a, b: files of answers.
      instructions: a file of instructions and references, or None.
      columns: where the rows of all three have their parts, None for the usual names; "output" is
        the answer.
    """

    a: Any
    b: Any
    instructions: Any = None
    columns: "Columns | None" = None


@dataclass(frozen=True)
class Question:
    """An instruction and its input, stripped; answers are matched by them."""

    instruction: str
    input: str

    @property
    def title(self) -> str:
        """The beginning, for messages."""
        line = " ".join(f"{self.instruction} {self.input}".split())
        return repr(line if len(line) <= 60 else line[:57] + "...")


@dataclass(frozen=True)
class RecordedAnswer:
    """An answer from a file, with the references beside it, if any."""

    text: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One question, both models' answers, and the references."""

    question: Question
    a: str
    b: str
    references: tuple[str, ...]


def read_instructions(
    path: Any, columns: "Columns | None" = None
) -> dict[Question, tuple[str, ...]]:
    """Reads user_oriented_instructions.jsonl, or any file of rows that `instruction_rows` reads.

    Returns:
      {question: its references}; each instance is a question.

    Raises:
      UserError: no such file, a malformed row (named), or a repeated question.
    """
    found: dict[Question, tuple[str, ...]] = {}
    for place, row in _rows(path, columns):
        for text, outputs in row.instances:
            asked = Question(row.instruction, text.strip())
            if asked in found:
                raise UserError(f"{shown_path(path)}, {place}: {asked.title} is there twice.")
            found[asked] = outputs or ("",)
    if not found:
        raise UserError(f"{shown_path(path)} has no instructions.")
    return found


def read_answers(
    path: Any, columns: "Columns | None" = None
) -> dict[Question, list[RecordedAnswer]]:
    """Reads a file of answers; a question answered more than once has several.

    Raises:
      UserError: no such file, or a malformed row (named).
    """
    from ait_jax.pool import row_files
    from ait_jax.pool.task import kind_of

    found: dict[Question, list[RecordedAnswer]] = {}
    for place, value in row_files.rows(files.as_path(path)):
        if isinstance(value, dict) and "prediction" in value and "inputs" in value:
            return _of_predictions(path)
        row = _row(value, f"{shown_path(path)}, {place}", columns)
        target = value.get("target")
        if target is not None and not isinstance(target, str):
            raise UserError(
                f"{shown_path(path)}, {place}: 'target' is {kind_of(target)}, not a string."
            )
        references = () if target is None else (target,)
        for text, outputs in row.instances:
            answer = RecordedAnswer(outputs[0] if outputs else "", references)
            found.setdefault(Question(row.instruction, text.strip()), []).append(answer)
    if not found:
        raise UserError(f"{shown_path(path)} has no answers.")
    return found


def _rows(path: Any, columns: "Columns | None") -> "Iterator[tuple[str, Row]]":
    from ait_jax.pool import row_files

    for place, value in row_files.rows(files.as_path(path)):
        yield place, _row(value, f"{shown_path(path)}, {place}", columns)


def _row(value: Any, where: str, columns: "Columns | None") -> "Row":
    from ait_jax.pool.instruction_rows import USUAL, BadRow, Findings, read_row

    try:
        return read_row(value, where, Findings(), columns or USUAL, needs_answer=True)
    except BadRow as bad:
        raise UserError(f"{where}: {bad.detail}.") from bad


def _of_predictions(path: Any) -> dict[Question, list[RecordedAnswer]]:
    found: dict[Question, list[RecordedAnswer]] = {}
    for item in evaluation.read_predictions(path):
        answer = RecordedAnswer(item.prediction, tuple(item.references))
        found.setdefault(Question(item.input.strip(), ""), []).append(answer)
    return found


def match(
    a: dict[Question, list[RecordedAnswer]],
    b: dict[Question, list[RecordedAnswer]],
    instructions: dict[Question, tuple[str, ...]] | None,
    names: Sequence[str],
    intersect: bool,
) -> tuple[list[Pair], dict[str, list[str]]]:
    """Returns the questions that can be compared, and what does not match.

    Args:
      a, b: each model's answers, from `read_answers`.
      instructions: from `read_instructions`: the questions and their references; without it all of
        both files, with the files' references.
      names: of `a` and `b`, for messages.
      intersect: leave out what does not match, instead of refusing.

    Returns:
      pairs in the order of `instructions`, else of `a`; and {what is wrong: titles of the
      questions}. Equal answers to a repeated question count once; different ones do not match.

    Raises:
      UserError: something does not match and `intersect` is False, or nothing matches.
    """
    wanted = list(instructions) if instructions is not None else list(dict.fromkeys([*a, *b]))
    problems: dict[str, list[str]] = {}
    usable = []
    for name, answers in zip(names, (a, b), strict=True):
        unclear = {asked for asked, given in answers.items() if len({x.text for x in given}) > 1}
        usable.append({k: given[0] for k, given in answers.items() if k not in unclear})
        problems[f"missing in {name}"] = [x.title for x in wanted if x not in answers]
        problems[f"answered differently twice in {name}"] = [x.title for x in unclear]
        if instructions is not None:
            extra = [x.title for x in answers if x not in instructions]
            problems[f"only in {name}, not in the instructions"] = extra
    shared = [x for x in wanted if x in usable[0] and x in usable[1]]
    references = instructions or {x: usable[0][x].references for x in shared}
    if instructions is None:
        differ = [x.title for x in shared if usable[1][x].references != references[x]]
        problems["with different targets in the two files"] = differ
        shared = [x for x in shared if usable[1][x].references == references[x]]
    problems = {what: titles for what, titles in problems.items() if titles}
    if problems and not intersect:
        raise UserError(
            "The files do not answer the same instructions: "
            + "; ".join(describe(problems))
            + ". Give files that answer the same ones once each, or --on_mismatch=intersect to "
            f"compare the {len(shared)} that match."
        )
    if not shared:
        raise UserError(f"{names[0]} and {names[1]} have no instruction in common.")
    pairs = [Pair(x, usable[0][x].text, usable[1][x].text, references[x]) for x in shared]
    return pairs, problems


def describe(problems: dict[str, list[str]]) -> list[str]:
    """Returns a line for each kind of problem: how many, and the first few."""
    return [
        f"{len(titles)} {what} ({', '.join(titles[:_SHOWN])}{', ...' * (len(titles) > _SHOWN)})"
        for what, titles in problems.items()
    ]
