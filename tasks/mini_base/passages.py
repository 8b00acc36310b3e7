"""Short English passages over the lexicon: facts, stories, reviews, dialogues, descriptions."""

import tomllib
from pathlib import Path

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw

MASS_CLASSES = ("clothing", "furniture")
PLACE_PREPOSITIONS = ("in", "near", "behind", "outside")
REVIEWED = (*lex.REVIEWED, "phone", "service")
_PHRASES: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("phrases.toml").read_text(encoding="utf-8")
)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _countable(draw: Draw, words: tuple[str, ...] = lex.THINGS) -> str:
    while (word := draw.pick(words)) in lex.UNCOUNTED:
        pass
    return word


def _pronoun(name: str) -> str:
    return "she" if name in lex.WOMEN else "he"


def _possessive(name: str) -> str:
    return "her" if name in lex.WOMEN else "his"


def _is_a(word: str, kind: str) -> str:
    """Returns "a dog is an animal", "oats are a plant", "spinach is a vegetable"."""
    if kind == "job":
        return f"{lex.with_article(word)} is a person with a job"
    is_bare = word in lex.UNCOUNTED or kind in ("colour", "sport", "drink")
    subject = word if is_bare else lex.with_article(word)
    return f"{subject} is {kind if kind in MASS_CLASSES else lex.with_article(kind)}"


def _said(draw: Draw, about: str, count: int = 1, /, **words: object) -> list[str]:
    """Draws `count` distinct sentences of phrases.toml and fills in `words`."""
    return draw.sample([_capital(form.format(**words)) for form in _PHRASES[about]], count)


def class_fact(draw: Draw) -> list[str]:
    """Two words of one class and one of another."""
    kind, other = draw.sample(tuple(lex.CLASSES), 2)
    first, second = draw.sample(lex.CLASSES[kind], 2)
    third = draw.pick(lex.CLASSES[other])
    sentences = {"first_is": _is_a(first, kind), "third_is": _is_a(third, other)}
    return _said(draw, "class", 2, first=first, second=second, third=third, kind=kind, **sentences)


def opposite_fact(draw: Draw) -> list[str]:
    """Opposites and words of one meaning."""
    first, second = draw.shuffled(draw.pick(lex.OPPOSITES))
    third, fourth = draw.shuffled(draw.pick(lex.SYNONYMS))
    return _said(draw, "opposite", 2, first=first, second=second, third=third, fourth=fourth)


def number_fact(draw: Draw) -> list[str]:
    """Sums, differences and comparisons of small numbers."""
    first, second = draw.integer(0, 13), draw.integer(0, 13)
    small, large = sorted(draw.sample(range(60), 2))
    numbers = {"one": first, "two": second, "sum": first + second}
    numbers |= {"smaller": small, "larger": large, "after": small + 1}
    return _said(
        draw,
        "number",
        2,
        first=first,
        second=second,
        total=first + second,
        small=small,
        large=large,
        before=lex.number_word(small - 1) if small else "nothing",
        parity="even" if small % 2 == 0 else "odd",
        **{name: lex.number_word(number) for name, number in numbers.items()},
    )


def form_fact(draw: Draw) -> list[str]:
    """Forms of verbs and nouns in use."""
    verb = dict(zip(("base", "third", "past", "going"), draw.pick(lex.VERBS), strict=True))
    noun = _countable(draw, lex.ANIMALS)
    person = draw.pick(lex.NAMES)
    return _said(
        draw,
        "form",
        2,
        **verb,
        noun=noun,
        nouns=lex.plural(noun),
        person=person,
        they=_pronoun(person),
        count=lex.number_word(draw.integer(2, 10)),
        day=draw.pick(lex.DAYS),
    )


def world_fact(draw: Draw) -> list[str]:
    """Capitals, days, months and weights."""
    country, capital = draw.pick(lex.CAPITALS)
    day, month = draw.integer(0, 6), draw.integer(0, 11)
    light, heavy = sorted(draw.sample(range(len(lex.BY_WEIGHT)), 2))
    return _said(
        draw,
        "world",
        2,
        country=country,
        capital=capital,
        day=lex.DAYS[day],
        next_day=lex.DAYS[day + 1],
        month=lex.MONTHS[month],
        next_month=lex.MONTHS[month + 1],
        light=lex.with_article(lex.BY_WEIGHT[light]),
        heavy=lex.with_article(lex.BY_WEIGHT[heavy]),
    )


