"""Racing: fewer perturbed prompts, and with high probability the same selection.

Scoring computes n instances x k perturbed prompts of every task, although after a few most
tasks are clearly in or out of the selection. A race computes the prompts in waves and stops
with a task once its place is certain; tasks near the threshold are computed in full.
`partial_scores` tells from the passes so far how sure a place is.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ait_jax.errors import UserError, shown
from ait_jax.pool.cls_gen import Group
from ait_jax.scorer.partial_scores import PredictedScores, predict, prompt_order, wrong_chances
from ait_jax.selection.selection import PromptUncertainty, SelectionContext, Strategy
from ait_jax.selection.uncertainty import TaskScores, prompt_uncertainty

IN, UNDECIDED, OUT = "in", "undecided", "out"
# A variance needs two steps.
MIN_STEPS = 2
# Scores at which the better tasks are counted, relative to the threshold, as logarithms:
# within a factor of 3.3 and 2% apart. A score beyond or between counts as the worse neighbor.
GRID = np.linspace(-1.2, 1.2, 129)


@dataclass(frozen=True)
class Racing:
    """Settings of a race.

    Attributes:
      waves: cumulative steps after which tasks are judged, ascending, at least 2; a step is
        one perturbed prompt per instance. Those not below k are dropped: the last wave
        always completes k.
      error: in (0, 1), an upper bound of the expected number of wrongly decided tasks, and so of
        the probability that the selection differs from the full computation's at all. Every wave
        may spend an equal share, on the tasks that cost least. This is a sum of predicted chances:
        sure tasks cost next to nothing, and what they leave pays for those near the threshold. It
        is as good as the predictions; a bound without assumptions would compute everything.

    Raises:
      UserError: one of them is impossible.
    """

    waves: Sequence[int | float] = (2, 3, 4, 6, 8)
    error: float = 0.05

    def __post_init__(self) -> None:
        waves = tuple(self.waves)
        ascending = all(a < b for a, b in itertools.pairwise(waves))
        if not waves or not ascending or waves[0] < MIN_STEPS or any(w % 1 for w in waves):
            raise UserError(
                f"racing.Racing.waves = {waves}: give ascending whole numbers, the first at "
                f"least {MIN_STEPS}, as in (2, 3, 4, 6, 8)."
            )
        if not 0 < self.error < 1:
            raise UserError(
                f"racing.Racing.error = {self.error}: give a probability above 0 and below 1, "
                "as in 0.05."
            )


@dataclass(frozen=True)
class Wave:
    """What to compute next.

    Attributes:
      tasks: those undecided, in the order that the race was given.
      steps: a range of 0..k-1, the same for all of them.
      num_perturbations: k.
    """

    tasks: tuple[str, ...]
    steps: range
    num_perturbations: int

    def prompts(self, num_instances: int) -> Int[np.ndarray, "n steps"]:
        """Returns the numbers j of the prompts of each instance of a task."""
        return prompt_order(num_instances, self.num_perturbations)[:, list(self.steps)]


@dataclass(frozen=True)
class WaveReport:
    """After a wave: cumulative steps, tasks that took part, and all verdicts so far."""

    steps: int
    tasks: int
    num_in: int
    num_undecided: int
    num_out: int


@dataclass(frozen=True)
class RaceReport:
    """What a race cost and how sure it is.

    Attributes:
      passes, full_passes: passes under perturbed prompts done, and those of the full
        computation. The pass under the original prompt is needed in both.
      error_bound: bounds the expected number of wrongly decided tasks and the probability
        that the selection differs from the full computation's; at most `Racing.error`.
      waves: one entry per wave.
    """

    passes: int
    full_passes: int
    error_bound: float
    waves: tuple[WaveReport, ...]

    @property
    def saved(self) -> float:
        """The share of the full computation's passes that were not needed."""
        return 1 - self.passes / self.full_passes if self.full_passes else 0.0

    def describe(self) -> str:
        """Returns one line for the terminal."""
        if not self.waves:
            return "racing: nothing computed yet"
        waves = "1 wave" if len(self.waves) == 1 else f"{len(self.waves)} waves"
        undecided = self.waves[-1].num_undecided
        chance = f"at most {self.error_bound:.1%}" if self.error_bound else "none"
        return (
            f"racing: {self.passes:,} of {self.full_passes:,} passes under perturbed prompts "
            f"({self.saved:.0%} saved), {self.waves[0].tasks} tasks in {waves}; "
            + (f"{undecided} undecided; " if undecided else "")
            + f"chance of another selection than the full computation's: {chance}"
        )


