"""In-context induction: two to six shown pairs, or a rule in words, determine the answer.

Labels and templates are drawn again for each example, so nothing can be memorized: the model has to
read the pairs. The layouts are arrows, equals signs and question-answer pairs, never that of the
pool's prompts.
"""

import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path

from ait_jax.tasks.mini import lexicon as lex
from ait_jax.tasks.mini.generator import Draw

_FORMS = tomllib.loads(Path(__file__).with_name("induction.toml").read_text(encoding="utf-8"))
NONSENSE = tuple(_FORMS["nonsense"].split())
Pair = tuple[str, str]
INDUCED_CLASSES: tuple[str, ...] = tuple(_FORMS["classes"])
_OTHER_CLASSES = {
    "good": lex.GOOD,
    "bad": lex.BAD,
    "woman": lex.WOMEN,
    "man": lex.MEN,
    "city": lex.CITIES,
    "number": lex.UNITS,
}


def show(draw: Draw, pairs: list[Pair]) -> Pair:
    """Returns (the pairs with the last answer missing, the last answer)."""
    shown, separator, asked = draw.pick(_FORMS["layouts"])
    lines = [shown.format(a=a, b=b) for a, b in pairs[:-1]] + [asked.format(a=pairs[-1][0])]
    return separator.join(lines), pairs[-1][1]


def draw_labels(draw: Draw, count: int) -> list[str]:
    """Draws `count` labels: nonsense words, any words, or a usual set of labels."""
    fitting = [labels for one in _FORMS["label_sets"] if len(labels := one.split()) >= count]
    source = draw.pick((NONSENSE, lex.CONTENT_WORDS, draw.pick(fitting)))
    return draw.sample(source, count)


def _contrast(draw: Draw) -> list[str]:
    """Draws two kinds of words that can be told apart."""
    if draw.chance(0.3):
        return draw.shuffled(draw.pick((("good", "bad"), ("woman", "man"), ("city", "number"))))
    return draw.sample(INDUCED_CLASSES, 2)


def _labelled_pairs(draw: Draw, kinds: list[str], labels: list[str], shots: int) -> list[Pair]:
    """Returns distinct labelled words; every kind is shown before the last one is asked."""
    order = draw.shuffled(range(len(kinds)))
    order += [draw.integer(0, len(kinds)) for _ in range(shots - len(kinds) + 1)]
    pairs: list[Pair] = []
    for which in order:
        words = (lex.CLASSES | _OTHER_CLASSES)[kinds[which]]
        word = draw.sample(words, 1, [word for word, _ in pairs])[0]
        pairs.append((word, labels[which]))
    return pairs


def class_labels(draw: Draw) -> Pair:
    """Words of two kinds under two arbitrary labels."""
    kinds, labels = _contrast(draw), draw_labels(draw, 2)
    return show(draw, _labelled_pairs(draw, kinds, labels, draw.integer(3, 7)))


def class_labels_listed(draw: Draw) -> Pair:
    """The same with the labels listed first."""
    labels = draw_labels(draw, 2)
    text, answer = show(draw, _labelled_pairs(draw, _contrast(draw), labels, draw.integer(2, 5)))
    return f"answer with {labels[0]} or {labels[1]} . {text}", answer


def class_labels_ruled(draw: Draw) -> Pair:
    """The labels' meaning is given in words, with or without shown pairs."""
    kinds, labels = _contrast(draw), draw_labels(draw, 2)
    rule = draw.pick(_FORMS["rules"]).format(kinds[0], labels[0], kinds[1], labels[1])
    shots = draw.integer(2, 4)
    pairs = _labelled_pairs(draw, kinds, labels, shots)
    text, answer = show(draw, pairs[-1:] if draw.chance(0.3) else pairs)
    return f"{rule} {text}", answer


def sentence_labels(draw: Draw) -> Pair:
    """Sentences labelled by the kind of one of their words."""
    kinds, labels = _contrast(draw), draw_labels(draw, 2)
    template = draw.pick(_FORMS["sentences"])
    pairs = _labelled_pairs(draw, kinds, labels, draw.integer(2, 5))
    return show(draw, [(template.format(word), label) for word, label in pairs])


def three_labels(draw: Draw) -> Pair:
    """Three kinds under three labels."""
    kinds, labels = draw.sample(INDUCED_CLASSES, 3), draw_labels(draw, 3)
    return show(draw, _labelled_pairs(draw, kinds, labels, draw.integer(4, 7)))


