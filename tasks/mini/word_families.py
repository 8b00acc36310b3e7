"""Families over words and lists: copying, position, class, relation, form, spelling, editing."""

import operator
from collections.abc import Callable, Sequence

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, TextDrawer, filled, labelled

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
    return filled("{} {}", adjectives, lex.ANIMALS + lex.JOBS)


def _caesar(word: str) -> str:
    return "".join(chr((ord(letter) - ord("a") + 1) % 26 + ord("a")) for letter in word)


def _has_letter(present: bool) -> TextDrawer:
    def draw_letter(draw: Draw) -> str:
        word = draw.pick(lex.CONTENT_WORDS)
        letters = [letter for letter in "abcdeghiklmnoprstu" if (letter in word) == present]
        return f"{draw.pick(letters)}: {word}"

    return draw_letter


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


def _two(separator: str, choices: Sequence[str]) -> TextDrawer:
    return lambda draw: separator.join(draw.sample(choices, 2))


DRAWERS: dict[str, Drawer] = {
    "copy_the_words": words(2, 6, " ".join),
    "copy_quoted_words": _quoted,
    "copy_word_twice": words(1, 2, lambda drawn: f"{drawn[0]} {drawn[0]}"),
    "always_thank_you": words(1, 5, lambda drawn: "thank you"),
    "always_yes_classification": words(1, 3, lambda drawn: "yes"),
    "first_word": words(3, 7, operator.itemgetter(0)),
    "last_word": words(3, 7, operator.itemgetter(-1)),
    "second_word": words(3, 7, operator.itemgetter(1)),
    "word_before_the_star": _marked(-1),
    "word_after_the_star": _marked(1),
    "word_with_the_star": _marked(0),
    "animal_or_plant_classification": labelled(animal=lex.ANIMALS, plant=lex.PLANTS),
    "food_or_tool_classification": labelled(
        food=lex.FRUITS + lex.VEGETABLES + lex.DISHES, tool=lex.TOOLS + lex.VEHICLES + lex.FURNITURE
    ),
    "person_or_place_classification": labelled(person=lex.NAMES, place=lex.CITIES + lex.COUNTRIES),
    "woman_or_man_classification": labelled(
        woman=filled("{}, {}", lex.WOMEN, lex.JOBS), man=filled("{}, {}", lex.MEN, lex.JOBS)
    ),
    "living_or_not_classification": labelled(living=lex.ANIMALS + lex.PLANTS, thing=lex.THINGS),
    "animal_no_or_yes_classification": labelled(
        no=lex.ANIMALS, yes=lex.PLANTS + lex.TOOLS + lex.JOBS + lex.VEHICLES
    ),
    "animal_yes_or_no_classification": labelled(
        yes=lex.ANIMALS, no=lex.PLANTS + lex.TOOLS + lex.JOBS + lex.VEHICLES
    ),
    "wear_ride_or_sit_classification": labelled(
        wear=_two(" ", lex.CLOTHES), ride=_two(" ", lex.VEHICLES), sit=_two(" ", lex.FURNITURE)
    ),
    "good_or_bad_word_classification": labelled(good=_two(" ", lex.GOOD), bad=_two(" ", lex.BAD)),
    "fruit_or_vegetable_classification": labelled(
        fruit=_two(" and ", lex.FRUITS), vegetable=_two(" and ", lex.VEGETABLES)
    ),
    "city_or_country_classification": labelled(
        city=filled("{} from {}", lex.NAMES, lex.CITIES),
        country=filled("{} from {}", lex.NAMES, lex.COUNTRIES),
    ),
    "job_true_or_false_classification": labelled(
        true=filled("{} {}", lex.COLOURS, lex.JOBS),
        false=filled("{} {}", lex.COLOURS, lex.ANIMALS + lex.THINGS),
    ),
    "odd_one_out": _odd_one,
    "find_the_plant": _of_class("plant", ("animal", "tool", "job")),
    "find_the_job": _of_class("job", ("fruit", "vehicle", "clothing")),
    "find_the_clothes": _of_class("clothing", ("plant", "vehicle", "furniture")),
    "same_kind_classification": _pair_kinds,
    "opposite_of_word": _opposite,
    "opposite_in_list": _opposite_in_list,
    "same_or_opposite_classification": _same_meaning,
    "plural_of_noun": _plural_phrase,
    "past_of_verb": _form(lex.VERBS, 1, 2, "{} {}."),
    "base_of_verb": _form(lex.VERBS, 2, 0, "{} {}."),
    "ing_form_of_verb": _form(lex.VERBS, 0, 3, "{}, {}"),
    "one_or_many_classification": labelled(
        one=COUNTED, many=lambda draw: lex.plural(draw.pick(COUNTED))
    ),
    "a_or_an_classification": labelled(a=_described(False), an=_described(True)),
    "spell_backwards": words(1, 2, lambda drawn: drawn[0][::-1]),
    "count_vowels": words(1, 2, lambda drawn: str(sum(letter in VOWELS for letter in drawn[0]))),
    "shift_the_letters": words(1, 2, lambda drawn: _caesar(drawn[0])),
    "last_letter": words(1, 2, lambda drawn: drawn[0][-1]),
    "letter_in_word_classification": labelled(present=_has_letter(True), absent=_has_letter(False)),
    "starts_with_vowel_classification": labelled(
        vowel=tuple(w for w in lex.CONTENT_WORDS if w[0] in VOWELS),
        consonant=tuple(w for w in lex.CONTENT_WORDS if w[0] not in VOWELS),
    ),
    "reverse_the_words": words(2, 5, lambda drawn: " ".join(drawn[::-1])),
    "remove_the_first_word": words(3, 6, lambda drawn: " ".join(drawn[1:])),
    "remove_the_last_word": words(3, 6, lambda drawn: " ".join(drawn[:-1])),
    "remove_the_repeated_word": _with_repeat,
    "sort_the_words": words(2, 4, lambda drawn: " ".join(sorted(drawn))),
    "join_words_with_and": words(2, 4, " and ".join),
    "count_the_words": _how_many,
    "repeated_or_unique_classification": labelled(repeated=_repeats(True), unique=_repeats(False)),
    "star_at_start_or_end_classification": labelled(start=_star_at(False), end=_star_at(True)),
}
