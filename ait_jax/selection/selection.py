"""Strategies: task scores in, the next tasks to train on out.

A strategy is a frozen dataclass that gin can configure. To add one, write a module and
name its class in a gin file (`STRATEGY = @my_strategies.LowStd()`):

    @dataclass(frozen=True)
    class LowStd(selection.Strategy):
        def preference(self, scores, context):
            return -scores.std

Tasks with equal preference are ordered by name, ascending, on every machine. (The authors'
code leaves them in the order of the prediction file, reversed for "High" and unreversed for
perplexity, so their ties depend on how the file was written.)
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool import TaskPool
from ait_jax.pool.cls_gen import Quotas
from ait_jax.randomness import Key
from ait_jax.selection.uncertainty import PerTask, TaskScores

# Across meshes and process counts scores agree to this (float32 reductions in another order),
# so a selection that hangs on less may differ there.
SCORE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class SelectionContext:
    """What a selection is made from.

    Args:
      scores: of the remaining tasks; `TaskScores.unscored(names)` does for a strategy whose
        `needs_scores` is False.
      pool: has the tasks' categories, and whether they are CLS or GEN.
      quotas: how many tasks to select.
      key: of every random draw.
      train, dev: the tasks chosen so far, and those that say what is wanted.
      embeddings: of the remaining, train and dev tasks, for an `EmbeddedStrategy`.
      reference_losses: of the remaining tasks, for a `ReferenceStrategy`.
    """

    scores: TaskScores
    pool: TaskPool
    quotas: Quotas
    key: Key
    train: Sequence[str] = ()
    dev: Sequence[str] = ()
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference_losses: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """Orders tasks from most to least wanted. Subclasses override `preference` or `rank`.

    Attributes:
      needs_scores: False if names are enough, so that scoring can be skipped.
    """

    needs_scores: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The class name in snake_case, which labels reports and keys random draws."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def of_round(self, dev_scores: Sequence[float]) -> "Strategy":
        """Returns what selects in a round: itself, unless it is made of strategies.

        Args:
          dev_scores: ROUGE-L on the dev tasks after each training so far, this round's the last.
        """
        return self

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask | None:
        """Returns a number for each task, higher is more wanted; None leaves it to `rank`."""
        return None

    def finite(self, values: np.ndarray, scores: TaskScores) -> np.ndarray:
        """Returns values of the tasks in `scores`; UserError if one is not finite."""
        wrong = np.flatnonzero(~np.isfinite(values))
        if not len(wrong):
            return values
        names = ", ".join(scores.tasks[i] for i in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        hint = "Score the round again, in float32 if it was bfloat16."
        if (scores.num_prompts[wrong] == 1).all():
            hint = "No perturbed prompts were scored: set NUM_PERTURBATIONS to at least 1."
        elif (scores.num_prompts[wrong] == 0).all():
            hint = "These tasks were not scored, and this strategy needs scores."
        raise UserError(
            f"Strategy {shown(self.name)} cannot rank {len(wrong)} of {len(scores)} tasks whose "
            f"scores are not finite: {names}. {hint}"
        )

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns every name of `scores.tasks` once, most wanted first."""
        preference = self.preference(scores, context)
        if preference is None:
            raise NotImplementedError(f"{type(self).__name__} needs a preference() or a rank()")
        if len(preference) != len(scores):
            raise ValueError(
                f"{type(self).__name__}.preference() returned {len(preference)} values for "
                f"{len(scores)} tasks"
            )
        preference = self.finite(preference, scores)
        order = sorted(range(len(scores)), key=lambda i: (-preference[i], scores.tasks[i]))
        return [scores.tasks[i] for i in order]


