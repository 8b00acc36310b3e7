"""How a row of the pool's table becomes a task in NIV2's schema.

A row (`TaskSpec`) holds the definition and a function that draws one pair of input
and answers; this module draws distinct instances from it and sets some aside as
positive and negative examples. Every draw is a function of (seed, task, number), so
the pool is the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ait_jax import randomness
from ait_jax.pool.pool import Example, Instance, Instruction, Task

Drawn = tuple[str, str | tuple[str, ...]]
DIFFICULTIES = ("trivial", "easy", "medium", "hard", "noise")
NUM_POSITIVE_EXAMPLES = 3


class Draw:
    """A numbered sequence of draws under one key: the n-th draw depends on the key and n only."""

    def __init__(self, *key: randomness.KeyPart) -> None:
        self._root = randomness.stable_hash(*key)
        self._count = 0

    def integer(self, low: int, high: int) -> int:
        """Returns an integer in [low, high)."""
        self._count += 1
        return randomness.integer(low, high, self._root, self._count)

    def pick(self, items):
        """Returns one of `items`."""
        return items[self.integer(0, len(items))]

    def chance(self, probability: float) -> bool:
        """Returns True with `probability`."""
        self._count += 1
        return randomness.uniform(self._root, self._count) < probability

    def sample(self, items: Sequence, count: int, without: Sequence = ()) -> list:
        """Returns `count` distinct items, none of them in `without`."""
        chosen: list = []
        for _ in range(1000 * count):
            item = self.pick(items)
            if item not in chosen and item not in without:
                chosen.append(item)
                if len(chosen) == count:
                    return chosen
        raise ValueError(f"cannot draw {count} distinct items from {len(items)}")

    def shuffled(self, items: Sequence) -> list:
        """Returns `items` in a random order."""
        self._count += 1
        return randomness.shuffled(items, self._root, self._count)


@dataclass(frozen=True)
class TaskSpec:
    """One row of the pool's table.

    Attributes:
      name: the task's name without its number.
      definition: what the model is told, 10 to 40 words.
      draw: draws one (input, answer or answers).
      labels: of a CLS task, all its answers, each named in the definition; empty for GEN.
      because: the explanation of an example; `{answer}` stands for its answer.
      difficulty: one of DIFFICULTIES, for a model of a few million parameters.
    """

    name: str
    definition: str
    draw: Callable[[Draw], Drawn]
    labels: tuple[str, ...] = ()
    because: str = "The answer to this input is {answer}."
    difficulty: str = "easy"

    @property
    def is_cls(self) -> bool:
        return bool(self.labels)


Table = Mapping[str, tuple[TaskSpec, ...]]


def labelled(**sources) -> Callable[[Draw], Drawn]:
    """Returns a drawer that picks a label, then an input from its words or its own drawer.

    A label that is no identifier is written with underscores for spaces.
    """
    table = {label.replace("_", " ").strip(): source for label, source in sources.items()}
    labels = tuple(table)

    def draw_labelled(draw: Draw) -> Drawn:
        label = draw.pick(labels)
        source = table[label]
        return (source(draw) if callable(source) else draw.pick(source)), label

    return draw_labelled


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
        f"mini task {spec.name!r} has only {len(drawn)} distinct inputs, {count} were asked for "
        "(instances_per_task of mini.load_pool)"
    )


def _spread_positions(drawn: Sequence[tuple[str, tuple[str, ...]]]) -> list[int]:
    """Returns positions of the positive examples: the first ones with different answers, if there are."""
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
    """Returns the task of a row: `num_instances` instances, three positive examples, one negative one.

    Raises:
      ValueError: the row cannot give that many distinct inputs.
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
