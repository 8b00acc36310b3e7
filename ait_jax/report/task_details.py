"""What a click on a task shows: the forms of its instruction, and the answers under each."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown
from ait_jax.pool import TaskPool
from ait_jax.pool.task import Instance, Instruction, Task
from ait_jax.prompts.perturb import for_task, kept_words, perturbed_instruction
from ait_jax.randomness import Key
from ait_jax.report.likelihood_rows import LikelihoodRows, ScoredInstance, opened, scored_instances
from ait_jax.report.run_results import REGIONS, TaskIndex, cut, names_in, rounded
from ait_jax.report.settings import Settings
from ait_jax.rounds.record import Record
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts, scoring_instances

TASKS_PER_CHUNK = 64
# Tasks whose rows are in memory at once; each such set takes one pass over a table.
_TASKS_PER_READ = 4096
# Tasks of a round whose prompts are rebuilt and compared with the scored ones.
_CHECKED_TASKS = 2

INPUT_CHARACTERS = 600
OUTPUT_CHARACTERS = 200
MOST_OUTPUTS = 3
_DIGITS = 4


class OtherPrompts(Exception):
    """The scored prompts can no longer be rebuilt; the message says why."""


def details(
    run: Record,
    index: TaskIndex,
    pool: TaskPool,
    settings: Settings,
    rounds: Sequence[Mapping[str, Any]],
    megabytes: float,
) -> tuple[list[dict[str, Any]], int]:
    """Returns what the page shows when a task is clicked, and how many tasks did not fit.

    The details are in chunks {"tasks": [numbers], "data": {number: detail}}, the most telling
    tasks first.

    Args:
      settings: with an encoding, and a perturbation where tasks were scored.
      rounds: of the payload.
      megabytes: of all chunks together, compressed and as text, as the page holds them.

    Raises:
      OtherPrompts: the scored prompts can no longer be rebuilt.
      UserError: a damaged table.
    """
    order = [name for name in in_order_of_interest(run, index, rounds) if name in pool]
    room = megabytes * 1e6
    chunks: list[dict[str, Any]] = []
    with ExitStack() as stack:
        tables = {
            number: stack.enter_context(opened(path))
            for number in run.rounds
            if (path := run.folder(number) / "likelihoods.parquet").exists()
        }
        if tables and settings.perturbation is None:
            raise OtherPrompts(settings.problem or "the perturbation is not known")
        _check(pool, settings, tables)
        for names, built in _built(order, pool, settings, tables):
            numbers = index.numbers(names)
            data = {str(number): built[name] for number, name in zip(numbers, names, strict=True)}
            chunk = {"tasks": numbers, "data": data}
            # Its bytes in the page: compressed, as base64.
            text = json.dumps(chunk, ensure_ascii=False).encode()
            room -= len(zlib.compress(text, 6)) * 4 // 3
            if room < 0:
                break
            chunks.append(chunk)
    return chunks, len(order) - sum(len(chunk["tasks"]) for chunk in chunks)


def in_order_of_interest(
    run: Record, index: TaskIndex, rounds: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Returns all tasks, the most telling first.

    Selected ones lead, round after round; then those of the regions, taken in turn from each region
    and round; then other scored tasks; then the rest.
    """
    selected = [number for each in rounds for number in each["selected"]]
    lists = [
        names_in(run.folder(each["round"]) / f"{region}.txt")
        for each in rounds
        for region in REGIONS[1:]
    ]
    telling = [name for place in zip_longest(*lists) for name in place if name is not None]
    scored = [number for each in rounds for number in each["task"]]
    numbers = dict.fromkeys([*selected, *index.numbers(telling), *scored, *range(len(index))])
    return [index.names[number] for number in numbers]


def _built(
    order: Sequence[str],
    pool: TaskPool,
    settings: Settings,
    tables: Mapping[int, LikelihoodRows],
) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yields the names and the details of each chunk."""
    for start in range(0, len(order), _TASKS_PER_READ):
        names = order[start : start + _TASKS_PER_READ]
        read = {number: rows.read(names) for number, rows in tables.items()}
        for first in range(0, len(names), TASKS_PER_CHUNK):
            chunk = names[first : first + TASKS_PER_CHUNK]
            scored = {number: scored_instances(table, chunk) for number, table in read.items()}
            built = {}
            for name in chunk:
                of_task = {n: found[name] for n, found in scored.items() if name in found}
                own = replace(settings, perturbation=for_task(settings.perturbation, pool, name))
                built[name] = _detail(pool[name], of_task, own)
            yield chunk, built


def _detail(task: Task, scored: Mapping[int, Any], settings: Settings) -> dict[str, Any]:
    try:
        rounds = {str(n): round_detail(task, n, found, settings) for n, found in scored.items()}
    except UserError as error:  # instances are read from where the pool lies
        raise OtherPrompts(str(error)) from error
    # Of the examples those that prompts show where they fit.
    return {
        "definition": task.instruction.definition,
        "examples": _examples(task.instruction, settings.encoding),
        "rounds": rounds,
    }


def _check(pool: TaskPool, settings: Settings, tables: Mapping[int, LikelihoodRows]) -> None:
    """Compares the lengths of a few tasks' prompts, rebuilt, with those of the scored ones."""
    try:
        if settings.vocabulary is None or not settings.vocabulary.encode("a"):
            return
    except (UserError, OSError):  # its file is gone
        return
    parts = (settings.vocabulary, settings.encoding, settings.perturbation, settings.num_instances)
    everything = same_prompts(range(settings.num_perturbations + 1))
    for number, rows in tables.items():
        prompts = TaskPrompts(pool, *parts, Key(settings.seed, number))
        names = [name for name in rows.tasks if name in pool][:_CHECKED_TASKS]
        for name, scored in scored_instances(rows.read(names), names).items():
            _detail(pool[name], {number: scored}, settings)
            for instance, _, forms, built in prompts.build(name, everything):
                tokens = scored[instance.id].prompt_tokens
                for j, length in zip(forms, (len(each.tokens) for each in built), strict=True):
                    if tokens.get(j, length) != length:
                        raise OtherPrompts(
                            f"prompt {j} of task {shown(name)} in round {number} would be "
                            "different now"
                        )


