"""The families of the test split: no task of these families is ever trained on.

They share skills with the other families (copy a span, choose a label named in the definition,
look up a word's class), so that following instructions is what carries over.
"""

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, Table, TaskSpec, TextDrawer, labelled
from ait_jax.tasks.mini.scenes import Scene, scene, two_scenes
from ait_jax.tasks.mini.sentence_families import from_scene


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


def _opinion_word(draw: Draw) -> Drawn:
    word = draw.pick(lex.GOOD + lex.BAD)
    return f"{draw.pick(lex.NAMES)} said that the {draw.pick(lex.REVIEWED)} was {word}.", word


SENTIMENT: tuple[TaskSpec, ...] = (
    labelled(
        "review_sentiment_classification",
        'Read a short review and classify its sentiment. Answer with "positive" or "negative".',
        "The review is {answer}.",
        positive=_review(lex.GOOD),
        negative=_review(lex.BAD),
    ),
    labelled(
        "recommended_or_not_classification",
        'Would the writer recommend this? Answer "recommended" if the writer liked '
        'it and "avoid" if the writer did not.',
        "The right label is {answer}.",
        recommended=_review(lex.GOOD),
        avoid=_review(lex.BAD),
    ),
    TaskSpec(
        "two_opinions_classification",
        'Two people say what they think. Answer "agreement" if both liked it or both '
        'did not, and "quarrel" otherwise.',
        _two_opinions,
        ("agreement", "quarrel"),
        "That is a {answer}.",
        "hard",
    ),
    TaskSpec(
        "opinion_word",
        "Write the one word of the sentence that shows an opinion.",
        _opinion_word,
        because="{answer} shows an opinion.",
    ),
)


def _entail(draw: Draw) -> Drawn:
    premise, other = two_scenes(draw)
    holds = draw.chance(0.5)
    place, thing = (premise.place, premise.thing) if holds else (other.place, other.thing)
    hypothesis = draw.pick(
        (
            f"{premise.person} was in the {place}.",
            f"{premise.person} {premise.past} {lex.with_article(thing)}.",
        )
    )
    return (
        f"Premise: {premise.placed()} Hypothesis: {hypothesis}",
        "entailment" if holds else "contradiction",
    )


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
    second = (
        f"{drawn.person} did not {drawn.base} {lex.with_article(drawn.thing)}."
        if denied
        else drawn.short()
    )
    return f"{drawn.short()} {second}", "conflict" if denied else "same"


ENTAILMENT: tuple[TaskSpec, ...] = (
    TaskSpec(
        "premise_hypothesis_classification",
        'Does the hypothesis follow from the premise? Answer with "entailment" if it '
        'does and "contradiction" if it does not.',
        _entail,
        ("entailment", "contradiction"),
        "This is {answer}.",
        "hard",
    ),
    TaskSpec(
        "class_conclusion_classification",
        'Read a fact and a conclusion. Is the conclusion right? Answer with "valid" or "invalid".',
        _kind_follows,
        ("valid", "invalid"),
        "The conclusion is {answer}.",
        "hard",
    ),
    TaskSpec(
        "conflicting_sentences_classification",
        'Answer "conflict" if the second sentence denies the first one, and '
        '"same" if it says the same.',
        _negated,
        ("conflict", "same"),
        "The right label is {answer}.",
        "medium",
    ),
)


def _pronoun(asked_subject: bool) -> Drawer:
    def draw_pronoun(draw: Draw) -> Drawn:
        woman, man = draw.pick(lex.WOMEN), draw.pick(lex.MEN)
        first, second = draw.shuffled((woman, man))
        adjective = draw.pick(("tired", "happy", "late", "ill", "angry", "hungry", "busy"))
        asked = first if asked_subject else second
        pronoun = "she" if asked == woman else "he"
        return (
            f"{first} met {second} in the {draw.pick(lex.PLACES)}, and {pronoun} was {adjective}.",
            asked,
        )

    return draw_pronoun


def _either(draw: Draw) -> Drawn:
    return _pronoun(draw.chance(0.5))(draw)


def _it(draw: Draw) -> Drawn:
    drawn = scene(draw)
    word = draw.pick(lex.GOOD)
    return (
        f"{drawn.person} {drawn.past} {lex.with_article(drawn.thing)}. It was {word}.",
        drawn.thing,
    )


def _replace_pronoun(draw: Draw) -> Drawn:
    drawn = scene(draw)
    pronoun = "She" if drawn.person in lex.WOMEN else "He"
    feeling = draw.pick(("was happy", "was tired", "went home", "felt fine", "was late"))
    return f"{drawn.short()} {pronoun} {feeling}.", f"{drawn.person} {feeling}."


COREFERENCE: tuple[TaskSpec, ...] = (
    TaskSpec(
        "who_is_the_pronoun",
        "The sentence has two people and a pronoun. Write the name of the person for whom the "
        "pronoun stands.",
        _either,
        because="The pronoun stands for {answer}.",
        difficulty="medium",
    ),
    TaskSpec(
        "what_is_it",
        'Read the two sentences. Write the noun for which the word "It" stands.',
        _it,
        because="It stands for {answer}.",
    ),
    TaskSpec(
        "replace_the_pronoun",
        "Write only the second sentence, with the person's name in the place of the pronoun.",
        _replace_pronoun,
        because="The name is in the place of the pronoun.",
        difficulty="medium",
    ),
    labelled(
        "pronoun_gender_classification",
        'Is the person in the sentence called by "she" or by "he"? Answer with the pronoun.',
        "The pronoun is {answer}.",
        she=lambda draw: scene(draw, person=draw.pick(lex.WOMEN)).short(),
        he=lambda draw: scene(draw, person=draw.pick(lex.MEN)).short(),
    ),
)


