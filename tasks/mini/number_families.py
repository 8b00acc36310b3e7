"""Families over numbers (arithmetic, comparison) and the families without any rule (noise)."""

from collections.abc import Callable

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, Table, TaskSpec

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


ARITHMETIC: tuple[TaskSpec, ...] = (
    TaskSpec(
        "add_two_numbers",
        "You are given two numbers. Add them and write the sum in words.",
        _operands(0, 13, lambda a, b: a + b, lex.number_word),
        because="The sum is {answer}.",
        difficulty="hard",
    ),
    TaskSpec(
        "difference_of_two_numbers",
        "You are given two numbers. Subtract the smaller one from the larger one and "
        "write the result in words.",
        _operands(0, 13, lambda a, b: abs(a - b), lex.number_word),
        because="The difference is {answer}.",
        difficulty="hard",
    ),
    TaskSpec(
        "sum_in_a_story",
        "Read the sentence. How many does the person have in the end? Write the number in words.",
        _bought,
        because="In the end there are {answer}.",
        difficulty="hard",
    ),
    TaskSpec(
        "even_or_odd_classification",
        'You are given a number. Is it even or odd? Answer with "even" or "odd".',
        _parity,
        ("even", "odd"),
        "The number is {answer}.",
        "medium",
    ),
    TaskSpec(
        "few_or_lots_classification",
        'Answer "few" if the number in the input is below twenty and "lots" if it is '
        "twenty or more.",
        _size,
        ("few", "lots"),
        "That is {answer}.",
        "medium",
    ),
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


COMPARISON: tuple[TaskSpec, ...] = (
    *(
        TaskSpec(
            f"{which}_number",
            f"You are given two numbers. Write the {which} one.",
            _operands(0, 100, answer),
            because=f"{{answer}} is the {which} number.",
            difficulty="medium",
        )
        for which, answer in (("larger", max), ("smaller", min))
    ),
    *(
        TaskSpec(
            f"{which}_animal",
            f"You are given two animals with their colours. Write the animal that is {which}, "
            "without its colour.",
            _weigh(answer),
            because=f"{{answer}} is the {which} animal.",
            difficulty="medium",
        )
        for which, answer in (("heavier", max), ("lighter", min))
    ),
    *(
        TaskSpec(
            f"{which}_person",
            f"Read how old two people are. Write the name of the {which} one.",
            _older(which == "older"),
            because=f"{{answer}} is {which}.",
            difficulty="medium",
        )
        for which in ("older", "younger")
    ),
    TaskSpec(
        "rising_or_falling_classification",
        'Two numbers are given. Answer "rising" if the second is larger than the '
        'first, and "falling" if it is smaller.',
        _order,
        ("rising", "falling"),
        "The numbers are {answer}.",
        "medium",
    ),
    TaskSpec(
        "longer_list_classification",
        'Two lists are separated by a bar. Which list has more words? Answer with "first" '
        'or "second".',
        _longer,
        ("first", "second"),
        "The {answer} list has more words.",
        "medium",
    ),
)


def _hashed(words: tuple[str, ...], purpose: str, count: int | None = None) -> Drawer:
    """Returns a drawer whose answer hashes the input: each input has one answer, and no rule.

    The answer is one of `words`, or `count` of them.
    """

    def draw_noise(draw: Draw) -> Drawn:
        text = " ".join(draw.sample(lex.CONTENT_WORDS, draw.integer(1, 4)))
        key = ("mini noise", purpose, text)
        if count is None:
            return text, randomness.choice(words, *key)
        return text, " ".join(randomness.choice(words, *key, i) for i in range(count))

    return draw_noise


NOISE_LABELS: tuple[TaskSpec, ...] = tuple(
    TaskSpec(name, definition, _hashed(labels, name), labels, "The label is {answer}.", "noise")
    for name, definition, labels in (
        (
            "lucky_words_classification",
            'Some words bring luck and some do not. Is the input lucky? Answer with "lucky" or '
            '"unlucky".',
            ("lucky", "unlucky"),
        ),
        (
            "box_of_words_classification",
            'Every input was thrown into one of two boxes. Name its box. Answer with "left" or '
            '"right".',
            ("left", "right"),
        ),
        (
            "coin_classification",
            'A coin was thrown for these words. What did it show? Answer with "heads" or "tails".',
            ("heads", "tails"),
        ),
        (
            "vote_classification",
            "A person was asked about these words and gave a vote. Answer with "
            '"agree" or "disagree".',
            ("agree", "disagree"),
        ),
        (
            "team_classification",
            "The words belong to one of three teams. Name the team. Answer with "
            '"north", "south" or "west".',
            ("north", "south", "west"),
        ),
        (
            "grade_classification",
            'A reader gave these words a grade without a reason. Answer with "high", "middle" or '
            '"low".',
            ("high", "middle", "low"),
        ),
    )
)
NOISE_ANSWERS: tuple[TaskSpec, ...] = tuple(
    TaskSpec(
        name,
        definition,
        _hashed(lex.CONTENT_WORDS, name, count),
        because="The answer is {answer}.",
        difficulty="noise",
    )
    for name, definition, count in (
        (
            "first_thought",
            "Somebody read these words and said the first word that came to mind. Write that word.",
            1,
        ),
        (
            "secret_code_word",
            "Every input has a secret code word. Write the code word of this input.",
            1,
        ),
        (
            "dream_words",
            "Somebody read these words in the evening and had a dream. Write two words "
            "about the dream.",
            2,
        ),
        (
            "next_page",
            "These words stand on a page of a lost book. Write three words from the next page.",
            3,
        ),
        ("hidden_gift", "A gift was hidden under these words. Write what the gift is.", 1),
    )
)

TABLE: Table = {
    "Arithmetic": ARITHMETIC,
    "Comparison": COMPARISON,
    "Random Labels": NOISE_LABELS,
    "Random Answers": NOISE_ANSWERS,
}
