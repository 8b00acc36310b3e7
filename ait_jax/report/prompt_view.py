"""One task as the model sees it: the prompt, its tokens, a perturbed form, the model's answers."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, nearest
from ait_jax.evaluation.evaluation import read_predictions
from ait_jax.pool.pool import Instance, Task
from ait_jax.prompts.perturb import WordDrop, perturbed_instruction
from ait_jax.prompts.prompts import Prompt, TkInstructEncoding
from ait_jax.randomness import Key
from ait_jax.report.task_source import Source
from ait_jax.runtime.plain_text import visible
from ait_jax.scorer.likelihoods import read_rows
from ait_jax.scorer.prompts_of_task import scoring_instances
from ait_jax.scorer.scorer import Scorer

SAME, DROPPED, ADDED = "same", "dropped", "added"


@dataclass(frozen=True)
class Form:
    """A prompt of a task: j = 0 is the original, 1 to k are perturbed.

    Attributes:
      pieces: of the tokens that the model reads, end-of-sequence included; None without a
        vocabulary.
    """

    j: int
    prompt: Prompt
    pieces: tuple[str, ...] | None


@dataclass(frozen=True)
class Seen:
    """A task as the model sees it.

    Attributes:
      instance: the scored one that is shown; None of a task without instances.
      forms: the original prompt and the perturbed one that was asked for.
      answer: of the model to the original prompt, where a run has it.
      likelihoods: {j: the answer's mean token log-likelihood under form j}.
    """

    task: Task
    instance: Instance | None
    forms: tuple[Form, ...]
    answer: str | None
    likelihoods: dict[int, float]


def see(source: Source, name: str, instance: str | None = None, perturbation: int = 1) -> Seen:
    """Builds a task's prompts as scoring does.

    Args:
      instance: its id, or its number from 0 among the scored ones; None is the first.
      perturbation: j of the perturbed form.

    Raises:
      UserError: the pool lacks the task, or the task the instance; j out of range.
    """
    task = source.pool[name]
    scorer = source.part("scorer") or Scorer()
    if not 0 <= perturbation <= scorer.num_perturbations:
        raise UserError(
            f"--perturbation={perturbation}: the forms are 1 to {scorer.num_perturbations} "
            "(NUM_PERTURBATIONS), 0 is the original."
        )
    folder, round = source.folder_of(name) or (None, 0)
    scored = scoring_instances(task, scorer.num_instances, Key(source.seed, round))
    chosen = _instance(task, scored, instance)
    used = [one.id for one in scored]
    forms = tuple(
        _form(source, task, chosen, j, round, used, scorer.perturbation or WordDrop())
        for j in dict.fromkeys((0, perturbation))
    )
    answer, likelihoods = _answers(source, folder, name, chosen)
    return Seen(task, chosen, forms, answer, likelihoods)


def _instance(task: Task, scored: Sequence[Instance], wanted: str | None) -> Instance | None:
    if wanted is None:
        return scored[0] if scored else None
    if wanted.isdecimal() and int(wanted) < len(scored):
        return scored[int(wanted)]
    everything = {one.id: one for one in task.instances}
    if wanted not in everything:
        raise UserError(
            f"--instance={wanted}: {task.name} has no such instance; {len(scored)} are scored (0 to "
            f"{len(scored) - 1}) of {len(everything):,}.{visible(nearest(wanted, everything))}"
        )
    return everything[wanted]


def _form(
    source: Source, task: Task, instance: Instance | None, j: int, round: int, used, perturbation
) -> Form:
    instruction = perturbed_instruction(
        task, perturbation, j, seed=source.seed, round_index=round, used_instances=used
    )
    encoding = source.part("encoding") or TkInstructEncoding()
    vocabulary = source.part("vocabulary")
    try:
        pieces_of = vocabulary and (lambda text: vocabulary.pieces(vocabulary.encode(text)))
        if pieces_of:
            pieces_of("")
    except UserError as error:
        source.problems.append(f"no vocabulary: {error}")
        vocabulary = pieces_of = None
    count, truncate = (lambda text: 0), (lambda text, length: text)
    if vocabulary is not None:
        count, truncate = vocabulary.count_tokens, vocabulary.truncate
    text = instance.input if instance else ""
    prompt = encoding.encode(instruction, text, count, truncate, task_name=task.name)
    if vocabulary is None:
        return Form(j, prompt, None)
    ids = vocabulary.encode_source(prompt.text, encoding.max_source_length)
    return Form(j, prompt, tuple(vocabulary.pieces(ids)))


def _answers(
    source: Source, folder: Any, name: str, instance: Instance | None
) -> tuple[str | None, dict[int, float]]:
    """Returns the model's answer to an instance, and its log-likelihood under every form."""
    if source.run is None or instance is None:
        return None, {}
    path = folder / "likelihoods.parquet" if folder is not None else None
    if path is not None and path.exists():
        rows = read_rows(path, name)
        mine = [i for i, identity in enumerate(rows["instance_id"]) if identity == instance.id]
        if mine:
            values = {rows["prompt"][i]: rows["log_likelihood"][i] for i in mine}
            return rows["answer"][mine[0]], values
    for folder in sorted(source.run.glob("round_[0-9]*"), reverse=True):
        if (folder / "predictions.jsonl").exists():
            for item in read_predictions(folder / "predictions.jsonl"):
                if (item.task, item.instance_id) == (name, instance.id):
                    return item.prediction, {}
            return None, {}
    return None, {}


def compared(original: str, perturbed: str) -> list[tuple[str, str]]:
    """Returns the perturbed text in parts, with the words that it lost: (`SAME`, text), ...

    White space is the original's: perturbations collapse it, which is left out here.
    """
    before = re.findall(r"\s*\S+", original)
    words = perturbed.split()
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in before], words, False)
    parts: list[tuple[str, str]] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            parts += [(SAME, word) for word in before[a:b]]
        else:
            parts += [(DROPPED, word) for word in before[a:b]]
            parts += [(ADDED, f" {word}") for word in words[c:d]]
    joined: list[tuple[str, str]] = []
    for kind, text in parts:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + text)
        else:
            joined.append((kind, text))
    return joined
