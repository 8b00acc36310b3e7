"""Round 0 is the same for every strategy, so a run may take it over from another strategy's run.

Until a strategy first selects, a run depends on everything but the strategy: round 0's splits, the
evaluation of the base model, round 0's training and evaluation, and, for strategies that need
scores, round 0's scores. The authors do the same (Active-IT links the folder of iteration 0 into
those of the other methods).
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ait_jax import __version__
from ait_jax.config import configuration
from ait_jax.errors import UserError
from ait_jax.rounds import record
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.run_directory import RunDirectory, differences
from ait_jax.runtime import buckets, disk, files, reporter
from ait_jax.runtime.files import LinesFile

SCORE = "round_000/score"
LAST = "round_000/evaluate"
_STAGES = ("round_000/splits", "base/evaluate", "round_000/train", LAST)
_SCORE_FILES = {"likelihoods.parquet", "task_scores.parquet"}
# What unfinished scoring leaves, and what a selection writes into its round's folder.
_SELECTION_FILES = {"selected.txt", "task_map.png", "ambiguous.txt", "easy.txt", "difficult.txt"}
_OWN_FILES = {"likelihoods.chunks", "race.json", "joined_tasks.txt"} | _SELECTION_FILES
_STRATEGY = ("STRATEGY", "experiment.Experiment.strategy")
_REFERENCE = re.compile(r"@([\w./]+)\(\)")


def strategy_parameters(config: str) -> set[str]:
    """Returns the parameters of an operative configuration that define the strategy."""
    parameters = configuration.parameters_of(config)
    named: set[str] = set(_STRATEGY)
    for name in _STRATEGY:
        reference = _REFERENCE.fullmatch(parameters.get(name, ""))
        if reference:
            prefixes = (f"{reference[1]}.", f"STRATEGY/{reference[1]}.")
            named |= {name for name in parameters if name.startswith(prefixes)}
    # Macros that nothing else uses.
    own, other = set[str](), set[str]()
    for name, value in parameters.items():
        (own if name in named else other).add(value.removeprefix("%"))
    return named | (own - other) & parameters.keys()


def other_differences(saved: str, current: str, ignored: Collection[str] = ()) -> list[str]:
    """Returns how two runs' configurations differ, strategy and folder aside."""
    strategies = strategy_parameters(saved) | strategy_parameters(current)
    return differences(saved, current, {*strategies, *ignored})


def shared_stages(experiment: Experiment, stages: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the finished stages of another run that `experiment` may take over, with summaries.

    Scores are shared unless they depend on the strategy (RACING) or on time (GROW_POOL).
    """
    names: set[str] = set(_STAGES)
    if experiment.strategy.needs_scores and not (experiment.racing or experiment.grow_pool):
        names.add(SCORE)
    return {name: value for name, value in stages.items() if name in names}


def take_over(directory: RunDirectory, source: Any, experiment: Experiment, config: str) -> None:
    """Begins a run with round 0 of the run in `source`, unless it has begun.

    The folder is then as if the run had done all of that itself, except that timings.jsonl names
    the other run. Checkpoint files, which never change, are hard links where possible. The other
    run may be at work: its round 0 is over.

    Args:
      directory: locked by the caller.

    Raises:
      UserError: there is no such run, it differs in more than its strategy, its round 0 is not
        evaluated yet, or one of the folders is in a bucket.
    """
    if directory.has_begun and record.read(directory.path).stages:
        return
    given = f"--round_0_from={source!s}"
    path = files.as_path(source)
    if not (buckets.is_local(path) and buckets.is_local(directory.path)):
        raise UserError(f"{given} works with local folders only; leave it out.")
    if not record.is_run(path):
        raise UserError(f"{given} has no run.json; give the folder of a run.")
    other = record.read(path)
    changes = other_differences(other.config, config)
    version = other.state["code_version"]
    if version != __version__:
        changes.append(f"version of ait-jax: was {version}, now {__version__}")
    if changes:
        raise UserError(
            f"{given} differs from this run in more than the strategy:",
            *(f"  {change}" for change in changes),
            "Leave it out or give a run with the same values.",
        )
    if LAST not in other.stages:
        raise UserError(f"{given} has not evaluated its round 0 yet; wait or leave it out.")
    stages = shared_stages(experiment, other.stages)
    directory.adopt(
        config, other.pool, other.seed, stages, lambda: _copy(path, directory.path, stages)
    )
    reporter.say(f"round 0 is that of {path}: {', '.join(stages)}")


def _copy(source: Path, target: Path, stages: Mapping[str, Any]) -> None:
    left_out = _OWN_FILES if SCORE in stages else _OWN_FILES | _SCORE_FILES
    _copy_folder(source / "base", target / "base", set())
    _copy_folder(source / "round_000", target / "round_000", left_out)
    for name in ("model-info.txt", "pool_000.txt"):
        if (source / name).exists():
            files.write_bytes(target / name, files.read_bytes(source / name))
    lines = [
        json.dumps(line | {"shared_from": source.name})
        for line in record.read_lines(source / "timings.jsonl")
        if line.get("stage") in stages
    ]
    LinesFile(target / "timings.jsonl").replace(lines)


def _copy_folder(source: Path, target: Path, left_out: set[str]) -> None:
    """Copies a folder whole or not at all, with hard links to the files below checkpoint_*."""
    if not source.exists():
        return

    def ignored(folder: str, names: list[str]) -> set[str]:
        temporary = {name for name in names if name.startswith(disk.TEMPORARY_PREFIX)}
        return temporary | (left_out & set(names) if Path(folder) == source else set())

    files.remove_tree(target)
    with files.new_folder(target) as folder:
        copy = _link_or_copy
        shutil.copytree(source, folder, ignore=ignored, copy_function=copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    if any(part.startswith("checkpoint_") for part in Path(source).parts[:-1]):
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or one without hard links
            pass
    shutil.copyfile(source, target)
