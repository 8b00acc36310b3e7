"""One task as the model sees it: the prompt, its tokens, a perturbed form, the model's answers."""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, nearest, visible
from ait_jax.evaluation.evaluation import read_predictions
from ait_jax.pool.task import Instance, Instruction, Task
from ait_jax.prompts.perturb import WordDrop, for_task, perturbed_instruction
from ait_jax.prompts.prompts import Prompt, TkInstructEncoding
from ait_jax.randomness import Key
from ait_jax.report.likelihood_rows import opened, scored_instances
from ait_jax.report.pool_view import Found, PoolView
from ait_jax.scorer.prompts_of_task import scoring_instances
from ait_jax.scorer.scorer import Scorer

SAME, DROPPED, ADDED = "same", "dropped", "added"


@dataclass(frozen=True)
class Form:
    """A prompt of a task: j = 0 is the original, 1 to k are perturbed.

    Attributes:
      pieces: the tokens that the model reads, with end-of-sequence; None without a vocabulary.
    """

    j: int
    prompt: Prompt
    pieces: tuple[str, ...] | None


@dataclass(frozen=True)
class Seen:
    """A task as the model sees it.

    Attributes:
      instance: the one shown; None if the task has no instances.
      forms: the original prompt and the perturbed one asked for.
      answer: the model's, to the original prompt, if a run has it.
      likelihoods: {j: the answer's mean token log-likelihood under form j}.
    """

    task: Task
    instance: Instance | None
    forms: tuple[Form, ...]
    answer: str | None
    likelihoods: dict[int, float]


def see(view: PoolView, name: str, instance: str | None = None, perturbation: int = 1) -> Seen:
    """Builds a task's prompts as scoring builds them.

    Args:
      instance: its id, or its number from 0 among the scored ones; None is the first.
      perturbation: j of the perturbed form.

    Raises:
      UserError: no such task or instance, or j out of range.
    """
    task = view.pool[name]
    scorer = view.part("scorer") or Scorer()
    if not 0 <= perturbation <= scorer.num_perturbations:
        raise UserError(
            f"--perturbation={perturbation}: the forms are 1 to {scorer.num_perturbations} "
            "(NUM_PERTURBATIONS), 0 is the original."
        )
    # Of a task that was not scored, the prompts are those of round 0.
    scored_in = view.found.get(name, Found()).scored
    key = Key(view.seed, scored_in or 0)
    scored = scoring_instances(task, scorer.num_instances, key)
    chosen = _instance(task, scored, instance)
    encoding = view.part("encoding") or TkInstructEncoding()
    vocabulary = _vocabulary(view)
    forms: list[Form] = []
    rule = for_task(scorer.perturbation or WordDrop(), view.pool, task.name)
    for j in dict.fromkeys((0, perturbation)):
        used = [one.id for one in scored]
        instruction = perturbed_instruction(task, rule, j, key, used)
        text = chosen.input if chosen else ""
        forms.append(_form(j, instruction, text, task.name, encoding, vocabulary))
    answer, likelihoods = _answers(view, scored_in, name, chosen)
    return Seen(task, chosen, tuple(forms), answer, likelihoods)


def _vocabulary(view: PoolView) -> Any:
    """Returns the pool's vocabulary, None if it cannot be read."""
    vocabulary = view.part("vocabulary")
    try:
        if vocabulary:
            vocabulary.pieces(vocabulary.encode(""))
        return vocabulary
    except UserError as error:
        view.problems.append(f"no vocabulary: {error}")
        return None


def _form(
    j: int, instruction: Instruction, text: str, task_name: str, encoding: Any, vocabulary: Any
) -> Form:
    tools = (lambda text: 0), (lambda text, length: text)
    if vocabulary is not None:
        tools = vocabulary.count_tokens, vocabulary.truncate
    prompt = encoding.encode(instruction, text, *tools, task_name=task_name)
    if vocabulary is None:
        return Form(j, prompt, None)
    ids = vocabulary.encode_source(prompt.text, encoding.max_source_length)
    return Form(j, prompt, tuple(vocabulary.pieces(ids)))


def _instance(task: Task, scored: Sequence[Instance], wanted: str | None) -> Instance | None:
    if wanted is None:
        return scored[0] if scored else None
    if wanted.isdecimal() and int(wanted) < len(scored):
        return scored[int(wanted)]
    everything = {one.id: one for one in task.instances}
    if wanted not in everything:
        raise UserError(
            f"--instance={wanted}: {task.name} has no such instance; {len(scored)} are scored "
            f"(0 to {len(scored) - 1}) of {len(everything):,}."
            f"{visible(nearest(wanted, everything))}"
        )
    return everything[wanted]


def _answers(
    view: PoolView, scored_in: int | None, name: str, instance: Instance | None
) -> tuple[str | None, dict[int, float]]:
    """Returns the model's answer to an instance, and its log-likelihood under every form."""
    if view.run is None or instance is None:
        return None, {}
    if scored_in is not None:
        path = view.run.folder(scored_in) / "likelihoods.parquet"
        if path.exists():
            with opened(path) as rows:
                found = scored_instances(rows.read([name]), [name]).get(name, {})
            if instance.id in found:
                return found[instance.id].answer, found[instance.id].log_likelihood
    answered = [p for f in view.folders() if (p := f / "predictions.jsonl").exists()]
    for item in read_predictions(answered[-1]) if answered else ():
        if (item.task, item.instance_id) == (name, instance.id):
            return item.prediction, {}
    return None, {}


def compared(original: str, perturbed: str) -> list[tuple[str, str]]:
    """Returns the perturbed text in parts, dropped words included: (`SAME`, text), ...

    White space is the original's, because perturbations collapse it.
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
    runs = itertools.groupby(parts, key=lambda part: part[0])
    return [(kind, "".join(text for _, text in run)) for kind, run in runs]
