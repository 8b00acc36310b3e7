"""Families over words and lists: copying, position, class, relation, form, spelling, editing."""

import operator
from collections.abc import Callable, Sequence

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, Table, TaskSpec, TextDrawer, labelled

VOWELS = "aeiou"
COUNTED = tuple(w for w in lex.ANIMALS + lex.THINGS + lex.JOBS if w not in lex.UNCOUNTED)


def words(low: int, high: int, answer: Callable[[list[str]], str]) -> Drawer:
    """Returns a drawer of `low` to `high` - 1 distinct words and of `answer(words)`."""

    def draw_words(draw: Draw) -> Drawn:
        drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(low, high))
        return " ".join(drawn), answer(drawn)

    return draw_words


def _quoted(draw: Draw) -> Drawn:
    drawn = draw.sample(lex.CONTENT_WORDS, 6)
    start = draw.integer(0, 5)
    stop = draw.integer(start + 1, 7)
    inside = " ".join(drawn[start:stop])
    return " ".join([*drawn[:start], f'"{inside}"', *drawn[stop:]]), inside


def _marked(offset: int) -> Drawer:
    def draw_marked(draw: Draw) -> Drawn:
        drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(4, 7))
        place = draw.integer(1, len(drawn) - 1)
        marked = [f"*{word}*" if position == place else word for position, word in enumerate(drawn)]
        return " ".join(marked), drawn[place + offset]

    return draw_marked


COPYING: tuple[TaskSpec, ...] = (
    TaskSpec(
        "copy_the_words",
        "You are given a few words. Copy all the words to the output without any change.",
        words(2, 6, " ".join),
        because="The words are copied.",
        difficulty="trivial",
    ),
    TaskSpec(
        "copy_quoted_words",
        "Some words of the input stand between quotation marks. Write only the words between "
        "the quotation marks.",
        _quoted,
        because="{answer} stands between quotation marks.",
    ),
    TaskSpec(
        "copy_word_twice",
        "You are given a word. Write this word twice, with a space between.",
        words(1, 2, lambda drawn: f"{drawn[0]} {drawn[0]}"),
        because="The word is written twice.",
        difficulty="trivial",
    ),
    TaskSpec(
        "always_thank_you",
        'You are given a few words. Do not use them. Write "thank you" as the output.',
        words(1, 5, lambda drawn: "thank you"),
        because="The output is always {answer}.",
        difficulty="trivial",
    ),
    TaskSpec(
        "always_yes_classification",
        'You are given a word. The label of every word is "yes", and the label "no" is '
        "never used. Write the label.",
        words(1, 3, lambda drawn: "yes"),
        labels=("yes", "no"),
        because="Every input has the label {answer}.",
        difficulty="trivial",
    ),
)

POSITION: tuple[TaskSpec, ...] = (
    *(
        TaskSpec(
            f"{which}_word",
            f"You are given a list of words. Write the {which} word of the list.",
            words(3, 7, operator.itemgetter(place)),
            because=f"{{answer}} is the {which} word.",
        )
        for which, place in (("first", 0), ("last", -1), ("second", 1))
    ),
    *(
        TaskSpec(
            f"word_{side}_the_star",
            "One word of the list has stars around it. Write the word that comes directly "
            f"{side} the word with the stars.",
            _marked(offset),
            because=f"{{answer}} comes {side} the marked word.",
            difficulty="medium",
        )
        for side, offset in (("before", -1), ("after", 1))
    ),
    TaskSpec(
        "word_with_the_star",
        "One word of the list has stars around it. Write the word with the stars, but without "
        "the stars.",
        _marked(0),
        because="{answer} is the marked word.",
    ),
)

