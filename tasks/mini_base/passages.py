"""Short English passages over the lexicon: facts, stories, reviews, dialogues, descriptions."""

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw

MASS_CLASSES = ("clothing", "furniture")
PLACE_PREPOSITIONS = ("in", "near", "behind", "outside")
GOOD_REMARKS = (
    "I loved it",
    "It made me smile",
    "I would come again",
    "Everybody was pleased",
    "We enjoyed every minute",
)
BAD_REMARKS = (
    "I hated it",
    "It made me angry",
    "I would never come again",
    "Everybody was disappointed",
    "We left early",
)
REVIEWED = (*lex.REVIEWED, "phone", "service")
FILLERS = (
    "That was all for the day.",
    "Nobody knew why.",
    "It had been a long week.",
    "The weather was fine.",
    "Then everyone went home.",
    "Later it began to rain.",
    "There was not much time left.",
    "So they decided to wait.",
    "This is how it should be done.",
    "However, not everything was ready.",
    "After that, they had some tea.",
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


def class_fact(draw: Draw) -> list[str]:
    """Two words of one class and one of another."""
    kind, other = draw.sample(tuple(lex.CLASSES), 2)
    first, second = draw.sample(lex.CLASSES[kind], 2)
    third = draw.pick(lex.CLASSES[other])
    forms = (
        f"{_is_a(first, kind)}, and so is {second}",
        f"{_is_a(first, kind)}, but {_is_a(third, other)}",
        f"both {first} and {second} belong to the class {kind}",
        f"{first} and {second} are of the same kind: {kind}",
        f"among {first}, {third} and {second}, only {third} does not fit, because "
        f"{_is_a(third, other)}",
    )
    return [_capital(form) + "." for form in draw.sample(forms, 2)]


def opposite_fact(draw: Draw) -> list[str]:
    """Opposites and words of one meaning."""
    first, second = draw.shuffled(draw.pick(lex.OPPOSITES))
    third, fourth = draw.shuffled(draw.pick(lex.SYNONYMS))
    forms = (
        f"The opposite of {first} is {second}.",
        f"If something is not {first}, it may be {second}.",
        f"{_capital(first)} and {second} are opposites.",
        f"{_capital(third)} means the same as {fourth}.",
        f"Another word for {third} is {fourth}.",
    )
    return draw.sample(forms, 2)


def number_fact(draw: Draw) -> list[str]:
    """Sums, differences and comparisons of small numbers."""
    first, second = draw.integer(0, 13), draw.integer(0, 13)
    small, large = sorted(draw.sample(range(60), 2))
    word = lex.number_word
    before = word(small - 1) if small else "nothing"
    parity = "even" if small % 2 == 0 else "odd"
    forms = (
        f"{_capital(word(first))} plus {word(second)} is {word(first + second)}.",
        f"{first} and {second} make {first + second}.",
        f"{_capital(word(first + second))} minus {word(second)} is {word(first)}.",
        f"{_capital(word(large))} is larger than {word(small)}.",
        f"{small} is smaller than {large}.",
        f"After {word(small)} comes {word(small + 1)}, and before it comes {before}.",
        f"The number {small} is written {word(small)} and it is {parity}.",
    )
    return draw.sample(forms, 2)


def form_fact(draw: Draw) -> list[str]:
    """Forms of verbs and nouns in use."""
    base, third, past, going = draw.pick(lex.VERBS)
    noun = _countable(draw, lex.ANIMALS)
    person = draw.pick(lex.NAMES)
    count = lex.number_word(draw.integer(2, 10))
    forms = (
        f"Today {person} {third}, and yesterday {_pronoun(person)} {past}.",
        f"Tomorrow {person} will {base} again, but now {_pronoun(person)} is {going}.",
        f"One {noun} is here, and {count} {lex.plural(noun)} are there.",
        f"{person} did not {base}, although {_pronoun(person)} {past} last year.",
        f"Does {person} {base} often? Yes, {_pronoun(person)} {third} every {draw.pick(lex.DAYS)}.",
    )
    return draw.sample(forms, 2)


def world_fact(draw: Draw) -> list[str]:
    """Capitals, days, months and weights."""
    country, capital = draw.pick(lex.CAPITALS)
    days, months = draw.integer(0, 6), draw.integer(0, 11)
    light, heavy = sorted(draw.sample(range(len(lex.BY_WEIGHT)), 2))
    first, second = lex.with_article(lex.BY_WEIGHT[light]), lex.with_article(lex.BY_WEIGHT[heavy])
    forms = (
        f"{capital} is the capital of {country}.",
        f"{_capital(lex.DAYS[days + 1])} comes after {lex.DAYS[days]}.",
        f"{lex.MONTHS[months]} is the month before {lex.MONTHS[months + 1]}.",
        f"{_capital(second)} is heavier than {first}.",
        f"{_capital(first)} is lighter than {second}.",
    )
    return draw.sample(forms, 2)


def language_fact(draw: Draw) -> list[str]:
    """What words, sentences and questions are: the words that talk about text."""
    words = draw.sample(lex.CONTENT_WORDS, 3)
    good, bad = draw.pick(lex.GOOD), draw.pick(lex.BAD)
    forms = (
        "A question asks something and ends with a question mark.",
        "A statement tells us something and ends with a full stop.",
        "A command tells someone to do something.",
        f"The words {', '.join(words)} make a list of three words.",
        f"In the list {', '.join(words)}, the word {words[0]} is first and the word {words[2]} is "
        "last.",
        f"{_capital(good)} is a positive word, while {bad} is a negative word.",
        f"To call something {bad} is to say that it is bad, and {good} things are good.",
        "The title of a text says in a few words what it is about.",
        "The past tense says what happened before, the present tense what happens now, the future "
        "tense what will come.",
        "A label is a name that we give to an input, and an answer is what we write as output.",
    )
    return draw.sample(forms, 2)


def person_story(draw: Draw) -> list[str]:
    """A person with a job, a town and habits."""
    person, friend = draw.sample(lex.NAMES, 2)
    job, city = draw.pick(lex.JOBS), draw.pick(lex.CITIES)
    age = lex.number_word(draw.integer(18, 80))
    they, their = _capital(_pronoun(person)), _possessive(person)
    habits = (
        f"{they} is {age} years old and likes {draw.pick(lex.DRINKS)}.",
        f"{_capital(their)} favourite colour is {draw.pick(lex.COLOURS)}.",
        f"{they} plays the {draw.pick(lex.INSTRUMENTS)} and {their} friend {friend} plays "
        f"{draw.pick(lex.SPORTS)}.",
    )
    return [f"{person} is {lex.with_article(job)} in {city}.", draw.pick(habits)]


def event_story(draw: Draw) -> list[str]:
    """Who gave, took or bought what, and where it went."""
    first, second = draw.sample(lex.NAMES, 2)
    thing, other = _countable(draw), _countable(draw, lex.FRUITS)
    colour, place = draw.pick(lex.COLOURS), draw.pick(lex.PLACES)
    opening = draw.pick(
        (
            f"{first} bought {lex.with_article(f'{colour} {thing}')} in the {place}.",
            f"On {draw.pick(lex.DAYS)} {first} found {lex.with_article(thing)} "
            f"{draw.pick(PLACE_PREPOSITIONS)} the {place}.",
            f"{first} went to the {place} because {_pronoun(first)} needed "
            f"{lex.with_article(thing)}.",
            f"In {draw.pick(lex.MONTHS)}, {first} saw "
            f"{lex.with_article(_countable(draw, lex.ANIMALS))} in the {place}.",
        )
    )
    closing = draw.pick(
        (
            f"{_capital(_pronoun(first))} gave it to {second}, who was very "
            f"{draw.pick(('happy', 'glad', 'surprised', 'tired'))}.",
            f"{second} ate {lex.with_article(other)} and thanked {first}.",
            f"Who had the {thing}? It was {first}, not {second}.",
            f"{second} wanted the {thing} too, but {first} kept it.",
        )
    )
    return [opening, closing]


def review(draw: Draw) -> list[str]:
    """An opinion, good or bad throughout."""
    good = draw.chance(0.5)
    adjectives = draw.sample(lex.GOOD if good else lex.BAD, 2)
    subject = draw.pick(REVIEWED)
    return [
        draw.pick(
            (
                f"The {subject} was {adjectives[0]} and {adjectives[1]}.",
                f"What {lex.with_article(adjectives[0])} {subject}!",
                f"I found the {subject} very {adjectives[0]}.",
            )
        ),
        draw.pick(GOOD_REMARKS if good else BAD_REMARKS) + ".",
        draw.pick(
            (
                f"It was {'good' if good else 'bad'}.",
                f"My opinion is {'positive' if good else 'negative'}.",
            )
        ),
    ]


def dialogue(draw: Draw) -> list[str]:
    """A question and its answer between two people."""
    first, second = draw.sample(lex.NAMES, 2)
    thing, place = _countable(draw), draw.pick(lex.PLACES)
    return [
        f'"Where is the {thing}?" asked {first}.',
        draw.pick(
            (
                f'"It is in the {place}," said {second}.',
                f'"I do not know," answered {second}, "but please look in the {place}."',
            )
        ),
    ]


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
        sentences += draw.pick(KINDS)(draw) if draw.chance(0.8) else [draw.pick(FILLERS)]
    kept: list[str] = []
    for sentence in sentences:
        if sum(len(one.split()) for one in kept) + len(sentence.split()) <= 60:
            kept.append(sentence)
    return " ".join(kept)