@dataclass(frozen=True)
class Raced(Strategy):
    """Ranks as `strategy` does, but no task before one that a race preferred.

    The score of a task that was stopped early is a mean over fewer prompts; near the threshold
    it may contradict the verdict. There is no margin: `RaceReport.error_bound` says how sure
    the selection is.
    """

    strategy: PromptUncertainty
    verdicts: Mapping[str, str]

    @property
    def name(self) -> str:
        """That of the raced strategy."""
        return self.strategy.name

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns every name of `scores.tasks` once: those in, undecided, out."""
        places = {IN: 0, UNDECIDED: 1, OUT: 2}
        ranked = self.strategy.rank(scores, context)
        return sorted(ranked, key=lambda task: places[self.verdicts[task]])


class Race:
    """One race over the remaining tasks.

        race = Race(Racing(), strategy, quotas.groups(tasks, is_cls), num_perturbations=10)
        while wave := race.next_wave():
            ...  # for wave.tasks, compute wave.prompts(n) into the matrices
            race.record(matrices)
        selection.select(Raced(strategy, race.verdicts), context)

    The verdicts depend on the recorded numbers alone, not on interruptions or the order of tasks.

    Args:
      settings: waves and error.
      strategy: highest or lowest prompt uncertainty.
      groups: the tasks that are ranked apart, and how many of them are selected.
      num_perturbations: k, at least 1.

    Raises:
      UserError: the strategy ranks by something else.
      ValueError: a task is in two groups, or a group is smaller than its quota.
    """

    def __init__(
        self,
        settings: Racing,
        strategy: Strategy,
        groups: Sequence[Group],
        num_perturbations: int,
    ) -> None:
        self.settings, self.strategy = settings, check_strategy(strategy)
        # Sorted, so that sums are the same to the last bit whatever the order of the tasks.
        self.groups = {group.name: sorted(group.tasks) for group in groups}
        self.quotas = {group.name: group.quota for group in groups}
        self.num_perturbations = num_perturbations
        self._verdicts = {task: UNDECIDED for group in groups for task in group.tasks}
        if len(self._verdicts) != sum(map(len, self.groups.values())):
            raise ValueError("a task is in two groups, or in one twice")
        for group, tasks in self.groups.items():
            if not 0 <= self.quotas[group] <= len(tasks):
                raise ValueError(f"quota {self.quotas[group]} of {len(tasks)} {group} tasks")
        early = [int(wave) for wave in settings.waves if wave < num_perturbations]
        self._ends = [*early, num_perturbations]
        self._cells: dict[str, np.ndarray] = {}
        self._largest: dict[str, float] = {}
        self._error = 0.0
        self._waves: list[WaveReport] = []

    @property
    def verdicts(self) -> dict[str, str]:
        """Task -> "in", "undecided" or "out"."""
        return dict(self._verdicts)

    def report(self) -> RaceReport:
        """Returns cost and certainty so far."""
        cells = self._cells.values()
        return RaceReport(
            passes=sum(seen.size for seen in cells),
            full_passes=sum(len(seen) for seen in cells) * self.num_perturbations,
            error_bound=self._error,
            waves=tuple(self._waves),
        )

    def next_wave(self) -> Wave | None:
        """Returns what to compute and `record`, or None once every task is decided."""
        tasks = tuple(t for t, verdict in self._verdicts.items() if verdict == UNDECIDED)
        if not tasks:
            return None
        start = self._ends[len(self._waves) - 1] if self._waves else 0
        return Wave(tasks, range(start, self._ends[len(self._waves)]), self.num_perturbations)

    def record(self, log_likelihoods: Mapping[str, np.ndarray]) -> None:
        """Takes the numbers that `next_wave` asked for, and judges.

        Args:
          log_likelihoods: for every task of the wave float[n, k + 1], mean token log-likelihoods
            in nats: row i is that of `Wave.prompts`, column j the prompt j. Other tasks and the
            cells of later steps are ignored and may be missing or NaN.

        Raises:
          ValueError: the race is over, or a task or a cell is missing.
        """
        wave = self.next_wave()
        if wave is None:
            raise ValueError("the race is over")
        cells = {task: self._read(task, log_likelihoods) for task in wave.tasks}
        holes = [task for task, seen in cells.items() if not np.isfinite(seen).all()]
        if holes:
            raise ValueError(f"{len(holes)} tasks lack numbers of steps {wave.steps}: {holes[:3]}")
        self._cells |= cells
        for task in wave.tasks:
            original = np.exp(np.asarray(log_likelihoods[task], np.float64)[:, 0])
            self._largest[task] = float(np.maximum(original, 1 - original).mean())
        if wave.steps.stop == self.num_perturbations:
            self._rank_complete(log_likelihoods)
        else:
            self._judge()
        verdicts = list(self._verdicts.values())
        counts = [verdicts.count(verdict) for verdict in (IN, UNDECIDED, OUT)]
        self._waves.append(WaveReport(wave.steps.stop, len(wave.tasks), *counts))

    def _read(self, task: str, log_likelihoods: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns |p_i0 - p_ij| of the steps up to the current wave's last: float64[n, steps]."""
        if task not in log_likelihoods:
            raise ValueError(f"task {shown(task)} is missing")
        probability = np.exp(np.asarray(log_likelihoods[task], np.float64))
        n, k = len(probability), self.num_perturbations
        if probability.shape != (n, k + 1):
            raise ValueError(f"task {shown(task)}: shape {probability.shape}, needed (n, {k + 1})")
        prompts = prompt_order(n, k)[:, : self._ends[len(self._waves)]]
        return np.abs(probability[:, :1] - np.take_along_axis(probability, prompts, axis=1))

    def _judge(self) -> None:
        """Decides the surest tasks, as many as the waves' shares of the error so far allow."""
        names = sorted(self._cells)
        row_of = {name: row for row, name in enumerate(names)}
        predicted = predict(
            [self._cells[name] for name in names],
            [self._largest[name] for name in names],
            self.num_perturbations,
        )
        self._fill_groups()
        candidates = []
        for group, tasks in self.groups.items():
            if all(self._verdicts[task] != UNDECIDED for task in tasks):
                continue
            rows = predicted.rows([row_of[task] for task in tasks])
            wrong = self._wrong_chances(rows, self.quotas[group])
            for task, chances in zip(tasks, wrong, strict=True):
                if self._verdicts[task] == UNDECIDED and self._is_judgeable(task):
                    verdict = (IN, OUT)[chances.argmin()]
                    candidates.append((float(chances.min()), task, group, verdict))
        vacancies = {group: self._vacancies(group) for group in self.groups}
        allowed = self.settings.error * (len(self._waves) + 1) / (len(self._ends) - 1)
        for chance, task, group, verdict in sorted(candidates):
            if self._error + chance > allowed:
                break
            if vacancies[group][verdict]:
                vacancies[group][verdict] -= 1
                self._verdicts[task] = verdict
                self._error += chance
        self._fill_groups()

    def _is_judgeable(self, task: str) -> bool:
        """Whether every perturbation was tried on some instance.

        An untried one may change every answer, and nothing predicts that.
        """
        return self._cells[task].size >= self.num_perturbations

    def _wrong_chances(self, predicted: PredictedScores, quota: int) -> np.ndarray:
        """Returns float64[tasks, 2], the chances that "in" and "out" are wrong."""
        sign = 1 if self.strategy.direction == "high" else -1
        ordered = np.sort(sign * predicted.log_mean)[::-1]
        grid = GRID + (ordered[quota - 1] + ordered[quota]) / 2
        survival = predicted.survival(sign * grid)
        # The lowest scores are the highest of the negated ones.
        return wrong_chances(survival if sign == 1 else 1 - survival, quota)

    def _vacancies(self, group: str) -> dict[str, int]:
        """Returns how many more tasks of a group may be in and out."""
        verdicts = [self._verdicts[task] for task in self.groups[group]]
        quota = self.quotas[group]
        return {
            IN: quota - verdicts.count(IN),
            OUT: len(verdicts) - quota - verdicts.count(OUT),
        }

    def _fill_groups(self) -> None:
        """Decides the rest of a group once one side of it is full.

        This adds no error: with `a` tasks wrongly in and `b` wrongly out the selection differs
        in max(a, b) tasks, whether the rest is ranked exactly or not at all.
        """
        for group, tasks in self.groups.items():
            vacancies = self._vacancies(group)
            for full, rest in ((IN, OUT), (OUT, IN)):
                if not vacancies[full]:
                    open_tasks = [t for t in tasks if self._verdicts[t] == UNDECIDED]
                    self._verdicts |= dict.fromkeys(open_tasks, rest)

    def _rank_complete(self, log_likelihoods: Mapping[str, np.ndarray]) -> None:
        """Decides the fully computed tasks by rank, as `selection.select` would."""
        sign = -1 if self.strategy.direction == "high" else 1
        for group, tasks in self.groups.items():
            open_tasks = [task for task in tasks if self._verdicts[task] == UNDECIDED]
            # Not the mean of `_cells`: in another order its last bits may differ.
            score = {task: prompt_uncertainty(log_likelihoods[task]) for task in open_tasks}
            open_tasks.sort(key=lambda task: (sign * score[task], task))
            places = self._vacancies(group)[IN]
            self._verdicts |= dict.fromkeys(open_tasks[:places], IN)
            self._verdicts |= dict.fromkeys(open_tasks[places:], OUT)


def check_strategy(strategy: Strategy | None) -> PromptUncertainty:
    """Returns the strategy if it can be raced: if it ranks by prompt uncertainty alone.

    Raises:
      UserError: no strategy, or one that ranks by something else.
    """
    if strategy is None:
        raise UserError(
            "RACING = True needs a STRATEGY to decide what the race is for: add "
            "--gin_file=strategies/prompt_uncertainty.gin, or set RACING = False."
        )
    if not isinstance(strategy, PromptUncertainty) or strategy.measure != "prompt_uncertainty":
        raise UserError(
            f"STRATEGY {shown(strategy.name)} cannot be raced: a race decides by prompt "
            "uncertainty alone. Set RACING = False, or choose strategies/prompt_uncertainty.gin."
        )
    return strategy