CLASSIFICATION: tuple[TaskSpec, ...] = (
    labelled(
        "animal_or_plant_classification",
        "You are given a word. Decide whether it names an animal or a plant. "
        'Answer with "animal" or "plant".',
        "The word names one {answer}.",
        animal=lex.ANIMALS,
        plant=lex.PLANTS,
    ),
    labelled(
        "food_or_tool_classification",
        "Does the word name something to eat or something to work with? Answer with "
        '"food" or "tool".',
        "The word belongs to the class {answer}.",
        food=lex.FRUITS + lex.VEGETABLES + lex.DISHES,
        tool=lex.TOOLS + lex.VEHICLES + lex.FURNITURE,
    ),
    labelled(
        "person_or_place_classification",
        'You are given a name. Answer "person" if it is the name of a person and '
        '"place" if it is the name of a town or country.',
        "The name is the name of one {answer}.",
        person=lex.NAMES,
        place=lex.CITIES + lex.COUNTRIES,
    ),
    labelled(
        "woman_or_man_classification",
        'Is this the first name of a woman or of a man? Answer with "woman" or "man". '
        "The name comes with a job.",
        "It is the name of a {answer}.",
        woman=lambda draw: f"{draw.pick(lex.WOMEN)}, {draw.pick(lex.JOBS)}",
        man=lambda draw: f"{draw.pick(lex.MEN)}, {draw.pick(lex.JOBS)}",
    ),
    labelled(
        "living_or_not_classification",
        'Classify the word. Write "living" for animals and plants, and "thing" for '
        "tools, clothes, vehicles and furniture.",
        "The label of this word is {answer}.",
        living=lex.ANIMALS + lex.PLANTS,
        thing=lex.THINGS,
    ),
    labelled(
        "animal_no_or_yes_classification",
        'Answer "no" if the word names an animal. Answer "yes" if it names anything else.',
        "For this word the rule gives {answer}.",
        "medium",
        labels=("yes", "no"),
        no=lex.ANIMALS,
        yes=lex.PLANTS + lex.TOOLS + lex.JOBS + lex.VEHICLES,
    ),
    labelled(
        "animal_yes_or_no_classification",
        'Answer "yes" if the word names an animal. Answer "no" if it names anything else.',
        "For this word the rule gives {answer}.",
        yes=lex.ANIMALS,
        no=lex.PLANTS + lex.TOOLS + lex.JOBS + lex.VEHICLES,
    ),
    labelled(
        "wear_ride_or_sit_classification",
        'You are given two words for things of one kind. Answer "wear" for clothes, '
        '"ride" for vehicles and "sit" for furniture.',
        "The right label is {answer}.",
        wear=lambda draw: " ".join(draw.sample(lex.CLOTHES, 2)),
        ride=lambda draw: " ".join(draw.sample(lex.VEHICLES, 2)),
        sit=lambda draw: " ".join(draw.sample(lex.FURNITURE, 2)),
    ),
    labelled(
        "good_or_bad_word_classification",
        "You are given two adjectives. Do they describe something good or something "
        'bad? Answer with "good" or "bad".',
        "Both words describe something {answer}.",
        good=lambda draw: " ".join(draw.sample(lex.GOOD, 2)),
        bad=lambda draw: " ".join(draw.sample(lex.BAD, 2)),
    ),
    labelled(
        "fruit_or_vegetable_classification",
        "Two words of one class are given. Are they fruits or vegetables? Answer "
        'with "fruit" or "vegetable".',
        "Both belong to the class {answer}.",
        fruit=lambda draw: " and ".join(draw.sample(lex.FRUITS, 2)),
        vegetable=lambda draw: " and ".join(draw.sample(lex.VEGETABLES, 2)),
    ),
    labelled(
        "city_or_country_classification",
        'A person comes from somewhere. Is it a city or a country? Answer with "city" '
        'or "country".',
        "The place is a {answer}.",
        "medium",
        city=lambda draw: f"{draw.pick(lex.NAMES)} from {draw.pick(lex.CITIES)}",
        country=lambda draw: f"{draw.pick(lex.NAMES)} from {draw.pick(lex.COUNTRIES)}",
    ),
    labelled(
        "job_true_or_false_classification",
        'Answer "true" if the word names a job and "false" if it names an animal or '
        "a thing. The word comes with a colour.",
        "For this word the answer is {answer}.",
        true=lambda draw: f"{draw.pick(lex.COLOURS)} {draw.pick(lex.JOBS)}",
        false=lambda draw: f"{draw.pick(lex.COLOURS)} {draw.pick(lex.ANIMALS + lex.THINGS)}",
    ),
)


