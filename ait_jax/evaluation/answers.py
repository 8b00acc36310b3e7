"""Files of two models' answers to instructions, matched by instruction.

The format is that of Self-Instruct's released predictions (paper_facts D), one JSON object per
line: {"prompt", "instruction", "input", "response", "target"}, of which "instruction" and
"response" are required. predictions.jsonl of `ait-jax run` and of T5X's infer is read, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown_path
from ait_jax.evaluation import evaluation
from ait_jax.runtime import files, strict_json

_SHOWN = 3


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


def question(instruction: Any, input_text: Any) -> Question:
    """Returns the Question of two texts from a file; TypeError if they are not texts."""
    return Question(_text(instruction).strip(), _text(input_text).strip())


def read_instructions(path: Any) -> dict[Question, tuple[str, ...]]:
    """Reads user_oriented_instructions.jsonl, or any JSON lines with the same two fields.

    Returns:
      {question: its instances' outputs}; each instance is a question.

    Raises:
      UserError: no such file, a malformed line (named), or a repeated question.
    """
    found: dict[Question, tuple[str, ...]] = {}
    for number, value in _json_lines(path):
        try:
            for instance in value["instances"]:
                asked = question(value["instruction"], instance["input"])
                if asked in found:
                    raise UserError(f"{path}, line {number}: {asked.title} is there twice.")
                found[asked] = (_text(instance["output"]),)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{shown_path(path)}, line {number}: not an instruction with instances of input "
                f"and output ({type(error).__name__}: {error})."
            ) from None
    if not found:
        raise UserError(f"{path} has no instructions.")
    return found


def read_answers(path: Any) -> dict[Question, list[RecordedAnswer]]:
    """Reads a file of answers; a question answered more than once has several.

    Raises:
      UserError: no such file, or a malformed line (named).
    """
    found: dict[Question, list[RecordedAnswer]] = {}
    for number, value in _json_lines(path):
        if isinstance(value, dict) and "prediction" in value and "inputs" in value:
            return _of_predictions(path)
        try:
            references = (_text(value["target"]),) if value.get("target") is not None else ()
            asked = question(value["instruction"], value.get("input") or "")
            answer = RecordedAnswer(_text(value["response"]), references)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{shown_path(path)}, line {number}: not an answer, which is an object with the "
                f"texts 'instruction' and 'response' ({type(error).__name__}: {error})."
            ) from None
        found.setdefault(asked, []).append(answer)
    if not found:
        raise UserError(f"{shown_path(path)} has no answers.")
    return found


def _of_predictions(path: Any) -> dict[Question, list[RecordedAnswer]]:
    found: dict[Question, list[RecordedAnswer]] = {}
    for item in evaluation.read_predictions(path):
        references = tuple(map(_text, item.references))
        answer = RecordedAnswer(_text(item.prediction), references)
        found.setdefault(question(item.input, ""), []).append(answer)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _json_lines(path: Any) -> Iterable[tuple[int, Any]]:
    text = files.read_given_text(path, "the file")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, strict_json.loads(line, path, number, lenient=True)


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
