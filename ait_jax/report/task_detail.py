"""One task's prompts in one round: the forms of its instruction, and the answers under each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax.pool.task import Example, Instance, Instruction, Task
from ait_jax.prompts.perturb import kept_words, perturbed_instruction
from ait_jax.report.likelihood_rows import ScoredInstance
from ait_jax.report.scored_rounds import rounded
from ait_jax.report.settings import Settings
from ait_jax.report.task_index import cut
from ait_jax.report.word_effects import word_effects
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts, scoring_instances

INPUT_CHARACTERS = 600
OUTPUT_CHARACTERS = 200
MOST_OUTPUTS = 3
_DIGITS = 4


class OtherPrompts(Exception):
    """The prompts that were scored cannot be made any more; the message says why."""


def instruction_detail(task: Task, encoding: Any) -> dict[str, Any]:
    """Returns a task's definition and the examples that prompts show where they fit."""
    return {
        "definition": task.instruction.definition,
        "examples": _examples(task.instruction, encoding),
        "rounds": {},
    }


def round_detail(
    task: Task, round: int, scored: Mapping[str, ScoredInstance], settings: Settings
) -> dict[str, Any]:
    """Returns what a round asked of a task and got.

    Raises:
      OtherPrompts: the round scored other instances than would be drawn now.
    """
    instances = {
        instance.id: instance
        for instance in scoring_instances(
            task, settings.num_instances, seed=settings.seed, round=round
        )
    }
    k = settings.num_perturbations
    numbers = {j for instance in scored.values() for j in instance.log_likelihood}
    if instances.keys() != scored.keys() or not numbers <= set(range(k + 1)):
        raise OtherPrompts(f"task {task.name!r} would have others in round {round} now")
    p = np.full((len(instances), k + 1), np.nan)
    for row, id in enumerate(instances):
        for j, value in scored[id].log_likelihood.items():
            p[row, j] = np.exp(np.float64(value))
    change = _mean_change(p)
    draw = {"seed": settings.seed, "round": round}
    kept = [kept_words(task, settings.perturbation, j, **draw) for j in range(1, k + 1)]
    used = tuple(instances)
    forms = [
        perturbed_instruction(task, settings.perturbation, j, used_instances=used, **draw)
        for j in range(1, k + 1)
    ]
    return {
        "forms": [
            _form(form, task.instruction, words, moved, settings.encoding)
            for form, words, moved in zip(forms, kept, rounded(change, _DIGITS))
        ],
        "word_effects": _effects(task, kept, change),
        "instances": [
            _instance(instances[id], scored[id].answer, row) for id, row in zip(instances, p)
        ],
    }


def check_prompts(
    name: str, round: int, scored: Mapping[str, ScoredInstance], settings: Settings
) -> None:
    """Makes a task's prompts again and compares their tokens with those that were scored.

    Raises:
      OtherPrompts: another number of tokens: the words that were dropped were others.
    """
    prompts = TaskPrompts(
        settings.pool,
        settings.vocabulary,
        settings.encoding,
        settings.perturbation,
        settings.num_instances,
        seed=settings.seed,
        round=round,
    )
    everything = same_prompts(range(settings.num_perturbations + 1))
    for instance, _, numbers, built in prompts.build(name, everything):
        tokens = scored[instance.id].prompt_tokens
        for j, prompt in zip(numbers, built):
            if tokens.get(j, len(prompt.tokens)) != len(prompt.tokens):
                raise OtherPrompts(
                    f"prompt {j} of task {name!r} in round {round} would be another now"
                )


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
    shown: Sequence[Example] = instruction.positive_examples
    limit = getattr(encoding, "num_positive_examples", None)
    return [
        {"input": cut(e.input, INPUT_CHARACTERS), "output": cut(e.output, INPUT_CHARACTERS)}
        for e in shown[:limit]
    ]


def _instance(instance: Instance, answer: str, p: np.ndarray) -> dict[str, Any]:
    return {
        "id": instance.id,
        "input": cut(instance.input, INPUT_CHARACTERS),
        "outputs": [cut(text, OUTPUT_CHARACTERS) for text in instance.outputs[:MOST_OUTPUTS]],
        "answer": cut(answer, INPUT_CHARACTERS),
        "p": rounded(p, _DIGITS),
    }
