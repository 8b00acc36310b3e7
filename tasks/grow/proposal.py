"""A task as a generator proposes it, and the authors' filters of proposals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset

from ait_jax.runtime.strict_json import without_lone_surrogates

# Keys as models write them, in lower case, with underscores, without a final "s".
_INSTRUCTION_KEYS = ("instruction", "task", "task_description")
_INPUT_KEYS = ("input_field", "input")
_OUTPUT_KEYS = ("output_field", "output")
MAX_INSTRUCTION = 2000


@dataclass(frozen=True)
class Proposal:
    """An instruction over columns of a dataset.

    Attributes:
      dataset: the dataset's name.
      instruction: what to do, in words.
      input_fields: columns of the input.
      output_field: columns of the output; as in the authors' code, only the first is used.
      category: of the task, "" if the generator does not say.
      generator: "templates", "description-aware", "description-unaware" or "released".
      model: the model that wrote it, "" for templates.
      context: fixed text before every input (two released tasks have some).
    """

    dataset: str
    instruction: str
    input_fields: tuple[str, ...]
    output_field: tuple[str, ...]
    category: str = ""
    generator: str = ""
    model: str = ""
    context: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for proposals of the same task."""
        own = (self.instruction, self.input_fields, self.output_field, self.context)
        return (self.dataset, *own)


def proposal_from_json(data: Any, dataset: str, **provenance: str) -> Proposal | str:
    """Reads a dictionary as models write it; returns the proposal, or what is wrong with it.

    Keys may differ in case, in spaces, or be plural; a lone field name may stand for a list of
    one. `dataset` is its name, whatever `data` says; `provenance` the generator and the model.
    """
    if not isinstance(data, Mapping):
        return "not a dictionary"
    values = _by_plain_key(data)
    instruction = _first(values, _INSTRUCTION_KEYS)
    if not isinstance(instruction, str) or not instruction.strip():
        return "no instruction"
    if len(instruction) > MAX_INSTRUCTION:
        return f"instruction longer than {MAX_INSTRUCTION} characters"
    inputs, outputs = _names(_first(values, _INPUT_KEYS)), _names(_first(values, _OUTPUT_KEYS))
    if inputs is None or outputs is None:
        return "input or output fields are not a list of names"
    further = values.get("additional_input")
    context = ""
    if isinstance(further, Mapping):
        context = "".join(f"{key} is '{value}'. " for key, value in further.items())
    instruction = without_lone_surrogates(instruction.strip())
    context = without_lone_surrogates(context)
    return Proposal(dataset, instruction, inputs, outputs, context=context, **provenance)


def names_a_task(data: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has an instruction of its own."""
    return isinstance(_first(_by_plain_key(data), _INSTRUCTION_KEYS), str)


def _by_plain_key(data: Mapping[Any, Any]) -> dict[str, Any]:
    return {_plain_key(key): value for key, value in data.items() if isinstance(key, str)}


def _plain_key(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_").removesuffix("s")


def _first(values: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((values[key] for key in keys if key in values), None)


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = [value] if value.strip() else []
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(dict.fromkeys(without_lone_surrogates(item) for item in value))


class ProposalFilter:
    """The authors' filter_invalid_tasks.py and global deduplication; remembers what it saw.

    Args:
      per_answer: an instruction may occur once in an answer, as in the authors' code; else once for
        a dataset, whatever the style of the question.
    """

    def __init__(self, per_answer: bool = False) -> None:
        self._per_answer = per_answer
        self._seen: set[tuple[Any, ...]] = set()
        self._instructions: set[tuple[str, str, str]] = set()

    def rejection(self, proposal: Proposal, dataset: Dataset) -> str:
        """Returns why `proposal` is left out; returns "" and remembers it if it is not.

        Field names are checked if the fields of `dataset` are known. Without rows the
        configurations of a dataset cannot be told apart: proposals that differ only in the
        configuration are duplicates.
        """
        reason = _invalid(proposal, dataset)
        if reason:
            return reason
        if proposal.key in self._seen:
            return "duplicate: the very same task"
        own = proposal.key[1:]
        labels = tuple(f.labels for f in dataset.fields if f.name == proposal.output_field[0])
        family = ("of a family without rows", dataset.family, *own, labels)
        if dataset.family and not dataset.rows and family in self._seen:
            return "duplicate: in another configuration, no rows to tell them apart"
        if proposal.generator != "released":
            # A dataset is asked about once in each style.
            answer = proposal.generator if self._per_answer else ""
            named = (proposal.dataset, answer, proposal.instruction)
            if named in self._instructions:
                return "duplicate: instruction given before for this dataset"
            self._instructions.add(named)
        self._seen.update((proposal.key, family))
        return ""


def _invalid(proposal: Proposal, dataset: Dataset) -> str:
    if not proposal.output_field:
        return "output field: none"
    if not proposal.input_fields:
        return "input fields: none"
    known = set(dataset.field_names)
    if known and not known.issuperset((*proposal.input_fields, *proposal.output_field)):
        return "fields: not in the dataset"
    if set(proposal.input_fields) & set(proposal.output_field):
        return "fields: both input and output"
    return ""