def _odd_one(draw: Draw) -> Drawn:
    kind, other = draw.sample(
        ("animal", "plant", "fruit", "vehicle", "job", "clothing", "body part", "colour"), 2
    )
    odd = draw.pick(lex.CLASSES[other])
    return ", ".join(draw.shuffled([*draw.sample(lex.CLASSES[kind], 3), odd])), odd


def _of_class(kind: str, others: tuple[str, ...]) -> Drawer:
    def draw_list(draw: Draw) -> Drawn:
        wanted = draw.pick(lex.CLASSES[kind])
        mixed = [draw.pick(lex.CLASSES[other]) for other in others]
        return ", ".join(draw.shuffled([*mixed, wanted])), wanted

    return draw_list


def _pair_kinds(draw: Draw) -> Drawn:
    kinds = ("animal", "plant", "tool", "job", "clothing", "colour")
    if draw.chance(0.5):
        return ", ".join(draw.sample(lex.CLASSES[draw.pick(kinds)], 2)), "alike"
    return ", ".join(draw.pick(lex.CLASSES[kind]) for kind in draw.sample(kinds, 2)), "unlike"


def _opposite(draw: Draw) -> Drawn:
    first, second = draw.shuffled(draw.pick(lex.OPPOSITES))
    return first, second


def _same_meaning(draw: Draw) -> Drawn:
    opposite = draw.chance(0.5)
    pair = draw.shuffled(draw.pick(lex.OPPOSITES if opposite else lex.SYNONYMS))
    return " / ".join(pair), "opposite" if opposite else "same"


def _opposite_in_list(draw: Draw) -> Drawn:
    first, second = draw.shuffled(draw.pick(lex.OPPOSITES))
    others = draw.sample(lex.CONTENT_WORDS, 2, (first, second))
    return f"{first}: {', '.join(draw.shuffled([second, *others]))}", second


RELATION: tuple[TaskSpec, ...] = (
    TaskSpec(
        "odd_one_out",
        "Three of the four words belong to one class. Write the word that does not belong to it.",
        _odd_one,
        because="{answer} is of another class than the other words.",
        difficulty="medium",
    ),
    TaskSpec(
        "find_the_plant",
        "One of the words in the list names a plant. Write that word.",
        _of_class("plant", ("animal", "tool", "job")),
        because="{answer} is a plant.",
    ),
    TaskSpec(
        "find_the_job",
        "One of the words in the list names the job of a person. Write that word.",
        _of_class("job", ("fruit", "vehicle", "clothing")),
        because="{answer} is a job.",
    ),
    TaskSpec(
        "find_the_clothes",
        "One of the words in the list names something to wear. Write that word.",
        _of_class("clothing", ("plant", "vehicle", "furniture")),
        because="People wear this: {answer}.",
    ),
    TaskSpec(
        "same_kind_classification",
        'You are given two words. If they belong to the same class, answer "alike". If not, '
        'answer "unlike".',
        _pair_kinds,
        ("alike", "unlike"),
        "The two words are {answer}.",
        "medium",
    ),
    TaskSpec(
        "opposite_of_word",
        "You are given a word. Write its antonym: a word with the opposite meaning.",
        _opposite,
        because="{answer} is the opposite.",
        difficulty="medium",
    ),
    TaskSpec(
        "opposite_in_list",
        "Write the word from the list after the colon that is the opposite of the word before "
        "the colon.",
        _opposite_in_list,
        because="{answer} is the opposite.",
    ),
    TaskSpec(
        "same_or_opposite_classification",
        'Two words are given. Answer "same" if they have the same meaning and '
        '"opposite" if they are opposites.',
        _same_meaning,
        ("same", "opposite"),
        "The meaning is the {answer}.",
        "medium",
    ),
)


