"""Small scenes in words: who did what with which thing, where and when."""

from dataclasses import dataclass

from ait_jax.tasks.mini import lexicon
from ait_jax.tasks.mini.generator import Draw

# past form, base form, words of the object
ACTIONS = (
    ("bought", "buy", lexicon.THINGS),
    ("sold", "sell", lexicon.THINGS),
    ("found", "find", lexicon.THINGS),
    ("lost", "lose", lexicon.THINGS),
    ("painted", "paint", lexicon.FURNITURE),
    ("repaired", "repair", lexicon.VEHICLES),
    ("carried", "carry", lexicon.FRUITS),
    ("saw", "see", lexicon.ANIMALS),
    ("fed", "feed", lexicon.ANIMALS),
    ("followed", "follow", lexicon.ANIMALS),
    ("washed", "wash", lexicon.VEHICLES),
    ("hid", "hide", lexicon.FRUITS),
    ("ate", "eat", lexicon.FRUITS),
    ("wanted", "want", lexicon.INSTRUMENTS),
)


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

    def short(self) -> str:
        """Returns e.g. "Anna bought a hammer."."""
        return f"{self.person} {self.past} {lexicon.with_article(self.thing)}."

    def coloured(self) -> str:
        """Returns e.g. "Anna bought a red hammer."."""
        return f"{self.person} {self.past} {lexicon.with_article(self.noun)}."

    def placed(self) -> str:
        """Returns e.g. "Anna bought a hammer in the park."."""
        return f"{self.person} {self.past} {lexicon.with_article(self.thing)} in the {self.place}."

    def full(self) -> str:
        """Returns e.g. "On Monday Anna bought a red hammer in the park."."""
        return f"On {self.day} {self.coloured()[:-1]} in the {self.place}."


def scene(draw: Draw, **fixed: str) -> Scene:
    """Draws a scene, except for the fields in `fixed`."""
    past, base, objects = draw.pick(ACTIONS)
    drawn = {
        "person": draw.pick(lexicon.NAMES),
        "past": past,
        "base": base,
        "colour": draw.pick(lexicon.COLOURS),
        "thing": draw.pick([word for word in objects if word not in lexicon.UNCOUNTED]),
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
