"""Prompts: an instruction and an instance's input -> the text the model reads.

The two encodings, Tk-Instruct's (`ni_collator.py` of Tk-Instruct and of Active-IT) and Alpaca's,
are exact to the character, because published checkpoints and numbers depend on them.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool.task import Example, Instruction


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A model input.

    Attributes:
      text: what the model reads.
      tokens: `count_tokens(text)`. After a cut it may be max_source_length + 1: the cut keeps
        max_source_length pieces, and counting adds the end of sequence. Token arrays are cut at
        max_source_length, as by the authors' tokenizer call.
      tokens_cut: tokens of the whole text beyond max_source_length, lost from its end.
      positive_examples, negative_examples: how many it shows.
      examples_left_out: available examples that were asked for but did not fit.
    """

    text: str
    tokens: int
    tokens_cut: int
    positive_examples: int = 0
    negative_examples: int = 0
    examples_left_out: int = 0


@runtime_checkable
class Encoding(Protocol):
    """What makes prompts; encodings are frozen dataclasses, so that they can be compared."""

    @property
    def max_source_length(self) -> int:
        """Tokens of a prompt, end of sequence included."""
        ...

    @property
    def shows_examples(self) -> bool:
        """Whether prompts show a task's examples; if not, perturbing these changes nothing."""
        ...

    def encode(
        self,
        instruction: Instruction,
        instance_input: str,
        count_tokens: Callable[[str], int],
        truncate: Callable[[str, int], str],
        task_name: str = "",
    ) -> Prompt:
        """Makes the prompt for one input.

        Args:
          instruction: definition and examples, perturbed or not.
          instance_input: any string.
          count_tokens: tokens of a text, end of sequence included (`Vocabulary.count_tokens`).
          truncate: (text, n) -> the text of its first n tokens (decode of encode, cut at n).
          task_name: for encodings that show it.
        """
        ...


def check_whole_numbers(owner: object, **least: int) -> None:
    """Raises UserError unless attributes of `owner` are whole numbers, at least these."""
    for name, lowest in least.items():
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise UserError(
                f"{type(owner).__name__}.{name} is {shown(value)}; "
                f"it must be a whole number, {lowest} or more."
            )