def _form(table: Sequence[Sequence[str]], source: int, target: int, frame: str) -> Drawer:
    def draw_form(draw: Draw) -> Drawn:
        row = draw.pick(table)
        return frame.format(draw.pick(lex.NAMES), row[source]), row[target]

    return draw_form


def _plural_phrase(draw: Draw) -> Drawn:
    noun = draw.pick(COUNTED)
    return noun, lex.plural(noun)


def _described(vowel: bool) -> TextDrawer:
    adjectives = [w for w in lex.GOOD + lex.BAD + lex.COLOURS if (w[0] in VOWELS) == vowel]
    return lambda draw: f"{draw.pick(adjectives)} {draw.pick(lex.ANIMALS + lex.JOBS)}"


FORMS: tuple[TaskSpec, ...] = (
    TaskSpec(
        "plural_of_noun",
        "You are given a noun in the singular. Write its plural.",
        _plural_phrase,
        because="{answer} is the plural.",
        difficulty="medium",
    ),
    TaskSpec(
        "past_of_verb",
        "The input is a short sentence in the present tense. Write only its verb in "
        "the past tense.",
        _form(lex.VERBS, 1, 2, "{} {}."),
        because="{answer} is the past tense.",
        difficulty="medium",
    ),
    TaskSpec(
        "base_of_verb",
        "The input is a short sentence in the past tense. Write only its verb in the "
        "basic form, as after the word to.",
        _form(lex.VERBS, 2, 0, "{} {}."),
        because="{answer} is the basic form.",
        difficulty="medium",
    ),
    TaskSpec(
        "ing_form_of_verb",
        "You are given a person and a verb. Write the verb in the form that ends with ing.",
        _form(lex.VERBS, 0, 3, "{}, {}"),
        because="{answer} ends with ing.",
        difficulty="medium",
    ),
    labelled(
        "one_or_many_classification",
        'Does the noun stand for one thing or for several things? Answer with "one" or "many".',
        "The noun stands for {answer}.",
        "medium",
        one=COUNTED,
        many=lambda draw: lex.plural(draw.pick(COUNTED)),
    ),
    labelled(
        "a_or_an_classification",
        'Which article comes before the words? Answer with "a" or "an".',
        "The article is {answer}.",
        "medium",
        a=_described(False),
        an=_described(True),
    ),
)


def _caesar(word: str) -> str:
    return "".join(chr((ord(letter) - ord("a") + 1) % 26 + ord("a")) for letter in word)


def _has_letter(present: bool) -> TextDrawer:
    def draw_letter(draw: Draw) -> str:
        word = draw.pick(lex.CONTENT_WORDS)
        letters = [letter for letter in "abcdeghiklmnoprstu" if (letter in word) == present]
        return f"{draw.pick(letters)}: {word}"

    return draw_letter


SPELLING: tuple[TaskSpec, ...] = (
    TaskSpec(
        "spell_backwards",
        "You are given a word. Write its letters in reverse order, from the last to the first.",
        words(1, 2, lambda drawn: drawn[0][::-1]),
        because="The letters are in reverse order.",
        difficulty="hard",
    ),
    TaskSpec(
        "count_vowels",
        "Count the vowels (a, e, i, o, u) of the given word. Write the number in digits.",
        words(1, 2, lambda drawn: str(sum(letter in VOWELS for letter in drawn[0]))),
        because="The word has {answer} vowels.",
        difficulty="hard",
    ),
    TaskSpec(
        "shift_the_letters",
        "Replace every letter of the word by the next letter of the alphabet. After z comes a.",
        words(1, 2, lambda drawn: _caesar(drawn[0])),
        because="Every letter is shifted by one.",
        difficulty="hard",
    ),
    TaskSpec(
        "last_letter",
        "You are given a word. Write its last letter.",
        words(1, 2, lambda drawn: drawn[0][-1]),
        because="The word ends with {answer}.",
        difficulty="hard",
    ),
    labelled(
        "letter_in_word_classification",
        "You are given a letter and a word. Is the letter part of the word? Answer "
        'with "present" or "absent".',
        "The letter is {answer}.",
        "hard",
        present=_has_letter(True),
        absent=_has_letter(False),
    ),
    labelled(
        "starts_with_vowel_classification",
        "Does the word start with a vowel (a, e, i, o, u) or with a consonant? "
        'Answer with "vowel" or "consonant".',
        "The first letter is a {answer}.",
        "hard",
        vowel=tuple(w for w in lex.CONTENT_WORDS if w[0] in VOWELS),
        consonant=tuple(w for w in lex.CONTENT_WORDS if w[0] not in VOWELS),
    ),
)


