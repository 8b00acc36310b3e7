"""Families over sentences: questions, extraction, kinds, matching, topics, rewriting, records."""

import operator
from collections.abc import Callable

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, Table, TaskSpec, TextDrawer, labelled
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


ANSWERING: tuple[TaskSpec, ...] = (
    TaskSpec(
        "who_did_it",
        "Read two sentences and the question after them. Answer with the name of the person.",
        _two(
            lambda a, b, asked: _two_short(a, b, f"Who {asked.past} the {asked.thing}?"),
            lambda s: s.person,
        ),
        because="The text says that {answer} did it.",
    ),
    TaskSpec(
        "what_was_it",
        "Read two sentences and the question after them. Answer with the name of the "
        "thing or animal.",
        _two(
            lambda a, b, asked: _two_short(a, b, f"What did {asked.person} {asked.base}?"),
            lambda s: s.thing,
        ),
        because="The text speaks of the {answer}.",
    ),
    TaskSpec(
        "where_was_it",
        "Read two sentences and the question after them. Answer with the name of the place.",
        _two(
            lambda a, b, asked: f"{a.placed()} {b.placed()} Where was {asked.person}?",
            lambda s: s.place,
        ),
        because="The text names the {answer}.",
    ),
    TaskSpec(
        "which_colour_was_it",
        "Read two sentences and the question after them. Answer with the colour of the thing.",
        _two(
            lambda a, b, asked: f"{a.coloured()} {b.coloured()} What colour was the {asked.thing}?",
            lambda s: s.colour,
        ),
        because="The text says that it was {answer}.",
    ),
    TaskSpec(
        "who_did_not_do_it",
        "Read two sentences and the question after them. Answer with the name of the other person.",
        _did_not,
        because="{answer} did something else.",
        difficulty="medium",
    ),
    TaskSpec(
        "did_it_happen_classification",
        'Read the sentence and the question about it. Answer the question with "yes" or "no".',
        _did_it,
        ("yes", "no"),
        "The answer is {answer}.",
        "medium",
    ),
    TaskSpec(
        "first_or_second_sentence_classification",
        "A name and two sentences are given. Which sentence has the name? "
        'Answer with "first" or "second".',
        _which_sentence,
        ("first", "second"),
        "The name is in the {answer} sentence.",
        "medium",
    ),
)


def _letter(draw: Draw) -> Drawn:
    city, name, tool = draw.pick(lex.CITIES), draw.pick(lex.NAMES), draw.pick(lex.TOOLS)
    return f"{name} sent a letter from {city} about a {tool}.", city


def _counted(draw: Draw) -> Drawn:
    number = lex.number_word(draw.integer(2, 60))
    return f"{draw.pick(lex.NAMES)} counted {number} {lex.plural(draw.pick(lex.FRUITS))}.", number


EXTRACTION: tuple[TaskSpec, ...] = (
    *(
        TaskSpec(
            f"extract_the_{name}",
            f"Extract from the sentence {what}.",
            from_scene(text, operator.attrgetter(field)),
            because=f"{{answer}} is {one}.",
        )
        for name, field, text, what, one in (
            ("colour", "colour", Scene.coloured, "the word that names a colour", "a colour"),
            ("person", "person", Scene.full, "the name of the person", "a person"),
            ("day", "day", Scene.full, "the name of the day", "a day"),
            (
                "verb",
                "past",
                Scene.coloured,
                "the verb, which says what the person did",
                "the verb",
            ),
        )
    ),
    TaskSpec(
        "extract_the_city",
        "Extract from the sentence the name of the city.",
        _letter,
        because="{answer} is a city.",
    ),
    TaskSpec(
        "extract_the_number",
        "Extract from the sentence the word that names a number.",
        _counted,
        because="{answer} is a number.",
    ),
)


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


