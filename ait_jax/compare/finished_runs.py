"""Finished run directories as a comparison reads them: curves, selections, configurations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ait_jax.compare.overlap import Draw
from ait_jax.config import configuration
from ait_jax.errors import UserError, shown
from ait_jax.evaluation.rouge import ENGLISH
from ait_jax.pool.splits import SPLIT_NAMES, read_names
from ait_jax.report.run_results import names_in
from ait_jax.rounds import record
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.record import Record, Timing, round_name
from ait_jax.rounds.round_zero import other_differences
from ait_jax.runtime import files

# A comparison's SEEDS set the first of these that an experiment gives a value to.
SEED_MACROS = ("SPLIT_SEED", "SEED")
SEED_NAMES = frozenset({*SEED_MACROS, "experiment.Experiment.seed"})
# Strategies whose name in run.json is not that of their gin file.
_ALIASES = {"high_prompt_uncertainty": "prompt_uncertainty"}


# What a run costs -> the stage, and the figure of timings.jsonl, that are added up.
COSTS = {
    "training_steps": ("train", "steps"),
    "training_tokens": ("train", "tokens"),
    "training_seconds": ("train", "seconds"),
    "scoring_tokens": ("score", "tokens"),
    "scoring_seconds": ("score", "seconds"),
}


class Unfinished(UserError):
    """A run that has not finished."""


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison needs to know about a run.

    Attributes:
      strategy: the name of its group.
      seed: what pairs it with runs of other strategies: SPLIT_SEED, else SEED.
      config: the operative configuration.
      points: the base model's if it was evaluated, then one per round.
      draws: the selections after round 0, 1, ...
      initial: round 0's training tasks.
      tasks: every task of its splits.
      rouge_tokenizer: of its figures.
      costs: training steps and tokens, scored tokens, and the seconds of both; {} if its timings
        are not kept.
    """

    path: Any
    strategy: str
    seed: int
    config: str
    pool: Mapping[str, Any]
    points: tuple[CurvePoint, ...]
    draws: tuple[Draw, ...]
    initial: tuple[str, ...]
    tasks: frozenset[str]
    rouge_tokenizer: str = ENGLISH
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> tuple[CurvePoint, ...]:
        """The points of the rounds, without the base model's."""
        return tuple(point for point in self.points if point.round_index is not None)

    @property
    def num_tasks(self) -> tuple[int, ...]:
        """Training tasks of round 0, 1, ..."""
        return tuple(point.num_tasks for point in self.rounds)


def read(path: Any, strategy: str = "") -> FinishedRun:
    """Reads a run directory.

    Args:
      strategy: the name of its group; by default from run.json.

    Raises:
      Unfinished: not all rounds are evaluated.
      UserError: no run of rounds, a damaged one, or one without measured test tasks.
    """
    run = record.read(path)
    count = _count_rounds(run)
    try:
        names = map(round_name, range(count))
        stages = [(run.stages[f"{n}/train"]["tasks"], run.stages[f"{n}/evaluate"]) for n in names]
        points = [CurvePoint.from_evaluation(i, *stage) for i, stage in enumerate(stages)]
        if base := run.stages.get("base/evaluate"):
            points.insert(0, CurvePoint.from_evaluation(None, 0, base))
        name = str(run.stages["round_000/select"]["strategy"]) if count > 1 else "no selection"
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.path / 'run.json'} is damaged: {shown(error)}.") from error
    if any(point.test.get("overall") is None for point in points):
        raise UserError(f"{run.path} has no measured test task; there is nothing to compare.")
    last = run.folder(count - 1)
    return FinishedRun(
        path=run.path,
        strategy=strategy or files.check_name(_ALIASES.get(name, name), "strategy of a run"),
        seed=_seed(run),
        config=run.config,
        pool=run.pool,
        points=tuple(points),
        draws=tuple(_draw(run.folder(round_index)) for round_index in range(count - 1)),
        initial=read_names(run.folder(0) / "train_tasks.txt"),
        tasks=frozenset().union(*(read_names(last / f"{s}_tasks.txt") for s in SPLIT_NAMES)),
        rouge_tokenizer=run.rouge_tokenizer,
        costs=_costs(record.read_timings(run.path)),
    )