@dataclass(frozen=True)
class PromptUncertainty(Strategy):
    """Highest (paper) or lowest of a `measure`, which is any float column of `TaskScores`."""

    direction: str = "high"
    measure: str = "prompt_uncertainty"

    def __post_init__(self) -> None:
        _check_option(type(self).__name__, "direction", self.direction, ("high", "low"))
        _check_option(type(self).__name__, "measure", self.measure, _measures())

    @property
    def name(self) -> str:
        """Direction and measure."""
        return f"{self.direction}_{self.measure}"

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns the measure, or its negative."""
        values = getattr(scores, self.measure)
        return values if self.direction == "high" else -values


@dataclass(frozen=True)
class Perplexity(PromptUncertainty):
    """Highest or lowest perplexity of the model's own answers (the paper's baselines)."""

    measure: str = field(default="perplexity", init=False)


@dataclass(frozen=True)
class HighPerplexity(Perplexity):
    """`Perplexity` with direction "high"."""


@dataclass(frozen=True)
class LowPerplexity(Perplexity):
    """`Perplexity` with direction "low"."""

    direction: str = "low"


@dataclass(frozen=True)
class Random(Strategy):
    """Uniformly random tasks. A task's draw depends on the seed, the round and its name only."""

    needs_scores: ClassVar[bool] = False

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the tasks in random order."""
        return _random_order(scores.tasks, self.name, context)


@dataclass(frozen=True)
class RandomCategory(Strategy):
    """One random task of every category, then random tasks of all that are left.

    As the authors' `RandomSelect` with "category": tasks in random order, of which the first of
    each category come first, and the others, in another random order, behind them. With a CLS/GEN
    ratio each group is drawn separately.
    """

    needs_scores: ClassVar[bool] = False

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the tasks as they are drawn."""
        first_of: dict[str, str] = {}
        for task in _random_order(scores.tasks, self.name, context):
            first_of.setdefault(context.pool[task].category, task)
        # A new order: in the first one, a small category's other tasks stand far behind.
        left = set(scores.tasks).difference(first_of.values())
        return [*first_of.values(), *_random_order(left, f"{self.name}/others", context)]


@dataclass(frozen=True)
class RankMixture(Strategy):
    """Lowest sum of ranks over several measures, the authors' `SumRank_...-Low`.

    Rank 0 goes to the lowest value where the direction is "low" and to the highest where it
    is "high"; equal values share their mean rank. Of equal sums the one with the lower first
    measure's rank comes first (for `Easy` and `Difficult` the less uncertain task), as in the
    authors' code. Its margin counts ranks, not scores.
    """

    measures: tuple[str, ...] = ("prompt_uncertainty", "prediction_probability")
    directions: tuple[str, ...] = ("low", "low")

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if len(self.measures) != len(self.directions) or not self.measures:
            raise UserError(
                f"{owner}.measures has {len(self.measures)} entries and {owner}.directions "
                f"{len(self.directions)}; give each measure one direction."
            )
        for measure, direction in zip(self.measures, self.directions, strict=True):
            _check_option(owner, "measures", measure, _measures())
            _check_option(owner, "directions", direction, ("high", "low"))

    def preference(self, scores: TaskScores, context: SelectionContext) -> PerTask:
        """Returns the negative sum of ranks."""
        return -self._ranks(scores).sum(axis=0)

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the tasks by their sum of ranks, their first rank, and their name."""
        ranks = self._ranks(scores)
        rows = zip(ranks.sum(axis=0), ranks[0], scores.tasks, strict=True)
        return [task for _, _, task in sorted(rows)]

    def _ranks(self, scores: TaskScores) -> np.ndarray:
        """Returns float64[measures, tasks], 0 is best."""
        ranks: list[PerTask] = []
        for measure, direction in zip(self.measures, self.directions, strict=True):
            values = self.finite(getattr(scores, measure), scores)
            ranks.append(mean_ranks(values if direction == "low" else -values))
        return np.stack(ranks)


@dataclass(frozen=True)
class Easy(RankMixture):
    """The task map's easy region: lowest rank(PU) + rank(-probability)."""

    directions: tuple[str, ...] = ("low", "high")


@dataclass(frozen=True)
class Difficult(RankMixture):
    """The task map's difficult region: lowest rank(PU) + rank(probability)."""


@dataclass(frozen=True)
class Ambiguous(PromptUncertainty):
    """The task map's ambiguous region: highest prompt uncertainty."""

    name = Strategy.name