KINDS: tuple[TaskSpec, ...] = (
    labelled(
        "question_or_statement_classification",
        'Is the sentence a question or a statement? Answer with "question" or "statement".',
        "The sentence is a {answer}.",
        question=_question,
        statement=_statement,
    ),
    labelled(
        "command_or_question_classification",
        "The final mark is missing. Is this a command or a question? Answer with "
        '"command" or "question".',
        "This is a {answer}.",
        command=_bare(_command),
        question=_bare(_question),
    ),
    labelled(
        "past_or_future_classification",
        'Does the sentence speak about the past or about the future? Answer with "past" '
        'or "future".',
        "The sentence speaks about the {answer}.",
        past=_verb_sentence("past"),
        future=_verb_sentence("future"),
    ),
    labelled(
        "habit_or_now_classification",
        'Does the person do it often or at this moment? Answer with "often" for the '
        'simple form and "now" for the ing form.',
        "The right label is {answer}.",
        "medium",
        often=_verb_sentence("present"),
        now=_verb_sentence("now"),
    ),
    labelled(
        "denied_or_affirmed_classification",
        'Answer "denied" if the sentence says that something does not happen, and '
        '"affirmed" if it happens.',
        "The action is {answer}.",
        denied=_verb_sentence("not"),
        affirmed=_verb_sentence("present"),
    ),
    labelled(
        "weekend_or_workday_classification",
        'On which kind of day did it happen? Answer "weekend" for Saturday and '
        'Sunday, and "workday" for the other days.',
        "That day is a {answer}.",
        weekend=_on(lex.DAYS[5:]),
        workday=_on(lex.DAYS[:5]),
    ),
    labelled(
        "polite_or_rude_classification",
        "Is the command polite or rude? A polite command says please. Answer with "
        '"polite" or "rude".',
        "The command is {answer}.",
        polite=_please(True),
        rude=_please(False),
    ),
)


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


MATCHING: tuple[TaskSpec, ...] = (
    TaskSpec(
        "word_in_list_classification",
        'Is the word before the colon also in the list after it? Answer with "found" or "missing".',
        _contains,
        ("found", "missing"),
        "The word is {answer}.",
        "medium",
    ),
    TaskSpec(
        "identical_lists_classification",
        'Two short lists are separated by a bar. Answer "identical" if they have the '
        'same words and "different" otherwise.',
        _identical,
        ("identical", "different"),
        "The lists are {answer}.",
        "medium",
    ),
    TaskSpec(
        "one_or_two_people_classification",
        "Read two sentences. Do they speak of one person or of two people? Answer "
        'with "one" or "two".',
        _same_person,
        ("one", "two"),
        "The sentences speak of {answer}.",
        "medium",
    ),
    TaskSpec(
        "colour_mentioned_classification",
        'Does the sentence mention a colour? Answer with "yes" or "no".',
        _has_colour,
        ("yes", "no"),
        "The answer is {answer}.",
    ),
    TaskSpec(
        "equal_colours_classification",
        'Two things with their colours are given. Answer "equal" if they have one '
        'colour and "unequal" if they have two.',
        _same_colour,
        ("equal", "unequal"),
        "The colours are {answer}.",
        "medium",
    ),
)


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


TOPICS: tuple[TaskSpec, ...] = (
    labelled(
        "nature_or_traffic_topic_classification",
        'What is the topic of the sentence? Answer with "nature" if it is about '
        'animals and "traffic" if it is about vehicles.',
        "The topic is {answer}.",
        nature=_topic(lex.ANIMALS),
        traffic=_topic(lex.VEHICLES),
    ),
    labelled(
        "food_or_fashion_topic_classification",
        'What is the topic of the sentence? Answer with "food" for things to eat '
        'and "fashion" for clothes.',
        "The topic is {answer}.",
        food=_topic(lex.FRUITS + lex.VEGETABLES),
        fashion=_topic(lex.CLOTHES),
    ),
    labelled(
        "plants_tools_or_jobs_topic_classification",
        'Choose the topic of the sentence from "plants", "tools" and "jobs".',
        "The topic is {answer}.",
        plants=_topic(lex.PLANTS),
        tools=_topic(lex.TOOLS),
        jobs=_topic(lex.JOBS),
    ),
    labelled(
        "indoors_or_outdoors_classification",
        'Did it happen in a building or in the open air? Answer with "indoors" or "outdoors".',
        "It happened {answer}.",
        "medium",
        indoors=_at(lex.INDOOR_PLACES),
        outdoors=_at(lex.OUTDOOR_PLACES),
    ),
)

