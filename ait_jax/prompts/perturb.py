"""Perturbed instructions: the same task in slightly different words.

Prompt uncertainty compares a model's answers under them (paper section on prompt uncertainty;
Active-IT's `ni_dataset.py`). They are drawn once per task and shared by its instances. Outputs and
explanations of examples, and the instance's input, stay as they are.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool import TaskPool
from ait_jax.pool.cls_gen import is_classification
from ait_jax.pool.task import Example, Instruction, Task
from ait_jax.prompts.prompts import check_whole_numbers
from ait_jax.randomness import Key, KeyPart, integer, uniforms

PARTS = ("TD", "EXAMPLES", "TDTE")
# The authors' prompts show two positive examples; only these are perturbed.
NUM_PERTURBED_EXAMPLES = 2
# What the authors' code takes for a rate and reads as a mix of rates (`WordDropMix`).
MIXES = (1, 2, 3)
# T5's vocabularies have <extra_id_0> to <extra_id_99>.
NUM_SENTINELS = 100


@runtime_checkable
class Perturbation(Protocol):
    """What a user's own perturbation must offer: one stateless method.

    A perturbation that changes nothing but examples has a true attribute `needs_examples`; it is
    refused where prompts show none. One that is also made for j = 0, so that p_i0 is not that of
    the original instruction, has a true `changes_original`; answers are decoded under the original
    all the same. One that differs between CLS and GEN has `of_group(is_cls)`, which returns a
    group's. One with a `dropout_rate` has its prompts scored under dropout (`MCDropout`).
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
    """Returns the j-th perturbed instruction; for j = 0 mostly the original one.

    It depends on the arguments only, not on which tasks and numbers came before.

    Args:
      perturbation: of the task's group (`for_task`).
    """
    if j == 0 and not changes_original(perturbation):
        return task.instruction
    draw = (key.seed, "perturb", key.round_index, task.name, j)
    return perturbation.perturb(task.instruction, task, draw, used_instances)


def changes_original(perturbation: Any) -> bool:
    """Returns whether prompt 0 is scored with an instruction, or a model, of its own."""
    return bool(getattr(perturbation, "changes_original", False))


