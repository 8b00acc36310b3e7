"""The data that the mini base model is pre-trained on: endless, stateless, generated here.

`text` gives passages for span corruption: facts about the lexicon ("A dog is an animal."), short
stories, reviews, dialogues, and sentences about words and questions. `task_example` gives
supervised pairs, two in five of them in-context induction (`induction.py`), the rest retrieval,
copying, editing and facts (`direct.py`).

The built-in pool (`ait_jax.tasks.mini`) shares the lexicon and skills: copying a span, choosing one
of the labels that the text names, looking up a word's class, answering by analogy with shown pairs.
It shares no tasks and prompts: no family here has the input and the rule of a task of the pool,
none has a definition in sentences, and the pool's prompt layout (Tk-Instruct's) never occurs. So a
model pre-trained here knows the words and how to look things up, and has yet to learn to follow the
pool's instructions.
"""

from ait_jax.tasks.mini.generator import Draw
from ait_jax.tasks.mini_base.direct import DIRECT
from ait_jax.tasks.mini_base.induction import INDUCTION
from ait_jax.tasks.mini_base.passages import passage
from ait_jax.tasks.mini_base.vocabulary import corpus, train_vocabulary

INDUCTION_SHARE = 0.4

__all__ = ["INDUCTION_SHARE", "corpus", "task_example", "text", "train_vocabulary"]


def text(seed: int, index: int) -> str:
    """Returns passage `index` of stream `seed`: 2 to 6 sentences, 20 to 60 words."""
    return passage(Draw("mini_base.text", seed, index))


def task_example(seed: int, index: int) -> tuple[str, str]:
    """Returns supervised example `index` of stream `seed`: (input, target)."""
    draw = Draw("mini_base.task_example", seed, index)
    return draw.pick(INDUCTION if draw.chance(INDUCTION_SHARE) else DIRECT)(draw)
