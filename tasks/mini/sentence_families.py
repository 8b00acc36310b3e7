"""Families over sentences: questions, extraction, kinds, matching, topics, rewriting, records."""

from collections.abc import Sequence

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, TextDrawer, filled, labelled
from ait_jax.tasks.mini.scenes import scene, told, two_scenes


def fact(text: str, *answers: str, **slots: Sequence[str]) -> Drawer:
    """Returns a drawer of a word for each slot, and of the text and the answers with them.

    In the text "a_city" stands for the word of the slot "city" with its article.
    """

    def draw_fact(draw: Draw) -> Drawn:
        said = {slot: draw.pick(choices) for slot, choices in slots.items()}
        said |= {f"a_{slot}": lex.with_article(word) for slot, word in said.items()}
        return text.format(**said), tuple(answer.format(**said) for answer in answers)

    return draw_fact


def _counted(draw: Draw) -> Drawn:
    number = lex.number_word(draw.integer(2, 60))
    return f"{draw.pick(lex.NAMES)} counted {number} {lex.plural(draw.pick(lex.FRUITS))}.", number


def _verb_sentence(form: str) -> TextDrawer:
    def draw_sentence(draw: Draw) -> str:
        base, third, past, going = draw.pick(lex.VERBS)
        verb = {
            "past": past,
            "present": third,
            "future": f"will {base}",
            "now": f"is {going}",
            "not": f"does not {base}",
            "can": f"can {base}",
        }[form]
        return f"{draw.pick(lex.NAMES)} {verb}."

    return draw_sentence


_QUESTION = told(
    "Did {s.person} {s.base} the {s.thing}?", "Who {s.past} the {s.noun}?", "Where is the {s.noun}?"
)


def _bare(source: TextDrawer) -> TextDrawer:
    """Drops the last character, so that punctuation gives nothing away."""
    return lambda draw: source(draw)[:-1]


def _contains(draw: Draw) -> Drawn:
    words = draw.sample(lex.CONTENT_WORDS, draw.integer(3, 6))
    inside = draw.chance(0.5)
    asked = draw.pick(words) if inside else draw.sample(lex.CONTENT_WORDS, 1, words)[0]
    return f"{asked}: {' '.join(words)}", "found" if inside else "missing"


def _identical(draw: Draw) -> Drawn:
    first = draw.sample(lex.CONTENT_WORDS, 3)
    second = list(first)
    same = draw.chance(0.5)
    if not same:
        second[draw.integer(0, 3)] = draw.sample(lex.CONTENT_WORDS, 1, first)[0]
    return f"{' '.join(first)} | {' '.join(second)}", "identical" if same else "different"


def _same_person(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    same = draw.chance(0.5)
    if same:
        second = scene(draw, person=first.person)
    return f"{first.short} {second.short}", "one" if same else "two"


def _has_colour(draw: Draw) -> Drawn:
    coloured = draw.chance(0.5)
    drawn = scene(draw)
    return (drawn.coloured if coloured else drawn.placed), "yes" if coloured else "no"


def _topic(words: tuple[str, ...]) -> TextDrawer:
    return lambda draw: draw.pick(
        (
            "{} wrote a long text about {} and {}.",
            "{} likes to talk about {} and {}.",
            "{} read a page about {} and {}.",
        )
    ).format(draw.pick(lex.NAMES), *(lex.plural(word) for word in draw.sample(words, 2)))


_LOST = "{} lost a {} in the {}."
_PERSON = {
    "name": lex.NAMES,
    "job": lex.JOBS,
    "city": lex.CITIES,
    "thing": lex.ANIMALS,
    "colour": lex.COLOURS,
}
DRAWERS: dict[str, Drawer] = {
    "extract_the_city": fact(
        "{name} sent a letter from {city} about a {tool}.",
        "{city}",
        city=lex.CITIES,
        name=lex.NAMES,
        tool=lex.TOOLS,
    ),
    "extract_the_number": _counted,
    "question_or_statement_classification": labelled(
        question=_QUESTION, statement=told("{s.short}")
    ),
    "command_or_question_classification": labelled(
        command=told("{s.command}"), question=_bare(_QUESTION)
    ),
    "past_or_future_classification": labelled(
        past=_verb_sentence("past"), future=_verb_sentence("future")
    ),
    "habit_or_now_classification": labelled(
        often=_verb_sentence("present"), now=_verb_sentence("now")
    ),
    "denied_or_affirmed_classification": labelled(
        denied=_verb_sentence("not"), affirmed=_verb_sentence("present")
    ),
    "weekend_or_workday_classification": labelled(
        weekend=told("{s.full}", day=lex.DAYS[5:]), workday=told("{s.full}", day=lex.DAYS[:5])
    ),
    "polite_or_rude_classification": labelled(
        polite=told("Please {s.base} the {s.noun}."), rude=told("{s.command} now.")
    ),
    "word_in_list_classification": _contains,
    "identical_lists_classification": _identical,
    "one_or_two_people_classification": _same_person,
    "colour_mentioned_classification": _has_colour,
    "nature_or_traffic_topic_classification": labelled(
        nature=_topic(lex.ANIMALS), traffic=_topic(lex.VEHICLES)
    ),
    "food_or_fashion_topic_classification": labelled(
        food=_topic(lex.FRUITS + lex.VEGETABLES), fashion=_topic(lex.CLOTHES)
    ),
    "plants_tools_or_jobs_topic_classification": labelled(
        plants=_topic(lex.PLANTS), tools=_topic(lex.TOOLS), jobs=_topic(lex.JOBS)
    ),
    "indoors_or_outdoors_classification": labelled(
        indoors=filled(_LOST, lex.NAMES, lex.TOOLS, lex.INDOOR_PLACES),
        outdoors=filled(_LOST, lex.NAMES, lex.TOOLS, lex.OUTDOOR_PLACES),
    ),
    "make_it_very": fact(
        "The {noun} is {word}.",
        "The {noun} is very {word}.",
        noun=lex.THINGS,
        word=lex.GOOD + lex.BAD,
    ),
    "name_and_job_to_sentence": fact(
        "name: {name}; job: {job}", "{name} is {a_job}.", "{name} works as {a_job}.", **_PERSON
    ),
    "name_and_city_to_sentence": fact(
        "name: {name}; city: {city}",
        "{name} lives in {city}.",
        "{city} is the home of {name}.",
        **_PERSON,
    ),
    "name_and_animal_to_sentence": fact(
        "name: {name}; colour: {colour}; thing: {thing}",
        "{name} has {a_colour} {thing}.",
        **_PERSON,
    ),
    "sentence_to_name_and_job": fact(
        "{name} is {a_job}.", "{name}, {job}", name=lex.NAMES, job=lex.JOBS
    ),
}
