"""What a run says of its tasks' reference outputs before it begins, and which ROUGE that means."""

from collections.abc import Iterable
from typing import Any

from ait_jax.errors import UserError
from ait_jax.evaluation import rouge
from ait_jax.evaluation.rouge import AUTO, Rouge
from ait_jax.pool import TaskPool
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.rounds.record import ROUGE_TOKENIZER, rouge_tokenizer_of
from ait_jax.rounds.run import Run
from ait_jax.runtime import reporter

# References are looked at in this many instances of a task, fewer in a pool of thousands of tasks.
_INSTANCES = 100
_ALL_INSTANCES = 100_000
# For private use: only a vocabulary that can spell every byte knows it.
_PROBE = "\ue000"


def sampled(pool: TaskPool, tasks: Iterable[str]) -> dict[str, list[str]]:
    """Returns task -> the references of its first instances."""
    names = list(tasks)
    most = min(_INSTANCES, max(1, _ALL_INSTANCES // max(1, len(names))))
    return {
        name: [text for instance in pool[name].instances[:most] for text in instance.outputs]
        for name in names
    }


def settled(run: Run[Any], measured: Iterable[str]) -> dict[str, str]:
    """Returns what the stage of the splits records: the ROUGE for the tasks that are measured."""
    references = sampled(run.pool, measured)
    return {ROUGE_TOKENIZER: rouge.chosen(run.experiment.rouge_tokenizer, references).name}


def rouge_of(run: Run[Any]) -> Rouge:
    """Returns the ROUGE of all evaluations of a run, also of those that choose checkpoints.

    Raises:
      UserError: the tokenizer in ROUGE_TOKENIZER's folder is not the one that the run began with.
    """
    recorded = rouge_tokenizer_of(run.directory.state["stages"])
    choice = run.experiment.rouge_tokenizer
    measure = rouge.rouge(recorded if choice == AUTO else choice)
    if measure.name != recorded:
        raise UserError(
            f"ROUGE_TOKENIZER is {measure.name}, but {run.directory.path} began with {recorded}: "
            "their figures cannot be compared. Restore the tokenizer or set another MODEL_DIR."
        )
    return measure


def say_rouge(run: Run[Any], measured: Iterable[str]) -> None:
    """Says how ROUGE reads the tasks in other scripts, if there are any."""
    remark = rouge.describe(rouge_of(run), sampled(run.pool, measured))
    if remark:
        reporter.say(remark)


def say_lacking(pool: TaskPool, vocabulary: Vocabulary, tasks: Iterable[str]) -> None:
    """Says how many references hold characters that the vocabulary lacks, if any do."""
    if not vocabulary.lacks(_PROBE):
        return
    references = sampled(pool, tasks)
    lacking = {name: sum(map(vocabulary.lacks, texts)) for name, texts in references.items()}
    count, total = sum(lacking.values()), sum(map(len, references.values()))
    if count:
        most = max(lacking, key=lambda name: lacking[name])
        reporter.say(
            f"{count:,} of {total:,} references hold characters that the vocabulary lacks, such as "
            f"{lacking[most]:,} of {most}: no answer can have them, and training reads them as "
            "unknown"
        )
