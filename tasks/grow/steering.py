"""Where to grow: datasets ranked by how prompt-sensitive the model is on tasks like theirs.

A scored round says how uncertain the model is about every task when its instruction is perturbed.
The expected uncertainty of a dataset is the mean over the scored tasks that say most about it:

    its own tasks        those made from it
    tasks of its kind    if it has none: those of its task category
    its nearest tasks    if there are none either: the five whose texts are most like its own

Texts are compared by the cosine of their words' TF-IDF weights: steering asks no model and gives
the same ranking everywhere. Neither paper has this.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ait_jax.tasks.grow.dataset import Dataset, Tally
from ait_jax.tasks.grow.grown_pool import Entry

from ait_jax.errors import UserError
from ait_jax.runtime import disk

OWN, KIND, NEAREST, NOTHING = "its own tasks", "tasks of its kind", "its nearest tasks", "the mean"
_NEIGHBORS = 5
_LONGEST_TEXT = 2000
_NUM_NAMED, _NUM_SHOWN, _NUM_REPORTED = 3, 10, 100
T = TypeVar("T")


@dataclass(frozen=True)
class ScoredTask:
    """A task, its (finite) prompt uncertainty, and whether the task map calls it ambiguous."""

    entry: Entry
    uncertainty: float
    is_ambiguous: bool = False

    @property
    def dataset(self) -> str:
        """The dataset it was made from."""
        return next(iter(self.entry.task.metadata.get("Source", ())), "")


@dataclass(frozen=True)
class Estimate:
    """The expected uncertainty of a dataset.

    Attributes:
      uncertainty: mean over `tasks`.
      evidence: OWN, KIND, NEAREST or NOTHING.
      tasks: the scored tasks behind it, most uncertain first.
    """

    uncertainty: float
    evidence: str
    tasks: tuple[ScoredTask, ...] = ()

    @property
    def num_ambiguous(self) -> int:
        """How many of `tasks` are ambiguous."""
        return sum(task.is_ambiguous for task in self.tasks)

    def describe(self) -> str:
        """Returns the reason, in words."""
        if not self.tasks:
            return "nothing scored is like it: the mean of all"
        named = [f"{t.entry.task.name} {t.uncertainty:.3f}" for t in self.tasks[:_NUM_NAMED]]
        more = ", ..." if len(self.tasks) > _NUM_NAMED else ""
        counts = f"{len(self.tasks)} scored, {self.num_ambiguous} ambiguous"
        return f"{self.evidence}, {counts}: {', '.join(named)}{more}"


class Steering:
    """Puts datasets in the order of the prompt uncertainty expected of their tasks.

    Args:
      folder: MODEL_DIR/round_NNN of a run, or the folder of `ait-jax score`: task_scores.parquet
        and, for the task map's categories, ambiguous.txt.
      entries: of the pool that is to grow.
      only: leave out datasets that are no more sensitive than the average task.

    Attributes:
      mean: prompt uncertainty of the scored tasks.
      num_unknown: scored tasks that the pool lacks.

    Raises:
      UserError: there are no scores, they are damaged, or none is of a task of this pool.
    """

    def __init__(self, folder: Any, entries: Iterable[Entry], only: bool = False) -> None:
        self._folder, self._only = disk.local_path(folder), only
        self._scored, self.num_unknown = _read_scores(self._folder, entries)
        self._ranked: dict[str, Estimate] = {}
        self.mean = math.fsum(task.uncertainty for task in self._scored) / len(self._scored)
        self._of_dataset: Mapping[str, list[ScoredTask]] = defaultdict(list)
        self._of_kind: Mapping[str, list[ScoredTask]] = defaultdict(list)
        for task in self._scored:
            self._of_dataset[task.dataset].append(task)
            for kind in map(_folded, task.entry.task.categories):
                self._of_kind[kind].append(task)
        texts = [_words(_task_text(task)) for task in self._scored]
        self._weight = _inverse_frequencies(texts)
        self._vectors = [self._vector(words) for words in texts]

    def estimate(self, dataset: Dataset) -> Estimate:
        """Returns the expected uncertainty of tasks made from a dataset, and why."""
        own = self._of_dataset.get(dataset.name, ())
        if own:
            return _mean_of(own, OWN)
        kinds = map(_folded, dataset.task_categories)
        alike = {t.entry.task.name: t for kind in kinds for t in self._of_kind.get(kind, ())}
        if alike:
            return _mean_of(list(alike.values()), KIND)
        near = self._nearest(_words(_dataset_text(dataset)))
        return _mean_of(near, NEAREST) if near else Estimate(self.mean, NOTHING)

    def _vector(self, words: Counter[str]) -> dict[str, float]:
        weights = {w: n * self._weight[w] for w, n in sorted(words.items()) if w in self._weight}
        length = math.sqrt(math.fsum(value * value for value in weights.values()))
        return {word: value / length for word, value in weights.items()} if length else {}

    def _nearest(self, words: Counter[str]) -> list[ScoredTask]:
        vector = self._vector(words)
        cosines = [
            math.fsum(value * other[word] for word, value in vector.items() if word in other)
            for other in self._vectors
        ]
        order = sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))  # equal ones by name
        return [self._scored[i] for i in order[:_NEIGHBORS] if cosines[i] > 0]

    def sort(self, items: Iterable[T], dataset_of: Callable[[T], Dataset], tally: Tally) -> list[T]:
        """Returns the items, the most prompt-sensitive datasets first; equal ones by name."""
        rows = []
        for place, item in enumerate(items):
            dataset = dataset_of(item)
            estimate = self.estimate(dataset)
            if self._only and estimate.uncertainty <= self.mean:
                reason = "left out: no more prompt-sensitive than the average"
            else:
                reason = f"ranked by {estimate.evidence}"
                rows.append((-estimate.uncertainty, dataset.name, place, item, estimate))
            tally.add("steering", reason, dataset.name)
        rows.sort(key=lambda row: row[:3])
        for _, name, _, _, estimate in rows:
            self._ranked.setdefault(name, estimate)
        return [row[3] for row in rows]

    def to_json(self) -> dict[str, Any]:
        """Returns what the report says: the first datasets, and why they are first."""
        return {
            "scored_tasks": len(self._scored),
            "scored_tasks_of_other_pools": self.num_unknown,
            "mean_uncertainty": self.mean,
            "datasets": [
                {
                    "dataset": name,
                    "uncertainty": estimate.uncertainty,
                    "evidence": estimate.evidence,
                    "ambiguous": estimate.num_ambiguous,
                    "tasks": [task.entry.task.name for task in estimate.tasks],
                }
                for name, estimate in list(self._ranked.items())[:_NUM_REPORTED]
            ],
        }

    def describe(self) -> str:
        """Returns the same as lines for the terminal."""
        other = f" ({self.num_unknown:,} more are of other pools)" if self.num_unknown else ""
        lines = [
            f"steered by {self._folder}: {len(self._scored):,} scored tasks of this pool{other}, "
            f"mean prompt uncertainty {self.mean:.3f}",
            "uncertainty  dataset, because of",
        ]
        for name, estimate in list(self._ranked.items())[:_NUM_SHOWN]:
            lines.append(f"{estimate.uncertainty:11.3f}  {name}: {estimate.describe()}")
        more = len(self._ranked) - _NUM_SHOWN
        return "\n".join([*lines, *([f"{'':11}  and {more:,} more"] if more > 0 else [])])


def _read_scores(folder: Path, entries: Iterable[Entry]) -> tuple[list[ScoredTask], int]:
    """Returns the scored tasks of a pool, by name, and how many others were scored."""
    from ait_jax.pool.splits import read_names
    from ait_jax.scorer.likelihoods import read_task_scores

    path = folder / "task_scores.parquet"
    if not path.is_file():
        rounds = sorted(p.parent.name for p in folder.glob("round_*/task_scores.parquet"))
        hint = f" Scored rounds there: {', '.join(rounds)}." if rounds else ""
        raise UserError(
            f"--steer={folder} has no task_scores.parquet; give a scored round "
            f"(MODEL_DIR/round_000) or the folder of `ait-jax score`.{hint}"
        )
    table = read_task_scores(path)
    ambiguous = folder / "ambiguous.txt"
    named = frozenset(read_names(ambiguous) if ambiguous.is_file() else ())
    known = {entry.task.name: entry for entry in entries}
    scored = [
        ScoredTask(known[name], float(value), name in named)
        for name, value in zip(table.tasks, table.prompt_uncertainty, strict=True)
        if name in known and math.isfinite(value)
    ]
    if not scored:
        raise UserError(
            f"--steer={folder} scored {len(table.tasks):,} tasks, none of them in the pool that is "
            "to grow; give the --pool that the run used (its DYNOSAUR_DIR)."
        )
    return sorted(scored, key=lambda t: t.entry.task.name), len(table.tasks) - len(scored)


def _mean_of(tasks: Sequence[ScoredTask], evidence: str) -> Estimate:
    mean = math.fsum(task.uncertainty for task in tasks) / len(tasks)
    ordered = sorted(tasks, key=lambda task: (-task.uncertainty, task.entry.task.name))
    return Estimate(mean, evidence, tuple(ordered))


def _folded(category: str) -> str:
    """Drops case and punctuation: "Question Answering" is "question-answering"."""
    return re.sub(r"[\W_]+", " ", category).strip().lower()


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W_]+", text[:_LONGEST_TEXT].lower()))


def _task_text(scored: ScoredTask) -> str:
    task = scored.entry.task
    fields = [*task.metadata.get("Input Fields", ()), *task.metadata.get("Output Field", ())]
    return " ".join([scored.dataset, *fields, *task.categories, task.instruction.definition])


def _dataset_text(dataset: Dataset) -> str:
    about = [dataset.name, *dataset.field_names, *dataset.task_categories, dataset.description]
    return " ".join(about)


def _inverse_frequencies(texts: Sequence[Counter[str]]) -> dict[str, float]:
    """Returns word -> log((1 + texts) / (1 + texts with it)) + 1."""
    found = Counter(word for words in texts for word in words)
    return {word: math.log((1 + len(texts)) / (1 + n)) + 1 for word, n in found.items()}
