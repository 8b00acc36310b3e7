"""Finished run directories, read for a comparison: curves, selections, and what they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ait_jax.compare.overlap import Draw
from ait_jax.config import configuration
from ait_jax.errors import UserError
from ait_jax.pool.splits import read_names
from ait_jax.rounds import record
from ait_jax.rounds.learning_curve import CurvePoint
from ait_jax.rounds.round_zero import other_differences
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime import files

SEED_NAMES = frozenset({"SEED", "experiment.Experiment.seed"})
# Strategies that go by another name in gin files than in run.json.
_ALIASES = {"high_prompt_uncertainty": "prompt_uncertainty"}


class Unfinished(UserError):
    """A run that has not come to its end."""


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison needs to know of a run.

    Attributes:
      path: its folder.
      strategy: its group's name.
      seed: of it.
      config: operative.
      pool: name and fingerprint.
      points: the base model's, if it was evaluated, then one a round.
      draws: the selection after round 0, 1, ...
      initial: round 0's training tasks.
      tasks: every task of its splits.
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

    @property
    def rounds(self) -> tuple[CurvePoint, ...]:
        return tuple(point for point in self.points if point.round is not None)

    @property
    def num_tasks(self) -> tuple[int, ...]:
        return tuple(point.num_tasks for point in self.rounds)


def read(path: Any, strategy: str = "") -> FinishedRun:
    """Reads a run directory.

    Args:
      strategy: what to call its group; by default what run.json says.

    Raises:
      Unfinished: not all rounds are evaluated.
      UserError: no run directory of rounds, a damaged one, or one without measured test tasks.
    """
    directory = RunDirectory(path)
    if not directory.has_begun:
        raise UserError(f"{directory.path} has no run.json; give folders of runs (MODEL_DIR).")
    found = record.read(directory.path)
    state, config = found.state, found.config
    stages = state["stages"]
    try:
        count = _count_rounds(directory.path, stages, config)
        points = [_point(stages, number) for number in range(count)]
        if "base/evaluate" in stages:
            points.insert(0, CurvePoint.from_evaluation(None, 0, stages["base/evaluate"]))
        selected = [stages[f"round_{number:03d}/select"] for number in range(count - 1)]
        name = str(selected[0]["strategy"]) if selected else "no selection"
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory.path / 'run.json'} is damaged: {error!r}.") from error
    if any(point.test.get("overall") is None for point in points):
        raise UserError(f"{directory.path} has no test task that was measured; nothing to compare.")
    last = directory.round(count - 1)
    splits = {
        name: read_names(last / f"{name}_tasks.txt") for name in ("train", "remain", "dev", "test")
    }
    return FinishedRun(
        path=directory.path,
        strategy=strategy or files.check_name(_ALIASES.get(name, name), "strategy of a run"),
        seed=state["seed"],
        config=config,
        pool=state["pool"],
        points=tuple(points),
        draws=tuple(_draw(directory.round(number)) for number in range(count - 1)),
        initial=read_names(directory.round(0) / "train_tasks.txt"),
        tasks=frozenset().union(*splits.values()),
    )


def _count_rounds(path: Any, stages: Mapping[str, Any], config: str) -> int:
    count = 0
    while f"round_{count:03d}/evaluate" in stages:
        count += 1
    wanted = num_rounds(config)
    if not wanted and not any(name.startswith("round_") for name in stages):
        raise UserError(f"{path} is no run of rounds.")
    if not count or f"round_{count - 1:03d}/select" in stages or (wanted and count < wanted):
        of = f" of {wanted}" if wanted else ""
        raise Unfinished(f"{path} is not finished: {count}{of} rounds are evaluated.")
    return count


def num_rounds(config: str) -> int | None:
    """Returns ROUNDS of an operative configuration, if it says so."""
    parameters = configuration.parameters_of(config)
    value = parameters.get("experiment.Experiment.rounds", "")
    value = parameters.get(value.removeprefix("%"), value)
    return int(value) if value.isdigit() else None


def _point(stages: Mapping[str, Any], number: int) -> CurvePoint:
    name = f"round_{number:03d}"
    tasks = stages[f"{name}/train"]["tasks"]
    return CurvePoint.from_evaluation(number, tasks, stages[f"{name}/evaluate"])


def _draw(folder: Any) -> Draw:
    offered = read_names(folder / "remain_tasks.txt")
    if (folder / "joined_tasks.txt").exists():
        offered += read_names(folder / "joined_tasks.txt")
    return Draw(frozenset(read_names(folder / "selected.txt")), frozenset(offered))


def grouped(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[str]]:
    """Names groups by what tells their configurations apart, and refuses what cannot be compared.

    Runs of one strategy whose configurations differ in more than seed and folder are groups of
    their own, named after the values that differ.

    Returns:
      The runs with their groups' names, and remarks for the reader: what differs beside the strategy.

    Raises:
      UserError: another pool, other sizes, other initial tasks under the same seed (there is
        nothing to pair), or a strategy and seed twice.
    """
    first = runs[0]
    for run in runs:
        if run.pool != first.pool:
            raise UserError(
                f"{run.path} is of another pool than {first.path} ({run.pool} and {first.pool}); "
                "leave one of them out."
            )
        if run.num_tasks != first.num_tasks:
            raise UserError(
                f"{run.path} has trained on {list(run.num_tasks)} tasks, {first.path} on "
                f"{list(first.num_tasks)}: curves are compared point by point. Leave one out."
            )
    variants: dict[str, dict[tuple[str, ...], None]] = {}
    keys = []
    for run in runs:
        keys.append(tuple(other_differences(first.config, run.config, set(SEED_NAMES))))
        variants.setdefault(run.strategy, {})[keys[-1]] = None
    named, remarks = [], []
    for run, key in zip(runs, keys):
        several = len(variants[run.strategy]) > 1
        name = f"{run.strategy} [{'; '.join(map(_value, key)) or 'as ' + first.path.name}]"
        named.append(replace(run, strategy=name if several else run.strategy))
        for line in key:
            remark = f"{named[-1].strategy} differs in more than its strategy: {line}"
            if remark not in remarks:
                remarks.append(remark)
    _check_pairs(named)
    return named, remarks


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
                f"{pair.path} and {run.path} have seed {run.seed} but began with other tasks, so "
                "that they are no pair; leave one of them out."
            )
