"""The families of the test split: no task of these families is ever trained on.

They share skills with the other families (copy a span, choose a label named in the definition,
look up a word's class), so that following instructions is what carries over.
"""

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, TextDrawer, labelled
from ait_jax.tasks.mini.scenes import scene, told
from ait_jax.tasks.mini.sentence_families import fact


def _review(adjectives: tuple[str, ...]) -> TextDrawer:
    return lambda draw: draw.pick(
        ("The {} in {} was {}.", "This {} from {} is {}.", "We saw the {} in {}, and it was {}.")
    ).format(draw.pick(lex.REVIEWED), draw.pick(lex.CITIES), draw.pick(adjectives))


def _two_opinions(draw: Draw) -> Drawn:
    first, second = draw.pick(("GG", "BB", "GB", "BG"))
    words = [draw.pick(lex.GOOD if polarity == "G" else lex.BAD) for polarity in (first, second)]
    people = draw.sample(lex.NAMES, 2)
    text = f"{people[0]} found it {words[0]} and {people[1]} found it {words[1]}."
    return text, "agreement" if first == second else "quarrel"


def _kind_follows(draw: Draw) -> Drawn:
    kinds = ("animal", "plant", "vehicle", "tool", "fruit")
    kind, other = draw.sample(kinds, 2)
    person, word = draw.pick(lex.NAMES), draw.pick(lex.CLASSES[kind])
    follows = draw.chance(0.5)
    concluded = lex.with_article(kind if follows else other)
    return (
        f"{person} has {lex.with_article(word)}. So {person} has {concluded}.",
        "valid" if follows else "invalid",
    )


def _negated(draw: Draw) -> Drawn:
    drawn = scene(draw)
    denied = draw.chance(0.5)
    second = f"{drawn.person} did not {drawn.base} {drawn.a_thing}." if denied else drawn.short
    return f"{drawn.short} {second}", "conflict" if denied else "same"


def _pronoun(draw: Draw) -> Drawn:
    asked_subject = draw.chance(0.5)
    woman, man = draw.pick(lex.WOMEN), draw.pick(lex.MEN)
    first, second = draw.shuffled((woman, man))
    adjective = draw.pick(("tired", "happy", "late", "ill", "angry", "hungry", "busy"))
    asked = first if asked_subject else second
    pronoun = "she" if asked == woman else "he"
    place = draw.pick(lex.PLACES)
    return f"{first} met {second} in the {place}, and {pronoun} was {adjective}.", asked


def _it(draw: Draw) -> Drawn:
    drawn = scene(draw)
    word = draw.pick(lex.GOOD)
    return f"{drawn.short} It was {word}.", drawn.thing


def _replace_pronoun(draw: Draw) -> Drawn:
    drawn = scene(draw)
    pronoun = "She" if drawn.person in lex.WOMEN else "He"
    feeling = draw.pick(("was happy", "was tired", "went home", "felt fine", "was late"))
    return f"{drawn.short} {pronoun} {feeling}.", f"{drawn.person} {feeling}."


def _answerable(draw: Draw) -> Drawn:
    drawn = scene(draw)
    answerable = draw.chance(0.5)
    asked = draw.pick((f"Who {drawn.past} it?", f"What did {drawn.person} {drawn.base}?"))
    unknown = draw.pick((f"How old is {drawn.person}?", f"Why did {drawn.person} {drawn.base} it?"))
    return (
        f"{drawn.short} {asked if answerable else unknown}",
        "answerable" if answerable else "unanswerable",
    )


def _mentions(draw: Draw) -> Drawn:
    drawn = scene(draw)
    known = draw.chance(0.5)
    person = drawn.person if known else draw.sample(lex.NAMES, 1, [drawn.person])[0]
    return f"{drawn.placed} Where was {person}?", "known" if known else "unknown"


def _overlap(draw: Draw) -> Drawn:
    words = draw.sample(lex.CONTENT_WORDS, 5)
    common = words[0]
    lists = draw.shuffled([common, *words[1:3]]), draw.shuffled([common, *words[3:]])
    return f"{' '.join(lists[0])} | {' '.join(lists[1])}", common


_SETTING = {"person": lex.NAMES, "place": lex.PLACES, "colour": lex.COLOURS}
DRAWERS: dict[str, Drawer] = {
    "review_sentiment_classification": labelled(
        positive=_review(lex.GOOD), negative=_review(lex.BAD)
    ),
    "recommended_or_not_classification": labelled(
        recommended=_review(lex.GOOD), avoid=_review(lex.BAD)
    ),
    "two_opinions_classification": _two_opinions,
    "opinion_word": fact(
        "{person} said that the {thing} was {word}.",
        "{word}",
        word=lex.GOOD + lex.BAD,
        person=lex.NAMES,
        thing=lex.REVIEWED,
    ),
    "class_conclusion_classification": _kind_follows,
    "conflicting_sentences_classification": _negated,
    "who_is_the_pronoun": _pronoun,
    "what_is_it": _it,
    "replace_the_pronoun": _replace_pronoun,
    "pronoun_gender_classification": labelled(
        she=told("{s.short}", person=lex.WOMEN), he=told("{s.short}", person=lex.MEN)
    ),
    "tag_the_animal": fact(
        "{person} met the {colour} {word} near the {place}.", "{word}", word=lex.ANIMALS, **_SETTING
    ),
    "tag_the_vehicle": fact(
        "The {word} of {person} stood behind the {place}.", "{word}", word=lex.VEHICLES, **_SETTING
    ),
    "answerable_question_classification": _answerable,
    "known_person_classification": _mentions,
    "common_word_of_two_lists": _overlap,
}