@dataclass(frozen=True)
class Selection:
    """What one round chose.

    Attributes:
      tasks: names, in order; with a ratio the CLS tasks come first, as in the authors' files.
      num_cls, num_gen: how many of them are CLS and GEN.
      margins: per ranked group ("all", or "cls" and "gen") the preference of the last
        selected task minus that of the first one left out, at least 0; None where nothing was
        selected or left out or the strategy has no preference (random).
    """

    tasks: tuple[str, ...]
    num_cls: int
    num_gen: int
    margins: Mapping[str, float | None]

    def close_calls(self) -> dict[str, float]:
        """Returns the margins so small that another machine may choose otherwise."""
        return {g: m for g, m in self.margins.items() if m is not None and m < SCORE_TOLERANCE}


def select(strategy: Strategy, context: SelectionContext) -> Selection:
    """Chooses the next tasks of `context.scores`, as many as its quotas ask for.

    Where CLS and GEN have quotas of their own, they are ranked apart, and rank sums too are
    taken within the group.

    Raises:
      UserError: more tasks asked for than remain, a ratio outside [0, 1], scores that are
        not finite, or a strategy whose ranking is no permutation of the tasks.
    """
    scores, is_cls = context.scores, context.pool.is_cls
    _check_request(context.quotas, len(scores))
    chosen: list[str] = []
    margins: dict[str, float | None] = {}
    for group in context.quotas.groups(scores.tasks, is_cls):
        ranked, margins[group.name] = _rank_group(
            strategy, scores.subset(group.tasks), group.quota, context
        )
        chosen += ranked[: group.quota]
    num_cls = sum(map(is_cls, chosen))
    return Selection(tuple(chosen), num_cls, len(chosen) - num_cls, margins)


def mean_ranks(values: PerTask) -> PerTask:
    """Returns ranks from 0, lowest value first; equal values share their mean rank."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return (below + not_above - 1) / 2


def _rank_group(
    strategy: Strategy, scores: TaskScores, quota: int, context: SelectionContext
) -> tuple[list[str], float | None]:
    """Returns the ranking and the margin between the last task taken and the next."""
    if not len(scores):
        return [], None
    ranked = list(strategy.rank(scores, context))
    if sorted(ranked) != sorted(scores.tasks):
        raise UserError(
            f"{type(strategy).__name__}.rank() returned {len(ranked)} names for {len(scores)} "
            "tasks, and not the same ones: return every name of scores.tasks exactly once."
        )
    preference = strategy.preference(scores, context)
    if preference is None or not 0 < quota < len(ranked):
        return ranked, None
    value_of = dict(zip(scores.tasks, preference, strict=True))
    return ranked, float(value_of[ranked[quota - 1]] - value_of[ranked[quota]])


def _check_request(quotas: Quotas, num_remaining: int) -> None:
    num_tasks, cls_ratio = quotas.num_tasks, quotas.cls_ratio
    if num_tasks < 1:
        raise UserError(f"TASKS_PER_ROUND is {num_tasks}; set it to at least 1.")
    if num_tasks > num_remaining:
        raise UserError(
            f"TASKS_PER_ROUND asks for {num_tasks} tasks but {num_remaining} remain in the pool; "
            "set TASKS_PER_ROUND or ROUNDS lower, or use a larger pool."
        )
    if cls_ratio is not None and not 0 <= cls_ratio <= 1:
        raise UserError(f"CLS_RATIO is {cls_ratio}; set a share in [0, 1], or None.")


def _random_order(names: Iterable[str], purpose: str, context: SelectionContext) -> list[str]:
    key = (context.key.seed, "select", context.key.round_index, purpose)
    return sorted(names, key=lambda name: (randomness.stable_hash(*key, name), name))


def _measures() -> tuple[str, ...]:
    return tuple(f.name for f in fields(TaskScores) if f.name != "tasks" and "num_" not in f.name)


def _check_option(owner: str, option: str, given: Any, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise UserError(
            f"{owner}.{option} is {shown(given)}.{nearest(str(given), allowed)} "
            f"Give one of {', '.join(allowed)}."
        )
