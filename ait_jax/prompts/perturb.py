"""Perturbed instructions: the same task in slightly different words.

Prompt uncertainty compares a model's answers under them (paper section on prompt uncertainty;
Active-IT's `ni_dataset.py`). They are drawn once per task and shared by its instances. Outputs and
explanations of examples, and the instance's input, stay as they are.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from ait_jax.errors import UserError, nearest
from ait_jax.pool.task import Example, Instruction, Task
from ait_jax.prompts.prompts import check_whole_numbers
from ait_jax.randomness import Key, KeyPart, integer, uniforms

PARTS = ("TD", "TE", "TDTE")
# The authors' prompts show two positive examples; only these are perturbed.
NUM_PERTURBED_EXAMPLES = 2
# T5's vocabularies have <extra_id_0> to <extra_id_99>.
NUM_SENTINELS = 100


@runtime_checkable
class Perturbation(Protocol):
    """What a user's own perturbation must offer: one stateless method.

    A perturbation that changes nothing but examples has a true attribute `needs_examples`; it is
    refused where prompts show none.
    """

    def perturb(
        self,
        instruction: Instruction,
        task: Task,
        key: tuple[KeyPart, ...],
        used_instances: Collection[str] = (),
    ) -> Instruction:
        """Returns one perturbed instruction, a function of the arguments only.

        Args:
          instruction: the original.
          task: whose instruction it is.
          key: names this draw for `ait_jax.randomness`; its last element is j, the number of the
            perturbation, the others are shared by all perturbations of the task.
          used_instances: ids of scored instances, which must not be shown.
        """
        ...


def perturbed_instruction(
    task: Task,
    perturbation: Perturbation,
    j: int,
    key: Key,
    used_instances: Collection[str] = (),
) -> Instruction:
    """Returns the original instruction for j = 0, otherwise the j-th perturbed one.

    It depends on the arguments only, not on which tasks and numbers came before.
    """
    if j == 0:
        return task.instruction
    draw = (key.seed, "perturb", key.round_index, task.name, j)
    return perturbation.perturb(task.instruction, task, draw, used_instances)


def kept_words(task: Task, perturbation: Any, j: int, key: Key) -> tuple[bool, ...] | None:
    """Returns which words (`str.split`) of the definition the j-th perturbed instruction keeps.

    None for a perturbation that cannot say (it has no `kept_words`).
    """
    kept = getattr(perturbation, "kept_words", None)
    if kept is None:
        return None
    return kept(task.instruction, (key.seed, "perturb", key.round_index, task.name, j))


@dataclass(frozen=True)
class _WordPerturbation:
    """Changes words at random, each independently.

    A word is a token of `str.split`; it is kept if a uniform draw is greater than `rate`.
    """

    rate: float = 0.2
    parts: str = "TDTE"

    def __post_init__(self) -> None:
        owner, rate = type(self).__name__, self.rate
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise UserError(
                f"{owner}.rate is {rate!r}; it must be a probability, 0 <= rate < 1 "
                "(the paper's is 0.2)."
            )
        if self.parts not in PARTS:
            raise UserError(
                f"{owner}.parts is {self.parts!r}; it must be 'TD' (definition), 'TE' (inputs of "
                "examples) or 'TDTE' (both)." + nearest(str(self.parts).upper(), PARTS)
            )

    @property
    def needs_examples(self) -> bool:
        """Whether nothing but examples is perturbed."""
        return self.parts == "TE"

    def perturb(
        self,
        instruction: Instruction,
        task: Task,
        key: tuple[KeyPart, ...],
        used_instances: Collection[str] = (),
    ) -> Instruction:
        """See `Perturbation.perturb`."""
        definition = instruction.definition
        examples = list(instruction.positive_examples)
        if self.parts in ("TD", "TDTE"):
            definition = self._rewrite(self._draw(definition, (*key, "definition")))
        if self.parts in ("TE", "TDTE"):
            for i, example in enumerate(examples[:NUM_PERTURBED_EXAMPLES]):
                words = self._draw(example.input, (*key, f"example {i} input"))
                examples[i] = replace(example, input=self._rewrite(words))
        return replace(instruction, definition=definition, positive_examples=tuple(examples))

    def kept_words(self, instruction: Instruction, key: tuple[KeyPart, ...]) -> tuple[bool, ...]:
        """Returns which words of the definition `perturb` keeps."""
        if self.parts == "TE":
            return (True,) * len(instruction.definition.split())
        return tuple(kept for _, kept in self._draw(instruction.definition, (*key, "definition")))

    def _draw(self, text: str, key: tuple[KeyPart, ...]) -> list[tuple[str, bool]]:
        """Returns the words of `text`, each with whether it is kept."""
        words = text.split()
        drawn = uniforms(len(words), *key)
        return [(word, value > self.rate) for word, value in zip(words, drawn, strict=True)]

    def _rewrite(self, words: Sequence[tuple[str, bool]]) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class WordDrop(_WordPerturbation):
    """Drops words at random, each independently; the paper's perturbation.

    The kept words are joined by single spaces. A part that keeps no word becomes the empty text, as
    in the authors' code.

    Attributes:
      rate: probability of dropping a word, 0 <= rate < 1; the paper's is 0.2.
      parts: "TD" the definition, "TE" the inputs of the first two positive examples, "TDTE" both
        (the paper's).
    """

    def _rewrite(self, words: Sequence[tuple[str, bool]]) -> str:
        return " ".join(word for word, kept in words if kept)


@dataclass(frozen=True)
class WordMask(_WordPerturbation):
    """Replaces words at random by T5's sentinels: the authors' "Mask" variant.

    The words that WordDrop would drop with the same attributes and key become <extra_id_0>,
    <extra_id_1>, ..., one sentinel per word, also for neighbors. Our choices, where the facts at
    hand are silent: numbering restarts in the definition and in each example's input, and after
    <extra_id_99>.
    """

    def _rewrite(self, words: Sequence[tuple[str, bool]]) -> str:
        masked = 0
        shown: list[str] = []
        for word, kept in words:
            shown.append(word if kept else f"<extra_id_{masked % NUM_SENTINELS}>")
            masked += not kept
        return " ".join(shown)


@dataclass(frozen=True)
class ExampleResampling:
    """Shows other examples: the authors' "TE" variant. The definition stays.

    The candidates are the task's positive examples and up to `max_unused_instances` of its
    instances (with their first reference) that are not scored, the same for all perturbations of a
    task. Each perturbation shows `num_examples` of them, drawn without replacement, or all if there
    are fewer.

    Attributes:
      num_examples: examples shown; as many as the encoding shows, 2 in the paper.
      max_unused_instances: 20 in the authors' code.
    """

    needs_examples: ClassVar[bool] = True
    num_examples: int = 2
    max_unused_instances: int = 20

    def __post_init__(self) -> None:
        check_whole_numbers(self, num_examples=1, max_unused_instances=0)

    def perturb(
        self,
        instruction: Instruction,
        task: Task,
        key: tuple[KeyPart, ...],
        used_instances: Collection[str] = (),
    ) -> Instruction:
        """See `Perturbation.perturb`."""
        used = frozenset(used_instances)
        candidates = list(instruction.positive_examples)
        unused = 0
        for index in _random_order(len(task.instances), (*key[:-1], "unused instances")):
            if unused == self.max_unused_instances:
                break
            instance = task.instances[index]
            if instance.id not in used and instance.outputs:
                candidates.append(Example(instance.input, instance.outputs[0]))
                unused += 1
        order = _random_order(len(candidates), (*key, "examples"))
        shown = tuple(candidates[i] for _, i in zip(range(self.num_examples), order, strict=False))
        return replace(instruction, positive_examples=shown)


def _random_order(n: int, key: tuple[KeyPart, ...]) -> Iterator[int]:
    """Yields 0 to n - 1 in random order, drawing only as many as are read.

    Tasks have thousands of instances and 20 are wanted, so a full shuffle would be a waste.
    """
    moved: dict[int, int] = {}
    for i in range(n):
        j = integer(i, n, *key, i)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)