def for_task(perturbation: Any, pool: TaskPool, name: str) -> Any:
    """Returns the perturbation of a task, where CLS and GEN have different ones."""
    of_group = getattr(perturbation, "of_group", None)
    return perturbation if of_group is None else of_group(pool.is_cls(name))


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
        if rate in MIXES and not isinstance(rate, bool):
            raise UserError(
                f"{owner}.rate is {rate}, which the authors' code takes for a mix of rates: add "
                f"--gin_file=perturbations/word_drop_mix.gin --gin.DROP_RATE_MIX={rate:.0f}, or "
                "give a probability, 0 <= rate < 1 (the paper's is 0.2)."
            )
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise UserError(
                f"{owner}.rate is {shown(rate)}; it must be a probability, 0 <= rate < 1 "
                "(the paper's is 0.2)."
            )
        check_parts(owner, self.parts)

    @property
    def needs_examples(self) -> bool:
        """Whether nothing but examples is perturbed."""
        return self.parts == "EXAMPLES"

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
        if self.parts in ("EXAMPLES", "TDTE"):
            for i, example in enumerate(examples[:NUM_PERTURBED_EXAMPLES]):
                words = self._draw(example.input, (*key, f"example {i} input"))
                examples[i] = replace(example, input=self._rewrite(words))
        return replace(instruction, definition=definition, positive_examples=tuple(examples))

    def kept_words(self, instruction: Instruction, key: tuple[KeyPart, ...]) -> tuple[bool, ...]:
        """Returns which words of the definition `perturb` keeps."""
        if self.parts == "EXAMPLES":
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
      parts: "TD" the definition, "EXAMPLES" the inputs of the first two positive examples, "TDTE"
        both (the paper's). The authors' "TE" is `ExampleResampling`.
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
class WordDropMix:
    """The authors' mixed drop rates, which their code selects by a "rate" of 1, 2 or 3.

    Attributes:
      mix: 1 drops with probability 0.1 in the first ten perturbed instructions, 0.2 in the next
        ten, and so on up to 0.9; 2 is 0.1; 3 is 0.2, and in CLS tasks only in the definition.
      parts: as of `WordDrop`.
    """

    mix: int = 3
    parts: str = "TDTE"

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.mix not in MIXES or type(self.mix) is not int:
            raise UserError(f"{owner}.mix is {shown(self.mix)} (DROP_RATE_MIX); give 1, 2 or 3.")
        check_parts(owner, self.parts)

    @property
    def needs_examples(self) -> bool:
        """Whether nothing but examples is perturbed."""
        return self.parts == "EXAMPLES"

    def of_group(self, is_cls: bool) -> "WordDropMix | WordDrop":
        """Returns what CLS or GEN tasks get."""
        if self.mix != 3:
            return self
        return WordDrop(0.2, "TD" if is_cls and self.parts == "TDTE" else self.parts)

    def perturb(
        self,
        instruction: Instruction,
        task: Task,
        key: tuple[KeyPart, ...],
        used_instances: Collection[str] = (),
    ) -> Instruction:
        """See `Perturbation.perturb`."""
        if self.mix == 3:  # nobody said whether the task is CLS
            return self.of_group(is_classification(task)).perturb(instruction, task, key)
        return self._drop(key).perturb(instruction, task, key)

    def kept_words(self, instruction: Instruction, key: tuple[KeyPart, ...]) -> tuple[bool, ...]:
        """Returns which words of the definition `perturb` keeps."""
        return self._drop(key).kept_words(instruction, key)

    def _drop(self, key: tuple[KeyPart, ...]) -> WordDrop:
        rates = {1: min((int(key[-1]) - 1) // 10 + 1, 9) * 0.1, 2: 0.1, 3: 0.2}
        return WordDrop(rates[self.mix], self.parts)


@dataclass(frozen=True)
class MCDropout:
    """Changes no word: every prompt is the original one, scored under dropout.

    Monte Carlo dropout (arXiv 1506.02142), the authors' "MC" variant: prompt uncertainty is how
    much p_i varies with what is dropped. As in their code, prompt 0 is scored under dropout, too,
    answers are decoded without it, and it is the dropout layers that drop: attention's weights
    stay. What is dropped depends on the seed, the round, the task, the instance and j alone.

    Attributes:
      dropout_rate: the share that is set to 0, 0 < rate < 1; a T5 is trained with 0.1.
    """

    changes_original: ClassVar[bool] = True
    dropout_rate: float = 0.1

    def __post_init__(self) -> None:
        rate = self.dropout_rate
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
            raise UserError(
                f"{type(self).__name__}.dropout_rate is {shown(rate)}; it must be a probability, "
                "0 < rate < 1 (0.1, for example)."
            )

    def perturb(
        self,
        instruction: Instruction,
        task: Task,
        key: tuple[KeyPart, ...],
        used_instances: Collection[str] = (),
    ) -> Instruction:
        """Returns the instruction as it is."""
        return instruction


@dataclass(frozen=True)
class ExampleResampling:
    """Shows other examples: the authors' "TE" variant (and "ALL"). The definition stays.

    The candidates are the task's positive examples and up to `max_unused_instances` of its
    instances (with their first reference) that are not scored, the same for all perturbations of a
    task. Each perturbation shows `num_examples` of them, drawn without replacement, or all if there
    are fewer. So does prompt 0: p_i0 is the likelihood, under other examples, of the answer that
    was decoded under the task's own.

    Attributes:
      num_examples: examples shown; as many as the encoding shows, 2 in the paper.
      max_unused_instances: 20 in the authors' code.
    """

    needs_examples: ClassVar[bool] = True
    changes_original: ClassVar[bool] = True
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


def check_parts(owner: str, parts: str) -> None:
    """Refuses what is not one of PARTS."""
    if parts == "TE":
        raise UserError(
            f"{owner}.parts is 'TE', the authors' name for other examples: add "
            "--gin_file=perturbations/example_resampling.gin. 'EXAMPLES' changes words in the "
            "inputs of the examples (PERTURBED_PARTS)."
        )
    if parts not in PARTS:
        raise UserError(
            f"{owner}.parts is {shown(parts)}; it must be 'TD' (definition), 'EXAMPLES' (inputs of "
            "examples) or 'TDTE' (both)." + nearest(str(parts).upper(), PARTS)
        )


def _random_order(n: int, key: tuple[KeyPart, ...]) -> Iterator[int]:
    """Yields 0 to n - 1 in random order, drawing only as many as are read.

    Tasks have thousands of instances and 20 are wanted, so a full shuffle would be a waste.
    """
    moved: dict[int, int] = {}
    for i in range(n):
        j = integer(i, n, *key, i)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)
