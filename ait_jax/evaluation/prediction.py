"""Greedy answers of a model to the first instances of tasks."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ait_jax.evaluation.evaluation import Prediction
from ait_jax.pool import Instance, TaskPool
from ait_jax.runtime import distributed
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.asker import Asker


def shuffled_positions(pool: TaskPool, tasks: Iterable[str], seed: int) -> dict[str, Sequence[int]]:
    """Returns task -> an order of its instances, as the authors shuffle those of dev tasks.

    One generator of Python's, seeded once, shuffles the instances of one task after the other
    (Active-IT, `ni_dataset.py`), so that the tasks' order and sizes matter. In the authors' split
    files the test tasks come before the dev tasks.
    """
    generator = random.Random(seed)
    orders: dict[str, Sequence[int]] = {}
    for name in tasks:
        orders[name] = order = list(range(len(pool[name].instances)))
        generator.shuffle(order)
    return orders


def predict(
    asker: Asker,
    tasks: Sequence[str],
    *,
    max_instances: int,
    positions: Mapping[str, Sequence[int]] | None = None,
) -> list[Prediction]:
    """Answers the first `max_instances` instances of every task, as Tk-Instruct evaluates.

    NIV2 lists its label-balanced official test instances first (paper: 100 per task).

    Args:
      positions: an order of tasks' instances, where it is not the task's own.
    """
    pool, vocabulary = asker.pool, asker.vocabulary
    partitioner = asker.engine.partitioner
    everything = [
        (name, instance)
        for name in tasks
        for instance in _first(pool[name].instances, max_instances, (positions or {}).get(name))
    ]
    places = partitioner.own(everything)
    prompts = [asker.prompt_of(*place) for place in places]
    most = asker.encoding.max_source_length
    tokens = [vocabulary.encode_source(text, most) for text in prompts]
    answers = [
        vocabulary.decode(ids).strip() for ids in asker.engine.decode(asker.params, tokens).tokens
    ]
    own = list(zip(answers, prompts, strict=True))
    answered = _of_all(partitioner, own, len(everything))
    return [
        Prediction(name, instance.id, answer, instance.outputs, text)
        for (name, instance), (answer, text) in zip(everything, answered, strict=True)
    ]


def _first(
    instances: Sequence[Instance], count: int, order: Sequence[int] | None
) -> Sequence[Instance]:
    return instances[:count] if order is None else [instances[i] for i in order[:count]]


def _of_all(partitioner: Partitioner, own: list[Any], count: int) -> list[Any]:
    """Returns the `count` items of all processes, in order, as JSON's types."""
    merged: list[Any] = [None] * count
    gathered = partitioner.first_of_groups(distributed.all_gather(json.dumps(own).encode()))
    for group, data in enumerate(gathered):
        merged[group :: len(gathered)] = json.loads(data)
    return merged