def language_fact(draw: Draw) -> list[str]:
    """What words, sentences and questions are: the words that talk about text."""
    words = draw.sample(lex.CONTENT_WORDS, 3)
    good, bad = draw.pick(lex.GOOD), draw.pick(lex.BAD)
    listed = {"listed": ", ".join(words), "first": words[0], "last": words[2]}
    return _said(draw, "language", 2, good=good, bad=bad, **listed)


def person_story(draw: Draw) -> list[str]:
    """A person with a job, a town and habits."""
    person, friend = draw.sample(lex.NAMES, 2)
    job, city = draw.pick(lex.JOBS), draw.pick(lex.CITIES)
    habit = _said(
        draw,
        "habit",
        they=_pronoun(person),
        their=_possessive(person),
        friend=friend,
        age=lex.number_word(draw.integer(18, 80)),
        drink=draw.pick(lex.DRINKS),
        colour=draw.pick(lex.COLOURS),
        instrument=draw.pick(lex.INSTRUMENTS),
        sport=draw.pick(lex.SPORTS),
    )
    return [f"{person} is {lex.with_article(job)} in {city}.", *habit]


def event_story(draw: Draw) -> list[str]:
    """Who gave, took or bought what, and where it went."""
    person, other = draw.sample(lex.NAMES, 2)
    thing, fruit = _countable(draw), _countable(draw, lex.FRUITS)
    colour, place = draw.pick(lex.COLOURS), draw.pick(lex.PLACES)
    people = {"person": person, "other": other, "they": _pronoun(person)}
    opening = _said(
        draw,
        "event",
        **people,
        coloured=lex.with_article(f"{colour} {thing}"),
        a_thing=lex.with_article(thing),
        place=place,
        day=draw.pick(lex.DAYS),
        where=draw.pick(PLACE_PREPOSITIONS),
        month=draw.pick(lex.MONTHS),
        an_animal=lex.with_article(_countable(draw, lex.ANIMALS)),
    )
    feeling = draw.pick(("happy", "glad", "surprised", "tired"))
    a_fruit = lex.with_article(fruit)
    return opening + _said(draw, "ending", **people, thing=thing, a_fruit=a_fruit, feeling=feeling)


def review(draw: Draw) -> list[str]:
    """An opinion, good or bad throughout."""
    polarity, adjectives = ("good", lex.GOOD) if draw.chance(0.5) else ("bad", lex.BAD)
    word, further = draw.sample(adjectives, 2)
    words = {"word": word, "a_word": lex.with_article(word), "further": further}
    return [
        *_said(draw, "opinion", subject=draw.pick(REVIEWED), **words),
        *_said(draw, f"{polarity}_remark"),
        *_said(draw, f"{polarity}_verdict"),
    ]


def dialogue(draw: Draw) -> list[str]:
    """A question and its answer between two people."""
    first, second = draw.sample(lex.NAMES, 2)
    thing, place = _countable(draw), draw.pick(lex.PLACES)
    question = f'"Where is the {thing}?" asked {first}.'
    return [question, *_said(draw, "reply", second=second, place=place)]


def description(draw: Draw) -> list[str]:
    """What stands where."""
    thing, other = draw.sample([word for word in lex.FURNITURE if word not in lex.UNCOUNTED], 2)
    coloured = lex.with_article(f"{draw.pick(lex.COLOURS)} {thing}")
    return [
        f"There is {coloured} in the {draw.pick(lex.PLACES)}.",
        f"It is made of {draw.pick(lex.MATERIALS)} and stands beside the {other}.",
        f"{_capital(lex.number_word(draw.integer(2, 13)))} "
        f"{lex.plural(_countable(draw, lex.ANIMALS))} "
        f"{draw.pick(('sleep', 'run', 'wait', 'play'))} "
        f"{draw.pick(('under', 'behind', 'around'))} it.",
    ]


KINDS = (
    *2 * [class_fact],
    opposite_fact,
    number_fact,
    form_fact,
    world_fact,
    language_fact,
    person_story,
    *2 * [event_story],
    review,
    dialogue,
    description,
)


def passage(draw: Draw) -> str:
    """Returns a passage of 2 to 6 sentences, 20 to 60 words."""
    sentences = draw.pick(KINDS)(draw)
    while sum(len(sentence.split()) for sentence in sentences) < 20:
        sentences += draw.pick(KINDS)(draw) if draw.chance(0.8) else _said(draw, "filler")
    kept: list[str] = []
    for sentence in sentences:
        if sum(len(one.split()) for one in kept) + len(sentence.split()) <= 60:
            kept.append(sentence)
    return " ".join(kept)
