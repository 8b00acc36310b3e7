"""Supervised families without shown pairs: retrieval, copying, editing, facts; one layout each."""

import itertools
from collections.abc import Callable

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw

Pair = tuple[str, str]


def _words(draw: Draw, low: int, high: int) -> list[str]:
    return draw.sample(lex.CONTENT_WORDS, draw.integer(low, high))


def residence_question(draw: Draw) -> Pair:
    """Who lives where, has which job or age: one fact of one of three people."""
    people = draw.sample(lex.NAMES, 3)
    choices, sentence, question = draw.pick(
        (
            (lex.CITIES, "{} lives in {}.", "where does {} live?"),
            (lex.JOBS, "{} works as {}.", "what is the job of {}?"),
            (lex.UNITS[2:], "{} is {} years old.", "how old is {}?"),
            (lex.DRINKS, "{} likes {}.", "what does {} like?"),
        )
    )
    values = draw.sample(choices, 3)
    asked = draw.integer(0, 3)
    context = " ".join(sentence.format(*pair) for pair in zip(people, values, strict=True))
    if draw.chance(0.4):
        return f"question: which person has {values[asked]}? context: {context}", people[asked]
    return f"question: {question.format(people[asked])} context: {context}", values[asked]


def speaker(draw: Draw) -> Pair:
    """Who said a line of a dialogue."""
    people, words = draw.sample(lex.NAMES, 3), draw.sample(lex.CONTENT_WORDS, 3)
    lines = " / ".join(f"{person} : {word} !" for person, word in zip(people, words, strict=True))
    asked = draw.integer(0, 3)
    return f"speaker of {words[asked]} ? {lines}", people[asked]


def bracket_copy(draw: Draw) -> Pair:
    """The words inside brackets."""
    words = _words(draw, 4, 9)
    start = draw.integer(0, len(words) - 1)
    stop = draw.integer(start + 1, min(len(words), start + 4) + 1)
    marked = [*words[:start], "[", *words[start:stop], "]", *words[stop:]]
    return "copy: " + " ".join(marked), " ".join(words[start:stop])


def skip_copy(draw: Draw) -> Pair:
    """All words but a struck one."""
    words = _words(draw, 3, 8)
    struck = draw.pick(words)
    kept = [word for word in words if word != struck]
    return f"without {struck} : {' '.join(words)}", " ".join(kept)


def option(draw: Draw) -> Pair:
    """Which of the listed options the text names."""
    options = draw.sample(
        draw.pick((lex.COLOURS, lex.ANIMALS, lex.CITIES, lex.NAMES, lex.UNITS)), draw.integer(2, 5)
    )
    answer = draw.pick(options)
    text = draw.pick(
        ("I thought of {} all day", "the note said {} twice", "some prefer {}", "{} it is then")
    )
    return f"choose: {' or '.join(options)} . {text.format(answer)}", answer


def class_option(draw: Draw) -> Pair:
    """Which of three listed class names fits a word."""
    kinds = draw.sample(tuple(lex.CLASSES), 3)
    answer = draw.pick(kinds)
    return f"choose: {' / '.join(kinds)} . {draw.pick(lex.CLASSES[answer])}", answer


def class_member(draw: Draw) -> Pair:
    """Which of the listed words belongs to a class; the pool asks this of other classes."""
    kind = draw.pick(
        ("fruit", "vegetable", "tool", "furniture", "body part", "instrument", "sport", "drink")
    )
    others = draw.sample([other for other in lex.CLASSES if other != kind], 2)
    word = draw.pick(lex.CLASSES[kind])
    listed = draw.shuffled([word, *(draw.pick(lex.CLASSES[other]) for other in others)])
    return f"find the {kind} : {' , '.join(listed)}", word


def cloze(draw: Draw) -> Pair:
    """A fact with a hole."""
    country, capital = draw.pick(lex.CAPITALS)
    kind = draw.pick(
        ("animal", "plant", "vehicle", "tool", "fruit", "vegetable", "colour", "sport")
    )
    day = draw.integer(0, 6)
    number = draw.integer(1, 40)
    return draw.pick(
        (
            (f"cloze: {capital} is the capital of ___", country),
            (f"cloze: {draw.pick(lex.CLASSES[kind])} is a kind of ___", kind),
            (f"cloze: after {lex.DAYS[day]} comes ___", lex.DAYS[day + 1]),
            (f"cloze: {lex.number_word(number)} is one more than ___", lex.number_word(number - 1)),
        )
    )


def hidden_word(draw: Draw) -> Pair:
    """A repeated list with a hole: the missing word is found in the first list."""
    words = _words(draw, 3, 7)
    hidden = draw.pick(words)
    holed = ["_" if word == hidden else word for word in words]
    return f"{' '.join(words)} # {' '.join(holed)}", hidden