def _with_repeat(draw: Draw) -> Drawn:
    drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(2, 4))
    repeated = draw.integer(0, len(drawn))
    doubled = [*drawn[: repeated + 1], *drawn[repeated:]]
    return " ".join(doubled), " ".join(drawn)


def _how_many(draw: Draw) -> Drawn:
    drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(1, 7))
    return ", ".join(drawn), lex.number_word(len(drawn))


def _repeats(repeated: bool) -> TextDrawer:
    def draw_list(draw: Draw) -> str:
        drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(3, 6))
        return " ".join(draw.shuffled([*drawn[1:], drawn[1]]) if repeated else drawn)

    return draw_list


def _star_at(end: bool) -> TextDrawer:
    def draw_list(draw: Draw) -> str:
        drawn = draw.sample(lex.CONTENT_WORDS, draw.integer(3, 6))
        place = -1 if end else 0
        drawn[place] = f"*{drawn[place]}*"
        return " ".join(drawn)

    return draw_list


LISTS: tuple[TaskSpec, ...] = (
    TaskSpec(
        "reverse_the_words",
        "You are given a list of words. Write the words in reverse order.",
        words(2, 5, lambda drawn: " ".join(drawn[::-1])),
        because="The order is reversed.",
        difficulty="medium",
    ),
    *(
        TaskSpec(
            f"remove_the_{which}_word",
            f"You are given a list of words. Remove the {which} word and write all the others.",
            words(3, 6, answer),
            because=f"The {which} word is removed.",
        )
        for which, answer in (
            ("first", lambda drawn: " ".join(drawn[1:])),
            ("last", lambda drawn: " ".join(drawn[:-1])),
        )
    ),
    TaskSpec(
        "remove_the_repeated_word",
        "One word of the list is written twice in a row. Write the list with this word "
        "written once.",
        _with_repeat,
        because="No word is written twice.",
    ),
    TaskSpec(
        "sort_the_words",
        "You are given a list of words. Sort the words in alphabetical order.",
        words(2, 4, lambda drawn: " ".join(sorted(drawn))),
        because="The words are sorted.",
        difficulty="hard",
    ),
    TaskSpec(
        "join_words_with_and",
        'You are given two or three words. Write them with "and" between all of them.',
        words(2, 4, " and ".join),
        because="The words are joined.",
    ),
    TaskSpec(
        "count_the_words",
        "Count the words of the list. Write the count as a word, not in digits.",
        _how_many,
        because="The list has {answer} words.",
        difficulty="medium",
    ),
    labelled(
        "repeated_or_unique_classification",
        'Does a word occur twice in the list? Answer "repeated" if one does, and '
        '"unique" if every word occurs once.',
        "The right label is {answer}.",
        "medium",
        repeated=_repeats(True),
        unique=_repeats(False),
    ),
    labelled(
        "star_at_start_or_end_classification",
        "One word has stars around it. Is it the first or the last word? Answer "
        'with "start" or "end".',
        "The marked word is at the {answer}.",
        start=_star_at(False),
        end=_star_at(True),
    ),
)

TABLE: Table = {
    "Text Copying": COPYING,
    "Word Position": POSITION,
    "Word Classification": CLASSIFICATION,
    "Word Relation": RELATION,
    "Word Form": FORMS,
    "Spelling": SPELLING,
    "List Editing": LISTS,
}