QUESTIONS: tuple[TaskSpec, ...] = (
    TaskSpec(
        "ask_who",
        "Turn the sentence into a question that asks who did it.",
        from_scene(Scene.coloured, lambda s: f"Who {s.past} {lex.with_article(s.noun)}?"),
        because="The name is replaced by the word who.",
    ),
    TaskSpec(
        "ask_where",
        'Write a question that starts with "Where did" and asks for the place in the sentence.',
        from_scene(
            Scene.placed, lambda s: f"Where did {s.person} {s.base} {lex.with_article(s.thing)}?"
        ),
        because="The question asks for the place.",
        difficulty="medium",
    ),
    TaskSpec(
        "ask_whether",
        "Turn the sentence into a question that can be answered with yes or no.",
        from_scene(Scene.short, lambda s: f"Did {s.person} {s.base} {lex.with_article(s.thing)}?"),
        because="The question starts with did.",
        difficulty="medium",
    ),
    TaskSpec(
        "ask_politely",
        'Turn the command into a polite question that starts with "Could you please".',
        from_scene(
            lambda s: f"{s.base.capitalize()} the {s.noun}!",
            lambda s: f"Could you please {s.base} the {s.noun}?",
        ),
        because="The question is polite.",
    ),
)


def _very(draw: Draw) -> Drawn:
    noun, word = draw.pick(lex.THINGS), draw.pick(lex.GOOD + lex.BAD)
    return f"The {noun} is {word}.", f"The {noun} is very {word}."


MODIFICATION: tuple[TaskSpec, ...] = (
    TaskSpec(
        "negate_the_sentence",
        "Rewrite the sentence so that it says that the person did not do it.",
        from_scene(
            Scene.short, lambda s: f"{s.person} did not {s.base} {lex.with_article(s.thing)}."
        ),
        because="The sentence is negated.",
        difficulty="medium",
    ),
    TaskSpec(
        "put_into_the_future",
        "Rewrite the sentence so that it speaks about the future.",
        from_scene(Scene.short, lambda s: f"{s.person} will {s.base} {lex.with_article(s.thing)}."),
        because="The sentence speaks about the future.",
        difficulty="medium",
    ),
    TaskSpec(
        "remove_the_colour",
        "Rewrite the sentence without the word for the colour.",
        from_scene(
            lambda s: f"{s.person} {s.past} the {s.noun}.",
            lambda s: f"{s.person} {s.past} the {s.thing}.",
        ),
        because="The colour is left out.",
    ),
    TaskSpec(
        "replace_the_person",
        'Rewrite the sentence with "somebody" in the place of the person.',
        from_scene(Scene.coloured, lambda s: f"Somebody {s.past} {lex.with_article(s.noun)}."),
        because="The person is not named.",
    ),
    TaskSpec(
        "make_it_very",
        'Add the word "very" before the adjective of the sentence.',
        _very,
        because="The word very is added.",
    ),
)


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


DATA_TO_TEXT: tuple[TaskSpec, ...] = (
    TaskSpec(
        "name_and_job_to_sentence",
        "You are given a name and a job. Write one sentence that says which job the person has.",
        _record("name job", "{name} is {a_job}.", "{name} works as {a_job}."),
        because="The sentence names person and job.",
    ),
    TaskSpec(
        "name_and_city_to_sentence",
        "You are given a name and a city. Write one sentence that says where the person lives.",
        _record("name city", "{name} lives in {city}.", "{city} is the home of {name}."),
        because="The sentence names person and city.",
    ),
    TaskSpec(
        "name_and_animal_to_sentence",
        "You are given the name of a person, a colour and an animal. Write one sentence "
        "that says which animal the person has.",
        _record("name colour thing", "{name} has {a_colour} {thing}."),
        because="The sentence tells all three.",
    ),
    TaskSpec(
        "sentence_to_name_and_job",
        "Write the name and the job from the sentence as two fields separated by a comma.",
        _name_and_job,
        because="Name and job are separated by a comma.",
    ),
)

TABLE: Table = {
    "Question Answering": ANSWERING,
    "Information Extraction": EXTRACTION,
    "Sentence Kind": KINDS,
    "Text Matching": MATCHING,
    "Topic Classification": TOPICS,
    "Question Rewriting": QUESTIONS,
    "Text Modification": MODIFICATION,
    "Data to Text": DATA_TO_TEXT,
}
