"""A model and what it is asked about; the answers whose likelihood is scored.

Answers are decoded, gold, or those of an earlier table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool import Instance, TaskPool
from ait_jax.prompts.prompts import Encoding
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary
from ait_jax.randomness import KeyPart
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.likelihoods import KnownAnswers


@dataclass(frozen=True)
class Asker:
    """What travels together when a model is asked about a pool's tasks.

    Args:
      engine: runs the model.
      params: its parameters, from `Engine.place`.
      pool: that the tasks are in.
      vocabulary: of the model.
      encoding: from a task to a prompt.
      seed: of the run; with a round's number it keys every draw.
    """

    engine: Engine
    params: Any
    pool: TaskPool
    vocabulary: Vocabulary
    encoding: Encoding
    seed: int

    def target_of(self, answer: str) -> tuple[int, ...]:
        """Returns the ids that are teacher-forced for an answer: a function of its text alone."""
        most = self.engine.buckets.max_target_length - 1
        return (*self.vocabulary.encode_answer(answer)[:most], EOS_ID)

    def prompt_of(self, name: str, instance: Instance) -> str:
        """Returns the text of a task's instance under its own instruction."""
        words = self.vocabulary
        return self.encoding.encode(
            self.pool[name].instruction,
            instance.input,
            words.count_tokens,
            words.truncate,
            task_name=name,
        ).text


@dataclass(frozen=True)
class Answered:
    """One answer for every scored instance.

    Attributes:
      texts: without surrounding white space.
      targets: their ids, tokenized again and ended, as the authors' data pipeline does; cut at
        the longest target.
      log_likelihoods: float32[instances], of the target under the original prompt, NaN where
        it is not known yet.
      decoded: whether `log_likelihoods` were a by-product of decoding.
      generated: float32[instances], of the tokens as they were decoded; None if they were not.
    """

    texts: list[str]
    targets: list[tuple[int, ...]]
    log_likelihoods: np.ndarray
    decoded: bool
    generated: np.ndarray | None = None


def decode(
    asker: Asker, originals: Sequence[int] | np.ndarray, inputs: Sequence[Sequence[int]]
) -> Answered:
    """Answers every original prompt greedily, each distinct one once.

    Decoding has already summed the answer's log-likelihood. It stands for the teacher-forced
    one where that would read the very same ids: its text, tokenized again, gives the ids that
    were decoded, to the answer's end or the longest target's.

    Args:
      originals: index in `inputs` of every instance's original prompt.
    """
    distinct, of_instance = np.unique(np.asarray(originals, np.int64), return_inverse=True)
    decoded = asker.engine.decode(asker.params, [inputs[i] for i in distinct])
    texts = [asker.vocabulary.decode(ids).strip() for ids in decoded.tokens]
    targets = [asker.target_of(text) for text in texts]
    buckets = asker.engine.buckets
    most, longest = buckets.max_target_length - 1, buckets.max_answer_length
    # An answer cut before the longest target has end-of-sequence in place of a token of its own.
    same = [
        target == (*ids[:most], EOS_ID) and len(target) == min(len(ids) + 1, longest)
        for target, ids in zip(targets, decoded.tokens, strict=True)
    ]
    values = np.where(np.array(same, bool), decoded.log_likelihoods, np.float32("nan"))
    return Answered(
        [texts[i] for i in of_instance],
        [targets[i] for i in of_instance],
        values[of_instance],
        decoded=True,
        generated=None if decoded.generated is None else decoded.generated[of_instance],
    )


def gold(
    asker: Asker,
    places: Sequence[tuple[str, Instance]],
    draw: tuple[KeyPart, ...] | None = None,
) -> Answered:
    """Takes a reference output of every (task name, instance).

    Args:
      draw: keys a draw among an instance's outputs; None takes the first.

    Raises:
      UserError: an instance has none.
    """
    without = next((instance.id for _, instance in places if not instance.outputs), None)
    if without is not None:
        raise UserError(
            f"scorer.Scorer.answers = {'random_gold' if draw else 'gold'!r} scores reference "
            f"outputs, but instance {shown(without)} has none; set it to 'predictions'."
        )
    texts = [
        randomness.choice(instance.outputs, asker.seed, *draw, task, instance.id)
        if draw
        else instance.outputs[0]
        for task, instance in places
    ]
    unknown = np.full(len(texts), np.nan, np.float32)
    return Answered(texts, [asker.target_of(text) for text in texts], unknown, decoded=False)


def earlier(
    asker: Asker, places: Sequence[tuple[str, Instance]], table: Path, answers: KnownAnswers
) -> Answered:
    """Takes, for (task name, instance) pairs, the answers that `likelihoods.read_answers` returned.

    Raises:
      UserError: `table`, which they are from, lacks one.
    """
    try:
        found = [answers[task, instance.id] for task, instance in places]
    except KeyError as error:
        task, instance_id = error.args[0]
        raise UserError(
            f"{table} has no answer for task {shown(task)}, instance {shown(instance_id)}; delete "
            "it and run the same command to score its tasks again."
        ) from error
    texts = [text for text, _ in found]
    values = np.array([value for _, value in found], np.float32)
    return Answered(texts, [asker.target_of(text) for text in texts], values, decoded=False)
