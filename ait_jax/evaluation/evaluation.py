"""ROUGE and exact match as Tk-Instruct computes them, and predictions on disk.

Source of the definitions: `compute_metrics.py` of Tk-Instruct (arXiv 2204.07705). An instance's
score is the best over its references; a group's score is the mean over its instances times 100, so
tasks with more instances weigh more; figures are rounded to 4 decimals. ROUGE-1 and ROUGE-L are F
measures of the `rouge_score` library; `rouge` says how texts are split into tokens.
"""

import itertools
import json
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.evaluation import rouge
from ait_jax.evaluation.rouge import AUTO, ENGLISH, ROUGE_1, ROUGE_L, Rouge
from ait_jax.runtime import files, strict_json

EXACT_MATCH = "exact_match"
# The figures of a group of instances.
METRICS = (ROUGE_L, ROUGE_1, EXACT_MATCH)

# Categories of which Tk-Instruct reports exact match; of others it reports ROUGE-L.
EXACT_MATCH_CATEGORIES = (
    "Textual Entailment",
    "Cause Effect Classification",
    "Coreference Resolution",
    "Dialogue Act Recognition",
    "Answerability Classification",
    "Word Analogy",
)

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one instance.

    Attributes:
      task, instance_id: which instance.
      prediction: the decoded answer.
      references: acceptable outputs, the first is the training target; empty if no answer is
        known, and the prediction is then kept but not measured.
      input: the prompt as the model saw it, for the record.
    """

    task: str
    instance_id: str
    prediction: str
    references: tuple[str, ...]
    input: str = ""


def normalize_answer(text: str) -> str:
    """Returns `text` in lower case, without ASCII punctuation, white space collapsed."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Returns 1.0 if the prediction equals a reference after normalization, else 0.0."""
    answer = normalize_answer(prediction)
    return float(any(answer == normalize_answer(reference) for reference in references))


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Returns the best ROUGE-L F measure over the references, in [0, 1], of the English track."""
    return rouge.rouge(ENGLISH).scores(prediction, references)[ROUGE_L]


class _Group:
    """Running sums of one group of instances."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(METRICS, 0.0)
        self.num_instances = 0
        self.tasks: set[str] = set()

    def add(self, task: str, scores: Mapping[str, float]) -> None:
        for name in METRICS:
            self.totals[name] += scores[name]
        self.num_instances += 1
        self.tasks.add(task)

    def figures(self) -> dict[str, Any]:
        """Returns the figures in percent, None without instances."""
        count = self.num_instances
        return {
            name: round(100 * total / count, 4) if count else None
            for name, total in self.totals.items()
        } | {"num_instances": count}

    def summary(self) -> dict[str, Any]:
        return self.figures() | {"num_tasks": len(self.tasks)}


def evaluate(
    predictions: Iterable[Prediction],
    is_cls: Callable[[str], bool],
    category_of: Callable[[str], str],
    measure: Rouge | None = None,
) -> dict[str, Any]:
    """Returns ROUGE and exact match, ready for JSON.

    Args:
      predictions: in any order, which does not affect the result.
      is_cls, category_of: of a task's name.
      measure: the ROUGE; None chooses it by the references' scripts, as "auto" does.

    Returns:
      {"rougeL", "rouge1", "exact_match", "num_instances", "num_tasks" over all instances with
       references,
       "num_without_references": instances that were answered but not measured,
       "rouge_tokenizer": name of the ROUGE,
       "over_tasks": {"rougeL", "rouge1", "exact_match": means over tasks of the tasks' figures,
       each task counted once, as the authors' validation curves},
       "cls": {the first five keys}, "gen": {likewise},
       "per_category": {category: {likewise, "metric", "headline"}}, ascending by name,
       "per_task": {task: {likewise, without "num_tasks"}}, ascending by name}.
      "metric" names the figure that Tk-Instruct reports for the category, "headline" is its value.
      The figures of a group without instances are None.

    Raises:
      UserError: an instance has two predictions.
    """
    items = _in_order(predictions)
    measure = measure or rouge_of(items)
    num_without = 0
    overall, cls, gen = _Group(), _Group(), _Group()
    by_category: dict[str, _Group] = {}
    by_task: dict[str, _Group] = {}
    for item in items:
        if not item.references:
            num_without += 1
            continue
        scores = measure.scores(item.prediction, item.references)
        scores[EXACT_MATCH] = exact_match(item.prediction, item.references)
        for group in (
            overall,
            cls if is_cls(item.task) else gen,
            by_category.setdefault(category_of(item.task), _Group()),
            by_task.setdefault(item.task, _Group()),
        ):
            group.add(item.task, scores)
    return {
        **overall.summary(),
        "num_without_references": num_without,
        "rouge_tokenizer": measure.name,
        "over_tasks": {name: _mean_over(by_task.values(), name) for name in METRICS},
        "cls": cls.summary(),
        "gen": gen.summary(),
        "per_category": {
            name: _with_headline(name, group) for name, group in sorted(by_category.items())
        },
        "per_task": {name: group.figures() for name, group in sorted(by_task.items())},
    }


