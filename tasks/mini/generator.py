"""From a row of the pool's table to a task in NIV2's schema.

A row (`TaskSpec`) holds the definition and a function that draws an input and its answers; this
module draws distinct instances from it and sets some aside as positive and negative examples.
Every draw is a function of (seed, task, number), so the pool is the same on every machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ait_jax import randomness
from ait_jax.errors import shown
from ait_jax.pool import Example, Instance, Instruction, Task

Drawn = tuple[str, str | tuple[str, ...]]
T = TypeVar("T")
DIFFICULTIES = ("trivial", "easy", "medium", "hard", "noise")
NUM_POSITIVE_EXAMPLES = 3


class Draw:
    """A numbered sequence of draws under one key: the n-th depends only on the key and n."""

    def __init__(self, *key: randomness.KeyPart) -> None:
        self._root = randomness.stable_hash(*key)
        self._count = 0

    def integer(self, low: int, high: int) -> int:
        """Returns an integer in [low, high)."""
        self._count += 1
        return randomness.integer(low, high, self._root, self._count)

    def pick(self, items: Sequence[T]) -> T:
        """Returns one of `items`."""
        return items[self.integer(0, len(items))]

    def chance(self, probability: float) -> bool:
        """Returns True with `probability`."""
        self._count += 1
        return randomness.uniform(self._root, self._count) < probability

    def sample(self, items: Sequence[T], count: int, without: Sequence[T] = ()) -> list[T]:
        """Returns `count` distinct items, none of them in `without`."""
        chosen: list[T] = []
        for _ in range(1000 * count):
            item = self.pick(items)
            if item not in chosen and item not in without:
                chosen.append(item)
                if len(chosen) == count:
                    return chosen
        raise ValueError(f"cannot draw {count} distinct items from {len(items)}")

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Returns `items` in a random order."""
        self._count += 1
        return randomness.shuffled(items, self._root, self._count)


Drawer = Callable[[Draw], Drawn]
TextDrawer = Callable[[Draw], str]


@dataclass(frozen=True)
class TaskSpec:
    """One row of the pool's table.

    Attributes:
      name: the task's name without its number.
      definition: the instruction, 10 to 40 words.
      draw: draws an input and its answer or answers.
      labels: all answers of a CLS task, each named in the definition; empty for GEN.
      because: the explanation of an example; `{answer}` stands for its answer.
      difficulty: one of DIFFICULTIES, for a model of a few million parameters.
      split: "remain", "dev" or "test".
    """

    name: str
    definition: str
    draw: Drawer
    labels: Sequence[str] = ()
    because: str = "The answer to this input is {answer}."
    difficulty: str = "easy"
    split: str = "remain"

    @property
    def is_cls(self) -> bool:
        """Whether it is a classification task."""
        return bool(self.labels)


def labelled(**inputs: Sequence[str] | TextDrawer) -> Drawer:
    """Returns what draws a label, then an input for it.

    Args:
      **inputs: label, with underscores for spaces and after keywords -> its words, or what draws
        its input.
    """
    table = {label.replace("_", " ").strip(): source for label, source in inputs.items()}

    def draw_labelled(draw: Draw) -> Drawn:
        label = draw.pick(tuple(table))
        source = table[label]
        return (source(draw) if callable(source) else draw.pick(source)), label

    return draw_labelled


def filled(frame: str, *slots: Sequence[str]) -> TextDrawer:
    """Returns what draws a word for each slot of a frame and fills them in."""
    return lambda draw: frame.format(*map(draw.pick, slots))


def _answers(answer: str | tuple[str, ...]) -> tuple[str, ...]:
    return (answer,) if isinstance(answer, str) else tuple(dict.fromkeys(answer))


def _distinct_draws(spec: TaskSpec, count: int, seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """Returns `count` (input, answers) with distinct inputs."""
    drawn: dict[str, tuple[str, ...]] = {}
    for attempt in range(60 * count):
        text, answer = spec.draw(Draw("mini", seed, spec.name, attempt))
        drawn.setdefault(text, _answers(answer))
        if len(drawn) == count:
            return list(drawn.items())
    raise ValueError(
        f"mini task {shown(spec.name)} has only {len(drawn)} distinct inputs, not {count}; lower "
        "mini.load_pool.instances_per_task"
    )


def _spread_positions(drawn: Sequence[tuple[str, tuple[str, ...]]]) -> list[int]:
    """Returns positions of the positive examples: if possible, the first with distinct answers."""
    positions: list[int] = []
    for position, (_, answers) in enumerate(drawn):
        if answers[0] not in [drawn[p][1][0] for p in positions]:
            positions.append(position)
        if len(positions) == NUM_POSITIVE_EXAMPLES:
            return positions
    rest = [position for position in range(len(drawn)) if position not in positions]
    return positions + rest[: NUM_POSITIVE_EXAMPLES - len(positions)]


def _negative_example(spec: TaskSpec, drawn: Sequence[tuple[str, tuple[str, ...]]]) -> Example:
    """Returns the first drawn input with a wrong answer."""
    text, answers = drawn[0]
    candidates = list(spec.labels) + [other[0] for _, other in drawn[1:]] + ["no answer"]
    wrong = next(candidate for candidate in candidates if candidate not in answers)
    return Example(text, wrong, f"This is wrong. The answer should be {answers[0]}.")


def build_task(spec: TaskSpec, number: int, family: str, num_instances: int, seed: int) -> Task:
    """Returns the task of a row: instances, three positive examples, one negative example.

    Raises:
      ValueError: the row does not have that many distinct inputs.
    """
    drawn = _distinct_draws(spec, num_instances + NUM_POSITIVE_EXAMPLES + 1, seed)
    negative, rest = drawn[:1], drawn[1:]
    positions = _spread_positions(rest[: 40 + NUM_POSITIVE_EXAMPLES])
    positives = [rest[position] for position in positions]
    instances = [pair for position, pair in enumerate(rest) if position not in positions]
    name = f"mini{number:03d}_{spec.name}"
    instruction = Instruction(
        definition=spec.definition,
        positive_examples=tuple(
            Example(text, answers[0], spec.because.format(answer=answers[0]))
            for text, answers in positives
        ),
        negative_examples=(_negative_example(spec, negative + rest),),
    )
    return Task(
        name=name,
        instruction=instruction,
        instances=tuple(
            Instance(f"{name}-{number:04d}", text, answers)
            for number, (text, answers) in enumerate(instances)
        ),
        categories=(family,),
        metadata={
            "Contributors": ("ait_jax",),
            "Source": ("synthetic",),
            "URL": (),
            "Reasoning": (f"Difficulty -> {spec.difficulty}",),
            "Domains": ("Synthetic",),
            "Instance License": ("Apache 2.0",),
        },
    )
