"""The words of the built-in pool, by semantic class.

Written by hand for this project. A word is in at most one of the classes that tasks contrast (an
animal is never also a plant), so that every label is certain.
"""

import tomllib
from pathlib import Path

_TEXTS = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))


def _words(name: str) -> tuple[str, ...]:
    return tuple(_TEXTS[name].split())


def _rows(name: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split("/")) for row in _words(name))


# Class name -> its words: the classes that tasks on categories name.
CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split()) for name, words in _TEXTS["classes"].items()
}
ANIMALS = CLASSES["animal"]
PLANTS = CLASSES["plant"]
FRUITS = CLASSES["fruit"]
VEGETABLES = CLASSES["vegetable"]
DISHES = _words("dishes")
DRINKS = CLASSES["drink"]
TOOLS = CLASSES["tool"]
VEHICLES = CLASSES["vehicle"]
CLOTHES = CLASSES["clothing"]
FURNITURE = CLASSES["furniture"]
BODY_PARTS = CLASSES["body part"]
INSTRUMENTS = CLASSES["instrument"]
SPORTS = CLASSES["sport"]
JOBS = CLASSES["job"]
WOMEN = _words("women")
MEN = _words("men")
NAMES = WOMEN + MEN
CITIES = _words("cities")
COUNTRIES = _words("countries")
PLACES = _words("places")
INDOOR_PLACES = _words("indoor_places")
OUTDOOR_PLACES = _words("outdoor_places")
COLOURS = CLASSES["colour"]
DAYS = _words("days")
MONTHS = _words("months")
MATERIALS = _words("materials")
REVIEWED = _words("reviewed")

UNITS = _words("units")
TENS = _words("tens")


def number_word(number: int) -> str:
    """Returns the English words of `number`, 0 to 99 ("forty-two")."""
    if number < 20:
        return UNITS[number]
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[units]}" if units else "")


VERBS = _rows("verbs")
ACTIONS = _rows("actions")

GOOD = _words("good")
BAD = _words("bad")
OPPOSITES = _rows("opposites")
SYNONYMS = _rows("synonyms")
_IRREGULAR = _rows("irregular")
IRREGULAR_PLURALS = {singular: plural for singular, plural in _IRREGULAR}
UNCOUNTED = frozenset(_words("uncounted"))
BY_WEIGHT = _words("by_weight")
CAPITALS = _rows("capitals")
THINGS = tuple(
    word
    for words in (TOOLS, VEHICLES, CLOTHES, FURNITURE, INSTRUMENTS)
    for word in words
    if word not in UNCOUNTED
)
_CONTENT = (
    ANIMALS, PLANTS, FRUITS, VEGETABLES, TOOLS, VEHICLES, CLOTHES, FURNITURE, JOBS, PLACES, COLOURS,
    GOOD, BAD,
)  # fmt: skip
CONTENT_WORDS = tuple(dict.fromkeys(word for words in _CONTENT for word in words))


def plural(noun: str) -> str:
    """Returns the plural of a noun of this lexicon."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun in UNCOUNTED:
        return noun
    if noun.endswith(("fisherman", "postman")):
        return noun[:-3] + "men"
    if noun in ("potato", "tomato", "mango") or noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def with_article(noun: str) -> str:
    """Returns "an apple" or "a dog"."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