def _mean_over(tasks: Collection[_Group], metric: str) -> float | None:
    figures = [task.figures()[metric] for task in tasks]
    return round(sum(figures) / len(figures), 4) if figures else None


def evaluate_splits(
    predictions: Iterable[Prediction],
    splits: Mapping[str, Collection[str]],
    is_cls: Callable[[str], bool],
    category_of: Callable[[str], str],
    measure: Rouge | None = None,
) -> dict[str, dict[str, Any]]:
    """Returns {split: `evaluate` of the predictions for its tasks}, in the order of `splits`.

    Args:
      splits: split name ("test", "dev") -> its tasks. A task of two splits counts in both, as in
        the authors' files.
      measure: the ROUGE of all splits; None chooses it by the references' scripts.

    Raises:
      UserError: as `evaluate`, or a prediction is for a task of no split.
    """
    tasks_of = {split: set(tasks) for split, tasks in splits.items()}
    items_of: dict[str, list[Prediction]] = {split: [] for split in splits}
    predictions = list(predictions)
    measure = measure or rouge_of(predictions)
    for item in predictions:
        owners = [split for split, tasks in tasks_of.items() if item.task in tasks]
        if not owners:
            raise UserError(
                f"There is a prediction for task {shown(item.task)}, which is not in the splits "
                f"{', '.join(splits)}; the predictions belong to other split files."
            )
        for split in owners:
            items_of[split].append(item)
    return {
        split: evaluate(items, is_cls, category_of, measure) for split, items in items_of.items()
    }


def rouge_of(predictions: Iterable[Prediction], choice: str = AUTO) -> Rouge:
    """Returns the ROUGE of a ROUGE_TOKENIZER for these references (`rouge.chosen`)."""
    references: dict[str, list[str]] = {}
    for item in predictions:
        references.setdefault(item.task, []).extend(item.references)
    return rouge.chosen(choice, references)


def _in_order(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Returns predictions by task and id, because float sums depend on their order."""
    items = sorted(predictions, key=lambda item: (item.task, item.instance_id))
    for item, following in itertools.pairwise(items):
        if (item.task, item.instance_id) == (following.task, following.instance_id):
            raise UserError(
                f"task {shown(item.task)}, instance {shown(item.instance_id)} has two predictions; "
                "keep one."
            )
    return items


def _with_headline(category: str, group: _Group) -> dict[str, Any]:
    summary = group.summary()
    metric = EXACT_MATCH if category in EXACT_MATCH_CATEGORIES else ROUGE_L
    return {**summary, "metric": metric, "headline": summary[metric]}


def write_predictions(path: Any, predictions: Iterable[Prediction]) -> None:
    """Writes predictions.jsonl as T5X's infer does, a JSON object per line, whole or not at all.

    {"inputs": {"inputs_pretokenized", "targets_pretokenized", "task", "id", "references"},
     "prediction": ...}

    Raises:
      UserError: the folder is not writable.
    """
    with files.replace_with(path) as temporary, temporary.open("wb") as file:
        for item in predictions:
            file.write(_json_line(item))


def _json_line(item: Prediction) -> bytes:
    value = {
        "inputs": {
            "inputs_pretokenized": item.input,
            "targets_pretokenized": item.references[0] if item.references else "",
            "task": item.task,
            "id": item.instance_id,
            "references": list(item.references),
        },
        "prediction": item.prediction,
    }
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def read_predictions(path: Any) -> list[Prediction]:
    """Reads what `write_predictions` or T5X wrote, which lacks our extra fields.

    Without "references" the target is the only reference, without "task" the task is "", without
    "id" the id is the line number.

    Raises:
      UserError: no such file, or a line (named) is not such an object.
    """
    data = files.read_given_bytes(path, "the predictions")
    lines = enumerate(data.split(b"\n"), 1)
    return [_parse_line(path, number, line) for number, line in lines if line.strip()]


class _Inputs(TypedDict, total=False):
    task: str
    id: str
    references: list[str] | None
    inputs_pretokenized: str
    targets_pretokenized: str


class _Line(TypedDict):
    inputs: _Inputs
    prediction: str


def _parse_line(path: Any, number: int, line: bytes) -> Prediction:
    try:
        value = strict_json.checked(strict_json.parse(line, lenient=True), _Line)
    except strict_json.Unfit as error:
        raise UserError(
            f"{shown_path(path)}, line {number}: not a prediction in T5X's infer format ({error}). "
            "Delete the file and evaluate again."
        ) from None
    inputs = value["inputs"]
    references = inputs.get("references")
    if references is None:
        references = [inputs.get("targets_pretokenized", "")]
    return Prediction(
        task=inputs.get("task", ""),
        instance_id=inputs.get("id", str(number)),
        prediction=value["prediction"],
        references=tuple(references),
        input=inputs.get("inputs_pretokenized", ""),
    )
