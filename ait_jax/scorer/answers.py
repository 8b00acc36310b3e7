"""The answers whose likelihood is asked for: decoded, gold, or those of an earlier table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.pool.pool import Instance
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary
from ait_jax.scorer import likelihoods
from ait_jax.scorer.engine import Engine


@dataclass(frozen=True)
class Answered:
    """One answer for every scored instance.

    Attributes:
      texts: without surrounding white space.
      targets: their ids, tokenized anew and ended, as the authors' data pipeline does; cut at
        the longest target.
      log_likelihoods: float32[instances], of the target under the original prompt, NaN where
        it is not known yet.
      decoded: whether `log_likelihoods` were a by-product of decoding.
    """

    texts: list[str]
    targets: list[tuple[int, ...]]
    log_likelihoods: np.ndarray
    decoded: bool


def decode(
    originals: Sequence[int],
    inputs: Sequence[Sequence[int]],
    engine: Engine,
    params: Any,
    vocabulary: Vocabulary,
) -> Answered:
    """Answers every original prompt greedily, each distinct one once.

    Decoding has already summed the answer's log-likelihood. It stands for the teacher-forced
    one where that would read the very same ids: its text tokenized anew gives the ids that were
    decoded, to the answer's end or the longest target's.

    Args:
      originals: index in `inputs` of every instance's original prompt.
    """
    distinct, of_instance = np.unique(np.asarray(originals, np.int64), return_inverse=True)
    decoded = engine.decode(params, [inputs[i] for i in distinct])
    texts = [vocabulary.decode(ids).strip() for ids in decoded.tokens]
    targets = [target_of(text, engine, vocabulary) for text in texts]
    most = engine.buckets.max_target_length - 1
    same = np.array(
        [target == (*ids[:most], EOS_ID) for target, ids in zip(targets, decoded.tokens)], bool
    )
    values = np.where(same, decoded.log_likelihoods, np.float32("nan"))
    return Answered(
        [texts[i] for i in of_instance],
        [targets[i] for i in of_instance],
        values[of_instance],
        decoded=True,
    )


def gold(instances: Sequence[Instance], engine: Engine, vocabulary: Vocabulary) -> Answered:
    """Takes every instance's first reference output.

    Raises:
      UserError: an instance has none.
    """
    without = next((instance.id for instance in instances if not instance.outputs), None)
    if without is not None:
        raise UserError(
            "scorer.Scorer.answers = 'gold' needs a reference output of every instance; "
            f"{without!r} has "
            "none. Set it to 'predictions'."
        )
    texts = [instance.outputs[0] for instance in instances]
    targets = [target_of(text, engine, vocabulary) for text in texts]
    return Answered(texts, targets, np.full(len(texts), np.nan, np.float32), decoded=False)


def target_of(answer: str, engine: Engine, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Returns the ids that are teacher-forced for an answer: a function of its text alone."""
    return (*vocabulary.encode(answer)[: engine.buckets.max_target_length - 1], EOS_ID)


class EarlierAnswers:
    """Answers of a table that holds the original prompts' rows, by task and instance.

    Args:
      path: a likelihoods.parquet with a row of prompt 0 for every instance in question.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = likelihoods.read_answers(path)

    def of(
        self, places: Sequence[tuple[str, Instance]], engine: Engine, vocabulary: Vocabulary
    ) -> Answered:
        """Returns the answers of (task name, instance) pairs; UserError if one is missing."""
        try:
            found = [self._answers[task, instance.id] for task, instance in places]
        except KeyError as error:
            task, instance_id = error.args[0]
            raise UserError(
                f"{self.path} has no answer for task {task!r}, instance {instance_id!r}; delete it "
                "and run the same command to score its tasks again."
            ) from error
        texts = [text for text, _ in found]
        targets = [target_of(text, engine, vocabulary) for text in texts]
        values = np.array([value for _, value in found], np.float32)
        return Answered(texts, targets, values, decoded=False)