# --- one task in one round ---


def round_detail(
    task: Task, round_index: int, scored: Mapping[str, ScoredInstance], settings: Settings
) -> dict[str, Any]:
    """Returns what a round asked of a task, and its answers.

    Raises:
      OtherPrompts: the round scored different instances than would be drawn now.
    """
    key = Key(settings.seed, round_index)
    drawn = scoring_instances(task, settings.num_instances, key)
    instances = {instance.id: instance for instance in drawn}
    k = settings.num_perturbations
    numbers = {j for instance in scored.values() for j in instance.log_likelihood}
    if instances.keys() != scored.keys() or not numbers <= set(range(k + 1)):
        raise OtherPrompts(f"task {shown(task.name)} would get others in round {round_index} now")
    p = np.full((len(instances), k + 1), np.nan)
    for row, id in enumerate(instances):
        for j, value in scored[id].log_likelihood.items():
            p[row, j] = np.exp(np.float64(value))
    change = _mean_change(p)
    drop, used = settings.perturbation, tuple(instances)
    kept = [kept_words(task, drop, j, key) for j in range(1, k + 1)]
    forms = [perturbed_instruction(task, drop, j, key, used) for j in range(1, k + 1)]
    return {
        "forms": [
            _form(form, task.instruction, words, moved, settings.encoding)
            for form, words, moved in zip(forms, kept, rounded(change, _DIGITS), strict=True)
        ],
        "word_effects": _effects(task, kept, change),
        "instances": [
            _instance(instances[id], scored[id].answer, row)
            for id, row in zip(instances, p, strict=True)
        ],
    }


def _mean_change(p: np.ndarray) -> np.ndarray:
    """Returns mean over the scored instances of |p_i0 - p_ij|: float64[k] from [n, k + 1]."""
    change = np.abs(p[:, :1] - p[:, 1:])
    count = np.isfinite(change).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.nansum(change, axis=0) / np.where(count, count, np.nan)


def _effects(
    task: Task, kept: Sequence[tuple[bool, ...] | None], change: np.ndarray
) -> list[float | None]:
    words = task.instruction.definition.split()
    if not kept or not words or any(each is None for each in kept):
        return [None] * len(words)
    return rounded(word_effects(np.array(kept, bool), change), _DIGITS)


def word_effects(kept: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Returns how much more the answers move under the forms that lack a word.

    For every word of the definition: the mean change of the forms without it, minus the mean
    change of the forms with it. If positive, losing the word moves the answers' likelihood. Words
    are dropped together, examples too, so with few forms a word shares its neighbors' blame.

    Args:
      kept: bool[forms, words], whether a perturbed definition has a word of the original.
      change: float64[forms], mean over instances of |p_i0 - p_ij|; NaN for a form that was not
        scored.

    Returns:
      float64[words], NaN for a word that all forms keep or all lack.
    """
    scored = np.isfinite(change)
    kept = np.asarray(kept, bool)[scored]
    change = np.asarray(change, np.float64)[scored]
    num_kept = kept.sum(axis=0)
    num_dropped = len(kept) - num_kept
    with np.errstate(invalid="ignore", divide="ignore"):
        return (change @ ~kept) / num_dropped - (change @ kept) / num_kept


def _form(
    form: Instruction,
    original: Instruction,
    words: tuple[bool, ...] | None,
    change: float | None,
    encoding: Any,
) -> dict[str, Any]:
    examples = _examples(form, encoding)
    same = examples == _examples(original, encoding)
    dropped = None if words is None else [i for i, kept in enumerate(words) if not kept]
    return {
        "definition": form.definition,
        "examples": None if same else examples,
        "dropped": dropped,
        "change": change,
    }


def _examples(instruction: Instruction, encoding: Any) -> list[dict[str, str]]:
    if not encoding.shows_examples:
        return []
    limit = getattr(encoding, "num_positive_examples", None)
    return [
        {"input": cut(e.input, INPUT_CHARACTERS), "output": cut(e.output, INPUT_CHARACTERS)}
        for e in instruction.positive_examples[:limit]
    ]


def _instance(instance: Instance, answer: str, p: np.ndarray) -> dict[str, Any]:
    return {
        "id": instance.id,
        "input": cut(instance.input, INPUT_CHARACTERS),
        "outputs": [cut(text, OUTPUT_CHARACTERS) for text in instance.outputs[:MOST_OUTPUTS]],
        "answer": cut(answer, INPUT_CHARACTERS),
        "p": rounded(p, _DIGITS),
    }