def dictionary(draw: Draw) -> Pair:
    """The value of a key."""
    keys, values = draw.sample(lex.CONTENT_WORDS, 4), draw.sample(lex.CONTENT_WORDS, 4)
    asked = draw.integer(0, 4)
    listed = ", ".join(f"{key} = {value}" for key, value in zip(keys, values, strict=True))
    if draw.chance(0.3):
        return f"key: {values[asked]} in {listed}", keys[asked]
    return f"value: {keys[asked]} in {listed}", values[asked]


def numbered(draw: Draw) -> Pair:
    """The item under a number."""
    words = _words(draw, 3, 7)
    asked = draw.integer(0, len(words))
    listed = " ".join(f"{number} {word}" for number, word in enumerate(words, start=1))
    return f"item {asked + 1} of {listed}", words[asked]


def between(draw: Draw) -> Pair:
    """The word between two others."""
    words = _words(draw, 4, 8)
    middle = draw.integer(1, len(words) - 1)
    return f"between {words[middle - 1]} and {words[middle + 1]} : {' '.join(words)}", words[middle]


def swap(draw: Draw) -> Pair:
    """Two words change places."""
    words = _words(draw, 3, 7)
    first, second = draw.sample(words, 2)
    other = {first: second, second: first}
    swapped = [other.get(word, word) for word in words]
    return f"swap {first} and {second} : {' '.join(words)}", " ".join(swapped)


def put(draw: Draw) -> Pair:
    """One word put in the place of another."""
    words = _words(draw, 3, 7)
    old, new = draw.pick(words), draw.pick(lex.CONTENT_WORDS)
    changed = [new if word == old else word for word in words]
    return f"put {new} for {old} : {' '.join(words)}", " ".join(changed)


def template(draw: Draw) -> Pair:
    """Values set into a sentence with letters for slots."""
    texts = "X meets Y/X and Y go home/give X to Y/X is older than Y/Y waits for X/no X without Y"
    text = draw.pick(texts.split("/"))
    first, second = draw.sample(lex.NAMES + lex.ANIMALS, 2)
    filled = " ".join({"X": first, "Y": second}.get(word, word) for word in text.split())
    return f"template: {text} | X = {first} , Y = {second}", filled


def join(draw: Draw) -> Pair:
    """Words joined by commas and "and"."""
    words = _words(draw, 3, 5)
    return "join: " + " + ".join(words), ", ".join(words[:-1]) + f" and {words[-1]}"


def which_list(draw: Draw) -> Pair:
    """Which of two named lists holds a word."""
    words = _words(draw, 6, 7)
    names = draw.sample(("A", "B", "C", "red", "blue", "left", "right", "one", "two"), 2)
    asked = draw.integer(0, 6)
    text = f"{names[0]} ( {' '.join(words[:3])} ) {names[1]} ( {' '.join(words[3:])} )"
    return f"which list has {words[asked]} ? {text}", names[asked // 3]


def chain(draw: Draw) -> Pair:
    """The next link of a chain."""
    people = draw.sample(lex.NAMES, 4)
    links = draw.shuffled([f"{a} calls {b}" for a, b in itertools.pairwise(people)])
    asked = draw.integer(0, 3)
    return f"chain: {' . '.join(links)} . {people[asked]} calls", people[asked + 1]


def capital_fact(draw: Draw) -> Pair:
    """Capitals, both ways."""
    country, capital = draw.pick(lex.CAPITALS)
    return draw.pick(
        ((f"fact: capital of {country}", capital), (f"fact: country of {capital}", country))
    )


def true_or_not(draw: Draw) -> Pair:
    """Whether a class statement holds."""
    kinds = draw.sample(tuple(lex.CLASSES), 2)
    word = draw.pick(lex.CLASSES[kinds[0]])
    holds = draw.chance(0.5)
    return f"true or not ? {word} : {kinds[0 if holds else 1]}", "true" if holds else "not true"


def meaning(draw: Draw) -> Pair:
    """The listed word that has the same meaning as a word."""
    first, second = draw.shuffled(draw.pick(lex.SYNONYMS))
    listed = draw.shuffled([second, *draw.sample(lex.CONTENT_WORDS, 2, (first, second))])
    return f"pick the twin of {first} from {' , '.join(listed)}", second


def continue_row(draw: Draw) -> Pair:
    """The next of a row of days, months or numbers."""
    row = draw.pick((lex.DAYS, lex.MONTHS, lex.UNITS, tuple(str(number) for number in range(30))))
    start = draw.integer(0, len(row) - 3)
    return f"row: {' '.join(row[start : start + 3])}", row[start + 3]


DIRECT: tuple[Callable[[Draw], Pair], ...] = (
    *3 * [residence_question],
    speaker,
    bracket_copy,
    skip_copy,
    *2 * [option],
    *2 * [class_option],
    *2 * [class_member],
    cloze,
    hidden_word,
    dictionary,
    numbered,
    between,
    swap,
    put,
    template,
    join,
    which_list,
    chain,
    capital_fact,
    true_or_not,
    meaning,
    continue_row,
)
