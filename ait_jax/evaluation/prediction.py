"""Greedy answers of a model to the first instances of tasks."""

import json
from collections.abc import Sequence
from typing import Any

from ait_jax.evaluation.evaluation import Prediction
from ait_jax.runtime import distributed
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.asker import Asker


def predict(asker: Asker, tasks: Sequence[str], *, max_instances: int) -> list[Prediction]:
    """Answers the first `max_instances` instances of every task, as Tk-Instruct evaluates.

    NIV2 lists its label-balanced official test instances first (paper: 100 per task).
    """
    pool, vocabulary, encoding = asker.pool, asker.vocabulary, asker.encoding
    partitioner = asker.engine.partitioner
    everything = [
        (name, instance) for name in tasks for instance in pool[name].instances[:max_instances]
    ]
    places = partitioner.own(everything)
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
    answers = [
        vocabulary.decode(ids).strip() for ids in asker.engine.decode(asker.params, tokens).tokens
    ]
    own = list(zip(answers, prompts, strict=True))
    answered = _of_all(partitioner, own, len(everything))
    return [
        Prediction(name, instance.id, answer, instance.outputs, text)
        for (name, instance), (answer, text) in zip(everything, answered, strict=True)
    ]


def _of_all(partitioner: Partitioner, own: list[Any], count: int) -> list[Any]:
    """Returns the `count` items of all processes, in order, as JSON's types."""
    merged: list[Any] = [None] * count
    gathered = partitioner.first_of_groups(distributed.all_gather(json.dumps(own).encode()))
    for group, data in enumerate(gathered):
        merged[group :: len(gathered)] = json.loads(data)
    return merged