@dataclass(frozen=True)
class TkInstructEncoding:
    """Tk-Instruct's encoding; the defaults are the paper's, definition and 2 positive examples.

    Attributes:
      num_positive_examples: shown if they fit and the task has as many.
      num_negative_examples: likewise, after the positive ones.
      add_task_name: begin with the task's name.
      add_task_definition: begin with the definition.
      add_explanation: show the examples' explanations; as in the reference, an empty one still gets
        its line.
      max_source_length: tokens, end of sequence included.
    """

    num_positive_examples: int = 2
    num_negative_examples: int = 0
    add_task_name: bool = False
    add_task_definition: bool = True
    add_explanation: bool = False
    max_source_length: int = 1024

    def __post_init__(self) -> None:
        check_whole_numbers(
            self, num_positive_examples=0, num_negative_examples=0, max_source_length=1
        )

    @property
    def shows_examples(self) -> bool:
        """See `Encoding`."""
        return self.num_positive_examples + self.num_negative_examples > 0

    def encode(
        self,
        instruction: Instruction,
        instance_input: str,
        count_tokens: Callable[[str], int],
        truncate: Callable[[str, int], str],
        task_name: str = "",
    ) -> Prompt:
        """Makes the prompt for one input.

        An example is shown only if the text so far, with it and the input, is within
        max_source_length; after the first that is not, no more of its kind are tried. Like the
        reference, this tests a text that differs slightly from the final one (no task name,
        examples joined by spaces). Each test counts one candidate text in full: sums of the parts'
        counts would be cheaper, but equal only for some vocabularies. Arguments: see
        `Encoding.encode`; the name is used if `add_task_name`.
        """
        task_input = (
            _ended(f"Now complete the following example -\nInput: {instance_input.strip()}")
            + "\nOutput: "
        )
        definition = ""
        if self.add_task_definition:
            definition = _ended(f"Definition: {instruction.definition.strip()}") + "\n\n"
        name = f"{task_name}. " if self.add_task_name else ""

        def fits(before: str, example: str) -> bool:
            return count_tokens(before + example + task_input) <= self.max_source_length

        wanted_positive = instruction.positive_examples[: self.num_positive_examples]
        wanted_negative = instruction.negative_examples[: self.num_negative_examples]
        positive = self._fitting(wanted_positive, "Positive", definition, fits)
        negative = self._fitting(wanted_negative, "Negative", definition + " ".join(positive), fits)
        text = name + definition + "".join(positive) + "".join(negative) + task_input
        shown, wanted = len(positive) + len(negative), len(wanted_positive) + len(wanted_negative)
        return replace(
            _cut(text, self.max_source_length, count_tokens, truncate),
            positive_examples=len(positive),
            negative_examples=len(negative),
            examples_left_out=wanted - shown,
        )

    def _fitting(
        self, examples: Sequence[Example], kind: str, before: str, fits: Callable[[str, str], bool]
    ) -> list[str]:
        """Returns the texts of the examples up to the first that does not fit."""
        chosen: list[str] = []
        for number, example in enumerate(examples, start=1):
            text = self._example_text(example, kind, number)
            if not fits(before + " ".join(chosen), text):
                break
            chosen.append(text)
        return chosen

    def _example_text(self, example: Example, kind: str, number: int) -> str:
        lines = [
            _ended(f"Input: {example.input.strip()}"),
            _ended(f" Output: {example.output.strip()}"),
        ]
        if self.add_explanation:
            lines.append(_ended(f" Explanation: {example.explanation.strip()}"))
        return f" {kind} Example {number} -\n" + "".join(f"{line}\n" for line in lines) + "\n"


# What Tk-Instruct's collator draws from with `tk_instruct`: definition; examples; both; these and
# negative examples; both with explanations.
_MIXTURE = (
    TkInstructEncoding(num_positive_examples=0),
    TkInstructEncoding(add_task_definition=False),
    TkInstructEncoding(),
    TkInstructEncoding(num_negative_examples=2),
    TkInstructEncoding(add_explanation=True),
)


@dataclass(frozen=True)
class TkInstructMixture:
    """Tk-Instruct's five encodings, one drawn for every training instance (its `tk_instruct`).

    Models trained so follow instructions with and without examples. Scored and evaluated prompts
    have the default encoding, definition and two positive examples.

    Attributes:
      max_source_length: tokens, end of sequence included.
    """

    max_source_length: int = 1024

    def __post_init__(self) -> None:
        check_whole_numbers(self, max_source_length=1)

    @property
    def shows_examples(self) -> bool:
        """See `Encoding`."""
        return True

    def drawn(self, *key: str | int) -> TkInstructEncoding:
        """Returns the encoding of a training instance, a function of `key` alone."""
        drawn = randomness.choice(_MIXTURE, *key)
        return replace(drawn, max_source_length=self.max_source_length)

    def encode(
        self,
        instruction: Instruction,
        instance_input: str,
        count_tokens: Callable[[str], int],
        truncate: Callable[[str, int], str],
        task_name: str = "",
    ) -> Prompt:
        """See `Encoding.encode`."""
        default = TkInstructEncoding(max_source_length=self.max_source_length)
        return default.encode(instruction, instance_input, count_tokens, truncate, task_name)


