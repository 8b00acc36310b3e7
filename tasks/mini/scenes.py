"""Small scenes in words: who did what with which thing, where and when."""

from collections.abc import Sequence
from dataclasses import dataclass

from ait_jax.tasks.mini import lexicon
from ait_jax.tasks.mini.generator import Draw, Drawer, Drawn, TextDrawer

_OBJECTS = lexicon.CLASSES | {"thing": lexicon.THINGS}


@dataclass(frozen=True)
class Scene:
    """One event: `person` `past` a `colour` `thing` in the `place` on `day`."""

    person: str
    past: str
    base: str
    colour: str
    thing: str
    place: str
    day: str

    @property
    def noun(self) -> str:
        """The thing with its colour."""
        return f"{self.colour} {self.thing}"

    @property
    def a_colour(self) -> str:
        """The colour with an article."""
        return lexicon.with_article(self.colour)

    @property
    def a_thing(self) -> str:
        """The thing with an article."""
        return lexicon.with_article(self.thing)

    @property
    def a_noun(self) -> str:
        """The thing with its colour and an article."""
        return lexicon.with_article(self.noun)

    @property
    def short(self) -> str:
        """As in "Anna bought a hammer."."""
        return f"{self.person} {self.past} {self.a_thing}."

    @property
    def coloured(self) -> str:
        """As in "Anna bought a red hammer."."""
        return f"{self.person} {self.past} {self.a_noun}."

    @property
    def placed(self) -> str:
        """As in "Anna bought a hammer in the park."."""
        return f"{self.short[:-1]} in the {self.place}."

    @property
    def full(self) -> str:
        """As in "On Monday Anna bought a red hammer in the park."."""
        return f"On {self.day} {self.coloured[:-1]} in the {self.place}."

    @property
    def command(self) -> str:
        """As in "Buy the red hammer"."""
        return f"{self.base} the {self.noun}".capitalize()


def scene(draw: Draw, **fixed: str) -> Scene:
    """Draws a scene, except for the fields in `fixed`."""
    past, base, kind = draw.pick(lexicon.ACTIONS)
    drawn = {
        "person": draw.pick(lexicon.NAMES),
        "past": past,
        "base": base,
        "colour": draw.pick(lexicon.COLOURS),
        "thing": draw.pick([word for word in _OBJECTS[kind] if word not in lexicon.UNCOUNTED]),
        "place": draw.pick(lexicon.PLACES),
        "day": draw.pick(lexicon.DAYS),
    }
    return Scene(**{**drawn, **fixed})


def two_scenes(draw: Draw) -> tuple[Scene, Scene]:
    """Draws two scenes that differ in person, action, thing, color and place."""
    first = scene(draw)
    while True:
        second = scene(draw)
        fields = ("person", "past", "thing", "colour", "place")
        if all(getattr(first, field) != getattr(second, field) for field in fields):
            return first, second


def told(*texts: str, **choices: Sequence[str]) -> TextDrawer:
    """Returns what draws one of `texts` about a scene s, whose fields are drawn from `choices`."""

    def draw_text(draw: Draw) -> str:
        drawn = scene(draw, **{field: draw.pick(words) for field, words in choices.items()})
        return draw.pick(texts).format(s=drawn)

    return draw_text


def about_scene(texts: Sequence[str], answers: Sequence[str]) -> Drawer:
    """Returns a drawer of one of `texts` about a scene s, and of all `answers`."""

    def draw_scene(draw: Draw) -> Drawn:
        drawn = scene(draw)
        return draw.pick(texts).format(s=drawn), tuple(one.format(s=drawn) for one in answers)

    return draw_scene


def about_two_scenes(texts: Sequence[str], answers: Sequence[str]) -> Drawer:
    """Returns a drawer of one of `texts` about scenes a and b, of which either is asked about.

    The first of `answers` is right if a is asked about, the second if b is.
    """

    def draw_scenes(draw: Draw) -> Drawn:
        first, second = two_scenes(draw)
        asked, answer = (first, answers[0]) if draw.chance(0.5) else (second, answers[1])
        said = {"a": first, "b": second, "asked": asked}
        return draw.pick(texts).format(**said), answer.format(**said)

    return draw_scenes
