"""Families over numbers (arithmetic, comparison) and the families without any rule (noise)."""

from collections.abc import Callable, Sequence

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn

from ait_jax import randomness


def _operands(
    low: int, high: int, answer: Callable[[int, int], int], write: Callable[[int], str] = str
) -> Drawer:
    """Returns a drawer of two numbers and of `answer(first, second)`."""

    def draw_operands(draw: Draw) -> Drawn:
        first, second = draw.sample(range(low, high), 2)
        return f"{write(first)} and {write(second)}", write(answer(first, second))

    return draw_operands


def _bought(draw: Draw) -> Drawn:
    person = draw.pick(lex.NAMES)
    first, second = draw.integer(2, 8), draw.integer(2, 8)
    fruit = lex.plural(draw.pick(lex.FRUITS))
    return (
        f"{person} had {lex.number_word(first)} {fruit} and got {lex.number_word(second)} more.",
        lex.number_word(first + second),
    )


def _parity(draw: Draw) -> Drawn:
    number = draw.integer(0, 400)
    return str(number), "even" if number % 2 == 0 else "odd"


def _size(draw: Draw) -> Drawn:
    number = draw.integer(0, 20) if draw.chance(0.5) else draw.integer(20, 100)
    return (
        f"{lex.number_word(number)} {lex.plural(draw.pick(lex.FRUITS))}",
        "few" if number < 20 else "lots",
    )


def _weigh(answer: Callable[[int, int], int]) -> Drawer:
    def draw_animals(draw: Draw) -> Drawn:
        first, second = draw.sample(range(len(lex.BY_WEIGHT)), 2)
        animals = [f"{draw.pick(lex.COLOURS)} {lex.BY_WEIGHT[i]}" for i in (first, second)]
        return " or ".join(animals), lex.BY_WEIGHT[answer(first, second)]

    return draw_animals


def _older(oldest: bool) -> Drawer:
    def draw_people(draw: Draw) -> Drawn:
        people, ages = draw.sample(lex.NAMES, 2), draw.sample(range(20, 90), 2)
        first = (ages[0] > ages[1]) == oldest
        text = f"{people[0]} is {ages[0]} years old and {people[1]} is {ages[1]} years old."
        return text, people[0] if first else people[1]

    return draw_people


def _order(draw: Draw) -> Drawn:
    first, second = draw.sample(range(100), 2)
    return f"{first} {second}", "rising" if first < second else "falling"


def _longer(draw: Draw) -> Drawn:
    lengths = draw.sample((1, 2, 3, 5), 2)
    lists = [" ".join(draw.sample(lex.CONTENT_WORDS, length)) for length in lengths]
    return " | ".join(lists), "first" if lengths[0] > lengths[1] else "second"


def noise(purpose: str, labels: Sequence[str], count: int) -> Drawer:
    """Returns a drawer whose answer hashes the input: each input has one answer, and no rule.

    The answer is one of `labels`, or `count` words if there are none.
    """

    def draw_noise(draw: Draw) -> Drawn:
        text = " ".join(draw.sample(lex.CONTENT_WORDS, draw.integer(1, 4)))
        key = ("mini noise", purpose, text)
        if labels:
            return text, randomness.choice(labels, *key)
        words = (randomness.choice(lex.CONTENT_WORDS, *key, i) for i in range(count))
        return text, " ".join(words)

    return draw_noise


DRAWERS: dict[str, Drawer] = {
    "add_two_numbers": _operands(0, 13, lambda a, b: a + b, lex.number_word),
    "difference_of_two_numbers": _operands(0, 13, lambda a, b: abs(a - b), lex.number_word),
    "sum_in_a_story": _bought,
    "even_or_odd_classification": _parity,
    "few_or_lots_classification": _size,
    "larger_number": _operands(0, 100, max),
    "smaller_number": _operands(0, 100, min),
    "heavier_animal": _weigh(max),
    "lighter_animal": _weigh(min),
    "older_person": _older(True),
    "younger_person": _older(False),
    "rising_or_falling_classification": _order,
    "longer_list_classification": _longer,
}