@dataclass(frozen=True)
class AlpacaEncoding:
    """Alpaca's template (stanford_alpaca `train.py`), with and without an input; no examples.

    An input of only white space counts as none. The text is not stripped. What is too long loses
    its end, as in Alpaca.

    Attributes:
      max_source_length: tokens, end of sequence included; Alpaca's 512 were for prompt and answer
        together.
    """

    max_source_length: int = 512

    def __post_init__(self) -> None:
        check_whole_numbers(self, max_source_length=1)

    @property
    def shows_examples(self) -> bool:
        """See `Encoding`."""
        return False

    def encode(
        self,
        instruction: Instruction,
        instance_input: str,
        count_tokens: Callable[[str], int],
        truncate: Callable[[str, int], str],
        task_name: str = "",
    ) -> Prompt:
        """See `Encoding.encode`; the template has no place for the task's name."""
        template = _ALPACA_WITH_INPUT if instance_input.strip() else _ALPACA_WITHOUT_INPUT
        text = template.format(instruction=instruction.definition, input=instance_input)
        return _cut(text, self.max_source_length, count_tokens, truncate)


_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)


# Self-Instruct's forms of a prompt (`encode_instance`), as what stands before the instruction,
# between it and the input, and at the end; and the same without an input.
_WITH_INPUT = (
    ("", "\nInput: ", "\nOutput:"),
    ("", "\n\nInput: ", "\n\nOutput:"),
    ("Task: ", "\nInput: ", "\nOutput:"),
    ("", "\n\n", "\n\nOutput:"),
    ("", "\n\n", "\n\n"),
    ("", "\n", "\n\n"),
    ("Task: ", "\n\n", "\n\n"),
)
_WITHOUT_INPUT = (
    ("", " Output:"),
    ("", "\nOutput:"),
    ("", "\n\nOutput:"),
    ("", "\n"),
    ("", "\n\n"),
    ("Task: ", "\n\n"),
)


@dataclass(frozen=True)
class SelfInstructMixture:
    """Self-Instruct's 13 forms, one drawn for every training instance; no examples.

    Seven are for instances with an input, six for those without. Scored and evaluated prompts have
    the form of its code without a draw: instruction and input with a blank line after each.

    Attributes:
      max_source_length: tokens, end of sequence included.
      form: (of those with an input, of those without), or None for the form without a draw.
    """

    max_source_length: int = 1024
    form: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, max_source_length=1)

    @property
    def shows_examples(self) -> bool:
        """See `Encoding`."""
        return False

    def drawn(self, *key: str | int) -> "SelfInstructMixture":
        """Returns the encoding of a training instance, a function of `key` alone."""
        first = randomness.choice(range(len(_WITH_INPUT)), *key, "with input")
        other = randomness.choice(range(len(_WITHOUT_INPUT)), *key, "without")
        return replace(self, form=(first, other))

    def encode(
        self,
        instruction: Instruction,
        instance_input: str,
        count_tokens: Callable[[str], int],
        truncate: Callable[[str, int], str],
        task_name: str = "",
    ) -> Prompt:
        """See `Encoding.encode`; no form has a place for the task's name."""
        said, given = instruction.definition.strip(), instance_input.strip()
        if self.form is None:
            text = f"{said}\n\n{given}\n\n"
        elif given:
            before, between, end = _WITH_INPUT[self.form[0]]
            text = f"{before}{said}{between}{given}{end}"
        else:
            before, end = _WITHOUT_INPUT[self.form[1]]
            text = f"{before}{said}{end}"
        return _cut(text, self.max_source_length, count_tokens, truncate)


def _cut(
    text: str,
    max_source_length: int,
    count_tokens: Callable[[str], int],
    truncate: Callable[[str, int], str],
) -> Prompt:
    """Returns the prompt of a text, cut at its end if it is too long."""
    tokens = count_tokens(text)
    tokens_cut = max(0, tokens - max_source_length)
    if tokens_cut:
        text = truncate(text, max_source_length)
        tokens = count_tokens(text)
    return Prompt(text=text, tokens=tokens, tokens_cut=tokens_cut)


def _ended(text: str) -> str:
    """Adds a period unless `text`, never empty, ends with ASCII punctuation.

    After an empty field the last character is the space before it, so that a period follows there
    too, as in the reference.
    """
    return text if text[-1] in string.punctuation else text + "."