def _costs(timings: Sequence[Timing]) -> dict[str, float]:
    """Returns `FinishedRun.costs`; a stage that another run did costs what it cost there."""
    costs = dict.fromkeys(COSTS, 0.0)
    for timing in timings:
        for name, (stage, figure) in COSTS.items():
            if timing.stage.endswith(f"/{stage}"):
                value = timing.seconds if figure == "seconds" else timing.figures.get(figure, 0)
                costs[name] += float(value)
    return costs if costs["training_steps"] else {}


def _seed(run: Record) -> int:
    given = configuration.parameters_of(run.config).get("SPLIT_SEED", "None")
    return int(given) if given.lstrip("-").isdecimal() else run.seed


def _count_rounds(run: Record) -> int:
    """Returns how many rounds a finished run has."""
    count = 0
    while f"{round_name(count)}/evaluate" in run.stages:
        count += 1
    wanted = run.num_rounds
    if not wanted and not any(name.startswith("round_") for name in run.stages):
        raise UserError(f"{run.path} is not a run of rounds.")
    if not count or run.stage(count - 1, "select") or (wanted and count < wanted):
        of = f" of {wanted}" if wanted else ""
        raise Unfinished(f"{run.path} is not finished: {count}{of} rounds are evaluated.")
    return count


def _draw(folder: Any) -> Draw:
    offered = read_names(folder / "remain_tasks.txt") + names_in(folder / "joined_tasks.txt")
    return Draw(frozenset(read_names(folder / "selected.txt")), frozenset(offered))


def grouped(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[str]]:
    """Groups runs by strategy, and refuses those that cannot be compared.

    Runs of one strategy whose configurations differ in more than seed and folder form groups of
    their own, named after the values that differ.

    Returns:
      The runs with the names of their groups, and remarks: what differs besides the strategy.

    Raises:
      UserError: different pools or sizes, different initial tasks for the same seed (no pair), or
        a strategy and seed twice.
    """
    first = runs[0]
    for run in runs:
        if run.pool != first.pool:
            raise UserError(
                f"{run.path} has a different pool than {first.path} ({run.pool} and "
                f"{first.pool}); leave one out."
            )
        if run.rouge_tokenizer != first.rouge_tokenizer:
            raise UserError(
                f"{run.path} measures ROUGE by the tokenizer {shown(run.rouge_tokenizer)}, "
                f"{first.path} by {shown(first.rouge_tokenizer)}; leave one out, or run it again "
                "with the other's ROUGE_TOKENIZER."
            )
        if run.num_tasks != first.num_tasks:
            raise UserError(
                f"{run.path} trained on {list(run.num_tasks)} tasks, {first.path} on "
                f"{list(first.num_tasks)}, but curves are compared point by point; leave one out."
            )
    changes = [tuple(other_differences(first.config, run.config, SEED_NAMES)) for run in runs]
    variants = {(run.strategy, lines) for run, lines in zip(runs, changes, strict=True)}
    count = Counter(strategy for strategy, _ in variants)
    named: list[FinishedRun] = []
    remarks: dict[str, None] = {}
    for run, lines in zip(runs, changes, strict=True):
        name = run.strategy
        if count[name] > 1:
            name += f" [{'; '.join(map(_value, lines)) or 'as ' + first.path.name}]"
        named.append(replace(run, strategy=name))
        remarks |= dict.fromkeys(f"{name} differs in more than its strategy: {x}" for x in lines)
    _check_pairs(named)
    return named, list(remarks)


def _value(difference: str) -> str:
    name, _, values = difference.partition(": ")
    return f"{name} = {values.rpartition('now ')[2]}"


def _check_pairs(runs: Sequence[FinishedRun]) -> None:
    seen: dict[tuple[str, int], FinishedRun] = {}
    of_seed: dict[int, FinishedRun] = {}
    for run in runs:
        twin = seen.setdefault((run.strategy, run.seed), run)
        if twin is not run:
            raise UserError(
                f"{twin.path} and {run.path} are both {run.strategy} with seed {run.seed}; "
                "leave one out."
            )
        pair = of_seed.setdefault(run.seed, run)
        if pair.initial != run.initial:
            raise UserError(
                f"{pair.path} and {run.path} have seed {run.seed} but different initial tasks, so "
                "they do not pair; leave one out."
            )