def pick_by_kind(draw: Draw) -> Pair:
    """Of three mixed words the one of a kind that the pairs reveal."""
    kinds = draw.sample(INDUCED_CLASSES, 3)
    pairs = []
    for _ in range(draw.integer(3, 6)):
        words = [draw.pick(lex.CLASSES[kind]) for kind in kinds]
        pairs.append((" ".join(draw.shuffled(words)), words[0]))
    return show(draw, pairs)


def rearrange(draw: Draw) -> Pair:
    """A fixed choice and order of two or three of the words (never the pool's list edits)."""
    length = draw.integer(3, 5)
    order = list(range(length))
    positions = order
    while positions in (order, order[::-1], order[1:], order[:-1]):
        positions = draw.sample(order, draw.integer(2, 4))
    pairs = []
    for _ in range(draw.integer(3, 5)):
        words = draw.sample(lex.CONTENT_WORDS, length)
        pairs.append((" ".join(words), " ".join(words[position] for position in positions)))
    return show(draw, pairs)


def middle(draw: Draw) -> Pair:
    """The third of four or five words."""
    length = draw.integer(4, 6)
    lists = [draw.sample(lex.CONTENT_WORDS, length) for _ in range(draw.integer(3, 5))]
    return show(draw, [(" ".join(words), words[2]) for words in lists])


def wrap(draw: Draw) -> Pair:
    """A word set into a template that the pairs reveal."""
    affixes = [*NONSENSE, *lex.COLOURS, "the", "my", "very", "not", "this"]
    before, after = draw.sample(affixes, 2)
    template = draw.pick(_FORMS["wrappers"])
    words = draw.sample(lex.CONTENT_WORDS, draw.integer(3, 5))
    return show(draw, [(word, template.format(w=word, b=before, a=after)) for word in words])


def slot(draw: Draw) -> Pair:
    """One of two slots of a repeated sentence."""
    template = draw.pick(_FORMS["residences"])
    names, cities = draw.sample(lex.NAMES, 5), draw.sample(lex.CITIES, 5)
    which = draw.integer(0, 2)
    count = draw.integer(3, 6)
    pairs = list(zip(names, cities, strict=True))[:count]
    return show(draw, [(template.format(*pair), pair[which]) for pair in pairs])


def rephrase(draw: Draw) -> Pair:
    """A sentence with two slots turned into another with the same slots."""
    verb, target = draw.pick(_FORMS["feelings"]), draw.pick(_FORMS["rephrased"])
    pairs = []
    for _ in range(draw.integer(3, 5)):
        first, second = draw.sample(lex.NAMES, 2)
        pairs.append((f"{first} {verb} {second}", target.format(first, second)))
    return show(draw, pairs)


def relation(draw: Draw) -> Pair:
    """A known relation shown by pairs: capital of, month after, number after."""
    table: list[Pair] = draw.pick(
        (
            [(country, capital) for country, capital in lex.CAPITALS],
            [(capital, country) for country, capital in lex.CAPITALS],
            list(itertools.pairwise(lex.MONTHS)),
            list(itertools.pairwise(lex.UNITS)),
        )
    )
    return show(draw, draw.sample(table, draw.integer(3, 5)))


def own_dictionary(draw: Draw) -> Pair:
    """A made-up dictionary; the asked word was shown."""
    words, meanings = draw.sample(lex.CONTENT_WORDS, 4), draw.sample(NONSENSE, 4)
    pairs = list(zip(words, meanings, strict=True))
    return show(draw, [*pairs, draw.pick(pairs)])


def same_answer(draw: Draw) -> Pair:
    """Whatever is asked, the answer is the one shown."""
    answer = " ".join(draw.sample(lex.CONTENT_WORDS, draw.integer(1, 3)))
    words = draw.sample(lex.CONTENT_WORDS, draw.integer(3, 5))
    return show(draw, [(word, answer) for word in words])


INDUCTION: tuple[Callable[[Draw], Pair], ...] = (
    class_labels,
    *2 * [class_labels_listed],
    *2 * [class_labels_ruled],
    sentence_labels,
    three_labels,
    *2 * [pick_by_kind],
    rearrange,
    middle,
    wrap,
    *2 * [slot],
    rephrase,
    relation,
    own_dictionary,
    same_answer,
)
