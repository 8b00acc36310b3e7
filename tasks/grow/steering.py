"""Where to grow: datasets ranked by how prompt-sensitive the model is on tasks like theirs.

A scored round says how uncertain the model is of every task under rewordings of its instruction. A
dataset's expected uncertainty is the mean over the scored tasks of the pool that tell most about it:

    its own tasks        those that came from it
    tasks of its kind    where it has none: those of its task category
    its nearest tasks    where there are none either: the five whose texts are most like its own

Texts are compared by the cosine of their words' TF-IDF weights: steering asks no model and gives the same ranking
everywhere. Neither paper has this.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.grown_pool import Entry

from ait_jax.errors import UserError

OWN, KIND, NEAREST, NOTHING = "its own tasks", "tasks of its kind", "its nearest tasks", "the mean"
_NEIGHBOURS = 5
_LONGEST_TEXT = 2000
_NUM_NAMED = 3


@dataclass(frozen=True)
class ScoredTask:
    """A task of the pool with what a round says of it.

    Attributes:
      entry: of the pool.
      uncertainty: prompt uncertainty, finite.
      is_ambiguous: whether the task map calls it so.
    """

    entry: Entry
    uncertainty: float
    is_ambiguous: bool = False

    @property
    def dataset(self) -> str:
        return next(iter(self.entry.task.metadata.get("Source", ())), "")


@dataclass(frozen=True)
class Estimate:
    """What is expected of a dataset.

    Attributes:
      uncertainty: mean prompt uncertainty of `tasks`.
      evidence: OWN, KIND, NEAREST or NOTHING.
      tasks: the scored tasks that it rests on, most uncertain first.
    """

    uncertainty: float
    evidence: str
    tasks: tuple[ScoredTask, ...] = ()

    @property
    def num_ambiguous(self) -> int:
        return sum(task.is_ambiguous for task in self.tasks)

    def describe(self) -> str:
        """Returns the reason, in words."""
        if not self.tasks:
            return "nothing scored is like it: the mean of all"
        named = ", ".join(
            f"{t.entry.task.name} {t.uncertainty:.3f}" for t in self.tasks[:_NUM_NAMED]
        )
        more = ", ..." if len(self.tasks) > _NUM_NAMED else ""
        return f"{self.evidence}, {len(self.tasks)} scored, {self.num_ambiguous} ambiguous: {named}{more}"


class Steering:
    """Ranks datasets by the prompt uncertainty that a round found.

    Args:
      scored: tasks of the pool; at least one.
    """

    def __init__(self, scored: Sequence[ScoredTask]) -> None:
        self.scored = tuple(sorted(scored, key=lambda task: task.entry.task.name))
        self.mean = math.fsum(task.uncertainty for task in self.scored) / len(self.scored)
        self._of_dataset = _grouped((task.dataset, task) for task in self.scored)
        self._of_kind = _grouped(
            (kind, task)
            for task in self.scored
            for kind in map(_folded, task.entry.task.categories)
        )
        texts = [_words(_task_text(task)) for task in self.scored]
        self._weight = _inverse_frequencies(texts)
        self._vectors = [self._vector(words) for words in texts]

    def estimate(self, dataset: Dataset) -> Estimate:
        """Returns the expected uncertainty of tasks made of a dataset, and why."""
        own = self._of_dataset.get(dataset.name, ())
        if own:
            return _mean_of(own, OWN)
        kinds = map(_folded, dataset.task_categories)
        alike = {t.entry.task.name: t for kind in kinds for t in self._of_kind.get(kind, ())}
        if alike:
            return _mean_of(list(alike.values()), KIND)
        near = self._nearest(_words(_dataset_text(dataset)))
        return _mean_of(near, NEAREST) if near else Estimate(self.mean, NOTHING)

    def is_sensitive(self, estimate: Estimate) -> bool:
        """Whether more uncertainty is expected than the scored tasks have on average."""
        return estimate.uncertainty > self.mean

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
        return [self.scored[i] for i in order[:_NEIGHBOURS] if cosines[i] > 0]


def read_steering(folder: Any, entries: Iterable[Entry]) -> tuple[Steering, int]:
    """Returns the steering by a scored round, and how many tasks it scored that the pool lacks.

    Args:
      folder: MODEL_DIR/round_NNN of a run, or the folder of `ait-jax score`: task_scores.parquet and,
        for the task map's categories, ambiguous.txt.
      entries: of the pool that is to grow.

    Raises:
      UserError: no scores there, damaged ones, or none of a task of this pool.
    """
    from ait_jax.pool.splits import read_names
    from ait_jax.scorer.likelihoods import read_task_scores

    folder = Path(folder).expanduser()
    path = folder / "task_scores.parquet"
    if not path.is_file():
        rounds = sorted(p.parent.name for p in folder.glob("round_*/task_scores.parquet"))
        hint = f" Scored rounds there: {', '.join(rounds)}." if rounds else ""
        raise UserError(
            f"--steer={folder} has no task_scores.parquet; give a round that was scored "
            f"(MODEL_DIR/round_000) or the folder of `ait-jax score`.{hint}"
        )
    table = read_task_scores(path)
    ambiguous = folder / "ambiguous.txt"
    named = frozenset(read_names(ambiguous) if ambiguous.is_file() else ())
    known = {entry.task.name: entry for entry in entries}
    scored = [
        ScoredTask(known[name], float(value), name in named)
        for name, value in zip(table.tasks, table.prompt_uncertainty)
        if name in known and math.isfinite(value)
    ]
    if not scored:
        raise UserError(
            f"--steer={folder} scored {len(table.tasks):,} tasks, none of which is in the pool that is "
            "to grow; give the --pool that the run used (its DYNOSAUR_DIR)."
        )
    return Steering(scored), len(table.tasks) - len(scored)


def _grouped(pairs: Iterable[tuple[str, ScoredTask]]) -> Mapping[str, list[ScoredTask]]:
    groups: dict[str, list[ScoredTask]] = defaultdict(list)
    for key, task in pairs:
        groups[key].append(task)
    return groups


def _mean_of(tasks: Sequence[ScoredTask], evidence: str) -> Estimate:
    mean = math.fsum(task.uncertainty for task in tasks) / len(tasks)
    ordered = sorted(tasks, key=lambda task: (-task.uncertainty, task.entry.task.name))
    return Estimate(mean, evidence, tuple(ordered))


def _folded(category: str) -> str:
    """Returns a category without case and punctuation: "Question Answering", "question-answering"."""
    return re.sub(r"[\W_]+", " ", category).strip().lower()


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W_]+", text[:_LONGEST_TEXT].lower()))


def _task_text(scored: ScoredTask) -> str:
    task = scored.entry.task
    fields = [
        name for key in ("Input Fields", "Output Field") for name in task.metadata.get(key, ())
    ]
    return " ".join([scored.dataset, *fields, *task.categories, task.instruction.definition])


def _dataset_text(dataset: Dataset) -> str:
    return " ".join(
        [dataset.name, *dataset.field_names, *dataset.task_categories, dataset.description]
    )


def _inverse_frequencies(texts: Sequence[Counter[str]]) -> dict[str, float]:
    """Returns word -> log((1 + texts) / (1 + texts with it)) + 1."""
    found = Counter(word for words in texts for word in words)
    return {word: math.log((1 + len(texts)) / (1 + n)) + 1 for word, n in found.items()}