def _keyword(kind: str, frame: str) -> Drawer:
    def draw_keyword(draw: Draw) -> Drawn:
        word, person = draw.pick(lex.CLASSES[kind]), draw.pick(lex.NAMES)
        place, colour = draw.pick(lex.PLACES), draw.pick(lex.COLOURS)
        return frame.format(person=person, place=place, colour=colour, word=word), word

    return draw_keyword


KEYWORDS: tuple[TaskSpec, ...] = (
    TaskSpec(
        "tag_the_animal",
        "Tag the animal: write the word of the sentence that names an animal.",
        _keyword("animal", "{person} met the {colour} {word} near the {place}."),
        because="{answer} is an animal.",
    ),
    TaskSpec(
        "tag_the_vehicle",
        "Tag the vehicle: write the word of the sentence that names something to travel in.",
        _keyword("vehicle", "The {word} of {person} stood behind the {place}."),
        because="{answer} is a vehicle.",
    ),
    TaskSpec(
        "tag_the_place",
        "Tag the place: write the word of the sentence that says where it happened.",
        from_scene(Scene.full, lambda s: s.place),
        because="{answer} is the place.",
    ),
    TaskSpec(
        "tag_two_keywords",
        "Write the two keywords of the sentence: the person and the thing, separated by a comma.",
        from_scene(Scene.coloured, lambda s: f"{s.person}, {s.thing}"),
        because="These are person and thing.",
        difficulty="medium",
    ),
)


def _title(draw: Draw) -> Drawn:
    drawn = scene(draw)
    ending = draw.pick(
        ("It was a long day.", "Nobody knew why.", "Then the rain came.", "Everyone was pleased.")
    )
    return f"{drawn.short()} {ending}", (
        f"{drawn.person} and the {drawn.thing}",
        f"The {drawn.thing} of {drawn.person}",
    )


def _headline(draw: Draw) -> Drawn:
    drawn = scene(draw)
    return drawn.full(), f"{drawn.person} {drawn.past} {drawn.thing}"


TITLES: tuple[TaskSpec, ...] = (
    TaskSpec(
        "title_of_a_story",
        "Write a title for the short story. The title names the person and the thing, joined by "
        '"and the".',
        _title,
        because="The title names person and thing.",
        difficulty="medium",
    ),
    TaskSpec(
        "headline_of_a_sentence",
        "Make the sentence short, as in a newspaper: write only the person, the verb and the "
        "thing.",
        _headline,
        because="Only the three most important words are kept.",
        difficulty="medium",
    ),
)


def _answerable(draw: Draw) -> Drawn:
    drawn = scene(draw)
    answerable = draw.chance(0.5)
    asked = draw.pick((f"Who {drawn.past} it?", f"What did {drawn.person} {drawn.base}?"))
    unknown = draw.pick((f"How old is {drawn.person}?", f"Why did {drawn.person} {drawn.base} it?"))
    return (
        f"{drawn.short()} {asked if answerable else unknown}",
        "answerable" if answerable else "unanswerable",
    )


def _mentions(draw: Draw) -> Drawn:
    drawn = scene(draw)
    known = draw.chance(0.5)
    person = drawn.person if known else draw.sample(lex.NAMES, 1, [drawn.person])[0]
    return f"{drawn.placed()} Where was {person}?", "known" if known else "unknown"


ANSWERABILITY: tuple[TaskSpec, ...] = (
    TaskSpec(
        "answerable_question_classification",
        "Can the question be answered from the sentence before it? Answer with "
        '"answerable" or "unanswerable".',
        _answerable,
        ("answerable", "unanswerable"),
        "The question is {answer}.",
        "medium",
    ),
    TaskSpec(
        "known_person_classification",
        'Does the sentence tell where the person in the question was? Answer with "known" '
        'or "unknown".',
        _mentions,
        ("known", "unknown"),
        "The place is {answer}.",
        "medium",
    ),
)


def _overlap(draw: Draw) -> Drawn:
    words = draw.sample(lex.CONTENT_WORDS, 5)
    common = words[0]
    lists = draw.shuffled([common, *words[1:3]]), draw.shuffled([common, *words[3:]])
    return f"{' '.join(lists[0])} | {' '.join(lists[1])}", common


def _sentence_overlap(draw: Draw) -> Drawn:
    first, second = two_scenes(draw)
    return f"{first.short()} {second.person} {second.past} the {first.thing}.", first.thing


OVERLAP: tuple[TaskSpec, ...] = (
    TaskSpec(
        "common_word_of_two_lists",
        "Two lists are separated by a bar. Write the word that is in both lists.",
        _overlap,
        because="{answer} is in both lists.",
        difficulty="medium",
    ),
    TaskSpec(
        "common_noun_of_two_sentences",
        "Read two sentences. Write the noun that is in both sentences.",
        _sentence_overlap,
        because="{answer} is in both sentences.",
    ),
)

TABLE: Table = {
    "Sentiment Analysis": SENTIMENT,
    "Textual Entailment": ENTAILMENT,
    "Coreference Resolution": COREFERENCE,
    "Keyword Tagging": KEYWORDS,
    "Title Generation": TITLES,
    "Answerability Classification": ANSWERABILITY,
    "Overlap Extraction": OVERLAP,
}
