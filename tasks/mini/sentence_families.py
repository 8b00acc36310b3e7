"""Families over sentences: questions, extraction, kinds, matching, topics, rewriting, records."""

import operator
from collections.abc import Callable

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, TextDrawer, labelled
from ait_jax.tasks.mini.scenes import Scene, scene, two_scenes


def from_scene(text: Callable[[Scene], str], answer: Callable[[Scene], str]) -> Drawer:
    """Returns a drawer of a scene's text and answer."""

    def draw_scene(draw: Draw) -> Drawn:
        drawn = scene(draw)
        return text(drawn), answer(drawn)

    return draw_scene


def _two(text: Callable[[Scene, Scene, Scene], str], answer: Callable[[Scene], str]) -> Drawer:
    """Returns a drawer of two scenes, asking about either."""

    def draw_scenes(draw: Draw) -> Drawn:
        first, second = two_scenes(draw)
        asked = first if draw.chance(0.5) else second
        return text(first, second, asked), answer(asked)

    return draw_scenes


def _two_short(first: Scene, second: Scene, question: str) -> str:
    return f"{first.short()} {second.short()} {question}"


def _did_not(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    return _two_short(first, second, f"Who did not {first.base} the {first.thing}?"), second.person


def _did_it(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    did = draw.chance(0.5)
    asked = first.thing if did else second.thing
    return (
        f"{first.short()} Did {first.person} {first.base} {lex.with_article(asked)}?",
        "yes" if did else "no",
    )


def _which_sentence(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    in_first = draw.chance(0.5)
    return (
        f"{(first if in_first else second).person}: {first.short()} {second.short()}",
        "first" if in_first else "second",
    )


def _letter(draw: Draw) -> Drawn:
    city, name, tool = draw.pick(lex.CITIES), draw.pick(lex.NAMES), draw.pick(lex.TOOLS)
    return f"{name} sent a letter from {city} about a {tool}.", city


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


def _question(draw: Draw) -> str:
    drawn = scene(draw)
    return draw.pick(
        (
            f"Did {drawn.person} {drawn.base} the {drawn.thing}?",
            f"Who {drawn.past} the {drawn.noun}?",
            f"Where is the {drawn.noun}?",
        )
    )


def _command(draw: Draw) -> str:
    drawn = scene(draw)
    return f"{drawn.base.capitalize()} the {drawn.noun}!"


def _statement(draw: Draw) -> str:
    return scene(draw).short()


def _bare(source: TextDrawer) -> TextDrawer:
    """Drops the last character, so that punctuation gives nothing away."""
    return lambda draw: source(draw)[:-1]


def _on(days: tuple[str, ...]) -> TextDrawer:
    return lambda draw: scene(draw, day=draw.pick(days)).full()


def _please(polite: bool) -> TextDrawer:
    def draw_command(draw: Draw) -> str:
        drawn = scene(draw)
        text = f"{drawn.base} the {drawn.noun}"
        return f"Please {text}." if polite else f"{text.capitalize()} now."

    return draw_command


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
    return f"{first.short()} {second.short()}", "one" if same else "two"


def _has_colour(draw: Draw) -> Drawn:
    coloured = draw.chance(0.5)
    drawn = scene(draw)
    return (drawn.coloured() if coloured else drawn.placed()), "yes" if coloured else "no"


def _same_colour(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    same = draw.chance(0.5)
    other = lex.with_article(f"{(first if same else second).colour} {second.thing}")
    return f"{lex.with_article(first.noun)} and {other}", "equal" if same else "unequal"


def _topic(words: tuple[str, ...]) -> TextDrawer:
    return lambda draw: draw.pick(
        (
            "{} wrote a long text about {} and {}.",
            "{} likes to talk about {} and {}.",
            "{} read a page about {} and {}.",
        )
    ).format(draw.pick(lex.NAMES), *(lex.plural(word) for word in draw.sample(words, 2)))


def _at(places: tuple[str, ...]) -> TextDrawer:
    return lambda draw: (
        f"{draw.pick(lex.NAMES)} lost a {draw.pick(lex.TOOLS)} in the {draw.pick(places)}."
    )


def _very(draw: Draw) -> Drawn:
    noun, word = draw.pick(lex.THINGS), draw.pick(lex.GOOD + lex.BAD)
    return f"The {noun} is {word}.", f"The {noun} is very {word}."


def _record(fields: str, *sentences: str) -> Drawer:
    """Returns a drawer of the fields of a person and of sentences that say the same."""

    def draw_record(draw: Draw) -> Drawn:
        record = {
            "name": draw.pick(lex.NAMES),
            "job": draw.pick(lex.JOBS),
            "city": draw.pick(lex.CITIES),
            "thing": draw.pick(lex.ANIMALS),
            "colour": draw.pick(lex.COLOURS),
        }
        text = "; ".join(f"{field}: {record[field]}" for field in fields.split())
        record |= {f"a_{field}": lex.with_article(record[field]) for field in ("job", "colour")}
        return text, tuple(sentence.format(**record) for sentence in sentences)

    return draw_record


def _name_and_job(draw: Draw) -> Drawn:
    name, job = draw.pick(lex.NAMES), draw.pick(lex.JOBS)
    return f"{name} is {lex.with_article(job)}.", f"{name}, {job}"


DRAWERS: dict[str, Drawer] = {
    "who_did_it": _two(
        lambda a, b, asked: _two_short(a, b, f"Who {asked.past} the {asked.thing}?"),
        lambda s: s.person,
    ),
    "what_was_it": _two(
        lambda a, b, asked: _two_short(a, b, f"What did {asked.person} {asked.base}?"),
        lambda s: s.thing,
    ),
    "where_was_it": _two(
        lambda a, b, asked: f"{a.placed()} {b.placed()} Where was {asked.person}?",
        lambda s: s.place,
    ),
    "which_colour_was_it": _two(
        lambda a, b, asked: f"{a.coloured()} {b.coloured()} What colour was the {asked.thing}?",
        lambda s: s.colour,
    ),
    "who_did_not_do_it": _did_not,
    "did_it_happen_classification": _did_it,
    "first_or_second_sentence_classification": _which_sentence,
    "extract_the_colour": from_scene(Scene.coloured, operator.attrgetter("colour")),
    "extract_the_person": from_scene(Scene.full, operator.attrgetter("person")),
    "extract_the_day": from_scene(Scene.full, operator.attrgetter("day")),
    "extract_the_verb": from_scene(Scene.coloured, operator.attrgetter("past")),
    "extract_the_city": _letter,
    "extract_the_number": _counted,
    "question_or_statement_classification": labelled(question=_question, statement=_statement),
    "command_or_question_classification": labelled(
        command=_bare(_command), question=_bare(_question)
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
        weekend=_on(lex.DAYS[5:]), workday=_on(lex.DAYS[:5])
    ),
    "polite_or_rude_classification": labelled(polite=_please(True), rude=_please(False)),
    "word_in_list_classification": _contains,
    "identical_lists_classification": _identical,
    "one_or_two_people_classification": _same_person,
    "colour_mentioned_classification": _has_colour,
    "equal_colours_classification": _same_colour,
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
        indoors=_at(lex.INDOOR_PLACES), outdoors=_at(lex.OUTDOOR_PLACES)
    ),
    "ask_who": from_scene(Scene.coloured, lambda s: f"Who {s.past} {lex.with_article(s.noun)}?"),
    "ask_where": from_scene(
        Scene.placed, lambda s: f"Where did {s.person} {s.base} {lex.with_article(s.thing)}?"
    ),
    "ask_whether": from_scene(
        Scene.short, lambda s: f"Did {s.person} {s.base} {lex.with_article(s.thing)}?"
    ),
    "ask_politely": from_scene(
        lambda s: f"{s.base.capitalize()} the {s.noun}!",
        lambda s: f"Could you please {s.base} the {s.noun}?",
    ),
    "negate_the_sentence": from_scene(
        Scene.short, lambda s: f"{s.person} did not {s.base} {lex.with_article(s.thing)}."
    ),
    "put_into_the_future": from_scene(
        Scene.short, lambda s: f"{s.person} will {s.base} {lex.with_article(s.thing)}."
    ),
    "remove_the_colour": from_scene(
        lambda s: f"{s.person} {s.past} the {s.noun}.",
        lambda s: f"{s.person} {s.past} the {s.thing}.",
    ),
    "replace_the_person": from_scene(
        Scene.coloured, lambda s: f"Somebody {s.past} {lex.with_article(s.noun)}."
    ),
    "make_it_very": _very,
    "name_and_job_to_sentence": _record(
        "name job", "{name} is {a_job}.", "{name} works as {a_job}."
    ),
    "name_and_city_to_sentence": _record(
        "name city", "{name} lives in {city}.", "{city} is the home of {name}."
    ),
    "name_and_animal_to_sentence": _record("name colour thing", "{name} has {a_colour} {thing}."),
    "sentence_to_name_and_job": _name_and_job,
}
