"""A chunk: tasks that are scored and saved together, each distinct prompt held once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ait_jax import randomness
from ait_jax.models.monte_carlo_dropout import drawn_rows
from ait_jax.pool import Instance
from ait_jax.scorer.asker import Answered, Asker
from ait_jax.scorer.prompts_of_task import PromptPlan, TaskPrompts
from ait_jax.scorer.work import PromptCounts


@dataclass(frozen=True)
class Chunk:
    """Prompts of a run of tasks, ready for the device.

    Attributes:
      places: task names and scored instances, task after task.
      prompts: int32[places, prompts], the numbers j, 0 for the original instruction.
      inputs: the distinct prompts, token ids that end in end-of-sequence.
      original: int32[places], the original prompt's index in `inputs`.
      rows: int32[places, prompts], indices in `inputs`.
      tokens_cut: int32[places, prompts], tokens lost to the maximum source length.
      dropout_rate: of the passes under every prompt; 0 for none.
      dropout_keys: of what is dropped, uint64[places, prompts]; None for none.
    """

    places: list[tuple[str, Instance]]
    prompts: np.ndarray
    inputs: list[tuple[int, ...]]
    original: np.ndarray
    rows: np.ndarray
    tokens_cut: np.ndarray
    dropout_rate: float = 0.0
    dropout_keys: np.ndarray | None = None


def split(
    tasks: Sequence[str], num_prompts: Callable[[str], int], prompts_per_chunk: int
) -> list[list[str]]:
    """Returns runs of tasks, each but the last the shortest with `prompts_per_chunk` prompts."""
    chunks: list[list[str]] = []
    room = 0
    for name in tasks:
        if room <= 0:
            chunks.append([])
            room = prompts_per_chunk
        chunks[-1].append(name)
        room -= num_prompts(name)
    return chunks


def prepare(tasks: Sequence[str], prompts: PromptPlan, task_prompts: TaskPrompts) -> Chunk:
    """Builds and tokenizes the prompts of `tasks`; needs no device."""
    places: list[tuple[str, Instance]] = []
    index_of: dict[tuple[int, ...], int] = {}
    originals, numbers, rows, cuts = [], [], [], []
    for name in tasks:
        # The original prompt is always needed: it is decoded, and others may equal it.
        for instance, original, of_instance, built in task_prompts.build(name, prompts):
            places.append((name, instance))
            originals.append(index_of.setdefault(original.tokens, len(index_of)))
            numbers.append(of_instance)
            rows.append([index_of.setdefault(p.tokens, len(index_of)) for p in built])
            cuts.append([p.tokens_cut for p in built])
    shape = (len(places), len(numbers[0]) if numbers else 0)
    wanted, at, cut = (np.array(x, np.int32).reshape(shape) for x in (numbers, rows, cuts))
    ready = Chunk(places, wanted, list(index_of), np.array(originals, np.int32), at, cut)
    rate = getattr(task_prompts.perturbation, "dropout_rate", 0.0)
    if not rate:
        return ready
    draw = (task_prompts.key.seed, "dropout", task_prompts.key.round_index)
    keys = [
        [randomness.stable_hash(*draw, name, instance.id, j) for j in of_instance]
        for (name, instance), of_instance in zip(places, numbers, strict=True)
    ]
    return replace(ready, dropout_rate=rate, dropout_keys=np.array(keys, np.uint64).reshape(shape))


def log_likelihoods(
    asker: Asker, chunk: Chunk, answered: Answered
) -> tuple[np.ndarray, PromptCounts]:
    """Teacher-forces every place's answer under its prompts, each distinct pair once.

    Under dropout no two passes are the same.

    Returns:
      float32[places, prompts], and how many of them the device did not have to score.
    """
    if chunk.dropout_keys is not None:
        return _under_dropout(asker, chunk, answered, chunk.dropout_keys)
    index_of: dict[tuple[int, ...], int] = {}
    target_of_place = np.array(
        [index_of.setdefault(t, len(index_of)) for t in answered.targets], np.int64
    )
    targets = list(index_of)
    # A pair (prompt, target) as one number.
    pairs, pair_of_row = np.unique(
        chunk.rows.astype(np.int64) * len(targets) + target_of_place[:, None], return_inverse=True
    )
    values = np.full(len(pairs), np.nan, np.float32)
    originals = chunk.original.astype(np.int64) * len(targets) + target_of_place
    is_asked = np.isin(originals, pairs)
    at = np.searchsorted(pairs, originals[is_asked])
    values[at] = answered.log_likelihoods[is_asked]
    unknown = np.flatnonzero(np.isnan(values))
    # Called even with nothing to ask: other processes may have some, and all run the same batches.
    values[unknown] = asker.engine.log_likelihoods(
        asker.params,
        [chunk.inputs[pair // len(targets)] for pair in pairs[unknown]],
        [targets[pair % len(targets)] for pair in pairs[unknown]],
    )
    from_decode = len(pairs) - len(unknown) if answered.decoded else 0
    counts = PromptCounts(
        asked=chunk.rows.size,
        from_decode=from_decode,
        identical=chunk.rows.size - len(unknown) - from_decode,
    )
    return values[pair_of_row].reshape(chunk.rows.shape), counts


def _under_dropout(
    asker: Asker, chunk: Chunk, answered: Answered, keys: np.ndarray
) -> tuple[np.ndarray, PromptCounts]:
    place_of_row = np.indices(chunk.rows.shape)[0].ravel().tolist()
    values = asker.engine.log_likelihoods(
        asker.params,
        [chunk.inputs[row] for row in chunk.rows.ravel().tolist()],
        [answered.targets[place] for place in place_of_row],
        drawn_rows(keys.ravel(), np.full(keys.size, chunk.dropout_rate)),
    )
    return values.reshape(chunk.rows.shape), PromptCounts(asked=chunk.rows.size)


def columns(chunk: Chunk, answered: Answered, values: np.ndarray) -> dict[str, Any]:
    """Returns the columns of likelihoods.parquet, one row per (instance, prompt)."""
    num_prompts = chunk.prompts.shape[1]

    def repeated(of_place: Iterable[Any]) -> list[Any]:
        return [value for value in of_place for _ in range(num_prompts)]

    lengths = np.array([len(tokens) for tokens in chunk.inputs], np.int32)
    generated: list[float | None] = [None] * chunk.prompts.size
    if answered.generated is not None:
        of_row = zip(chunk.prompts.ravel(), repeated(answered.generated.tolist()), strict=True)
        generated = [value if prompt == 0 else None for prompt, value in of_row]
    return {
        "task": repeated(task for task, _ in chunk.places),
        "instance_id": repeated(instance.id for _, instance in chunk.places),
        "prompt": chunk.prompts.ravel(),
        "answer": repeated(answered.texts),
        "num_answer_tokens": repeated(map(len, answered.targets)),
        "num_prompt_tokens": lengths[chunk.rows].ravel(),
        "num_tokens_cut": chunk.tokens_cut.ravel(),
        "log_likelihood": values.ravel(),
        "generated_log_likelihood": generated,
    }
