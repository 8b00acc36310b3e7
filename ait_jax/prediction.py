"""Greedy answers of a model to the first instances of tasks."""

from collections.abc import Sequence
from typing import Any

from ait_jax.evaluation import Prediction
from ait_jax.pool import TaskPool
from ait_jax.prompts import TkInstructEncoding
from ait_jax.scorer.engine import Engine
from ait_jax.vocabulary import Vocabulary


def predict(
    engine: Engine,
    params: Any,
    pool: TaskPool,
    tasks: Sequence[str],
    *,
    max_instances: int,
    vocabulary: Vocabulary,
    encoding: TkInstructEncoding,
) -> list[Prediction]:
    """Answers the first `max_instances` instances of every task, as Tk-Instruct evaluates.

    NIV2 puts its label-balanced official test instances first (paper: 100 a task).

    Args:
      params: parameters from `Engine.place`.
    """
    places = [
        (name, instance)
        for name in tasks
        for instance in pool[name].instances[:max_instances]
    ]
    prompts = [
        encoding.encode(
            pool[name].instruction,
            instance.input,
            vocabulary.count_tokens,
            vocabulary.truncate,
            task_name=name,
        ).text
        for name, instance in places
    ]
    tokens = [vocabulary.encode_source(text, encoding.max_source_length) for text in prompts]
    answers = engine.generate(params, tokens)
    return [
        Prediction(name, instance.id, vocabulary.decode(ids).strip(), instance.outputs, text)
        for (name, instance), ids, text in zip(places, answers, prompts)
    ]
