"""What the reference outputs of tasks cost a model, for strategies that look at that."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.runtime import distributed
from ait_jax.scorer.asker import Asker
from ait_jax.selection.reference_strategy import ReferenceLosses


def reference_losses(
    asker: Asker, tasks: Sequence[str], instances: int, *, alone: bool = False, before: Any = None
) -> dict[str, ReferenceLosses]:
    """Returns the losses of tasks' first references, the same in every process.

    An answer ends with end-of-sequence, which counts, as in a prompt uncertainty. Every process
    reads its share of the answers.

    Args:
      instances: of a task, its first ones; those without outputs are left out.
      alone: also without a prompt.
      before: placed parameters of the model before any training, for its losses.
    """
    places = [
        (name, instance)
        for name in tasks
        for instance in asker.pool[name].instances[:instances]
        if instance.outputs
    ]
    engine, vocabulary = asker.engine, asker.vocabulary
    own = engine.partitioner.own(places)
    targets = [asker.target_of(instance.outputs[0]) for _, instance in own]
    most = asker.encoding.max_source_length
    prompts = [vocabulary.encode_source(asker.prompt_of(*place), most) for place in own]
    passes: dict[str, tuple[Any, list[list[int]]]] = {"prompted": (asker.params, prompts)}
    if alone:
        nothing = vocabulary.encode_source("", most) or [EOS_ID]
        passes["alone"] = (asker.params, [nothing] * len(own))
    if before is not None:
        passes["before"] = (before, prompts)
    columns = {
        name: _of_all(asker, -engine.log_likelihoods(params, sources, targets), len(places))
        for name, (params, sources) in passes.items()
    }
    return _by_task(tasks, [name for name, _ in places], columns)


def _of_all(asker: Asker, own: np.ndarray, count: int) -> np.ndarray:
    """Returns the values of all processes, float64, in the order of the places."""
    partitioner, merged = asker.engine.partitioner, np.zeros(count)
    gathered = partitioner.first_of_groups(distributed.all_gather(own.astype("<f8").tobytes()))
    for group, data in enumerate(gathered):
        merged[group :: len(gathered)] = np.frombuffer(data, "<f8")
    return merged


def _by_task(
    tasks: Sequence[str], names: Sequence[str], columns: Mapping[str, np.ndarray]
) -> dict[str, ReferenceLosses]:
    """Cuts columns in the order of `names` into those of each task."""
    count_of = Counter(names)
    ends = np.cumsum([count_of[task] for task in tasks])[:-1]
    parts = {name: np.split(values, ends) for name, values in columns.items()}
    return {
        task: ReferenceLosses(**{name: part[i] for name, part in parts.items()})
        for i, task in enumerate(tasks)
    }
