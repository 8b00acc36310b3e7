"""A pool to look at: opened from gin files as `run` would, or a run's with what it found out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ait_jax.config import configuration, gin_checks
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.plan.planned import Values
from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import SPLIT_NAMES, Splits, read_names, read_splits
from ait_jax.rounds import continual, run_status, scoring
from ait_jax.rounds.experiment import Experiment
from ait_jax.runtime import files
from ait_jax.scorer.likelihoods import read_task_scores

DEFAULT_FILE = "experiments/mini.gin"
_REGIONS = ("ambiguous", "easy", "difficult")
_KINDS = (Experiment, scoring.Scoring, continual.Continual)
_UNUSED = {*scoring.UNUSED_MACROS, *continual.UNUSED_MACROS}


@dataclass(frozen=True)
class Found:
    """What a run found out about a task, the last time that it was scored.

    Attributes:
      region: of the task map: "ambiguous", "easy", "difficult" or "other".
      scored: the round.
      selected: the round whose selection took it; None: none has.
    """

    uncertainty: float | None = None
    probability: float | None = None
    region: str = ""
    scored: int | None = None
    selected: int | None = None


@dataclass
class Source:
    """A pool and the parts that make its prompts.

    Attributes:
      values: what gin binds to the experiment's parameters, made when taken.
      run: a run directory, or None.
      found: task -> what the run found out; empty without one.
      problems: what could not be opened though something was lost by it, in words.
    """

    values: Mapping[str, Any]
    run: Any = None
    found: dict[str, Found] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def pool(self) -> TaskPool:
        return self.values["pool"]

    @cached_property
    def seed(self) -> int:
        return self.values["seed"] if "seed" in self.values else 0

    def part(self, name: str) -> Any:
        """Returns a part ("vocabulary", "encoding", "scorer"), or None where it cannot be had."""
        try:
            return self.values[name] if name in self.values else None
        except (UserError, ValueError, TypeError, RuntimeError) as error:  # gin's own among them
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.problems.append(f"no {name}: {reason}")
            return None

    @cached_property
    def split_of(self) -> dict[str, str]:
        """Task -> "train", "remain", "dev" or "test": of the run's last round, or as one begins."""
        splits = self._splits()
        return {name: split for split in SPLIT_NAMES for name in getattr(splits, split)}

    def _splits(self) -> Splits:
        rounds = [path for path in _rounds(self.run) if (path / "train_tasks.txt").exists()]
        if rounds:
            return read_splits(rounds[-1])
        try:
            return self.values["initial_splits"].draw(self.pool, self.seed)[0]
        except (UserError, KeyError, ValueError, TypeError):
            return self.pool.splits or Splits()

    def folder_of(self, name: str) -> tuple[Any, int] | None:
        """Returns the folder with a task's last scores, and the round; None without them."""
        found = self.found.get(name)
        if found is None or found.scored is None:
            return None
        rounds = {run_status.round_of(f"{path.name}/"): path for path in _rounds(self.run)}
        return rounds.get(found.scored, self.run), found.scored


def open_source(flags: GinFlags, run: str | None = None) -> Source:
    """Reads gin files and flags as `ait-jax run` does; asks for no checkpoint or vocabulary.

    Args:
      run: a run directory, whose config.gin comes before the files of `flags`.

    Raises:
      UserError: as `configuration.parse`; no run directory, or a damaged one.
    """
    if run is None:
        return Source(_values(flags))
    path = files.as_path(run)
    status = run_status.read(path)  # for its errors
    with files.local_copy(path / "config.gin") as config:
        values = _values(replace(flags, files=(str(config), *flags.files)), known=config)
    return Source(values, path, _found(path, single=status["kind"] == "score"))


def _values(flags: GinFlags, known: Any = None) -> Values:
    unused = set(_UNUSED)
    if known is not None:  # a run's own record: what it names was in use there
        unused |= set(re.findall(r"^([A-Z][A-Z0-9_]*) =", known.read_text("utf-8"), re.MULTILINE))
    configuration.parse(flags, DEFAULT_FILE, unused=unused, required=False)
    gin_checks.check_types()
    kind = next((kind for kind in _KINDS if gin_checks.is_configured(kind)), None)
    if kind is None:
        raise UserError(
            "the gin files configure no experiment whose pool could be shown. --gin_file replaces "
            f"the default: give one first (--gin_file={DEFAULT_FILE}), then what changes it."
        )
    return Values(kind)


def _rounds(run: Any) -> list[Any]:
    return sorted(run.glob("round_[0-9]*")) if run is not None else []


def _found(run: Any, single: bool) -> dict[str, Found]:
    """Returns what the rounds found out, later ones over earlier ones."""
    found: dict[str, Found] = {}
    for folder in [run] if single else _rounds(run):
        number = 0 if single else run_status.round_of(f"{folder.name}/")
        if (folder / "task_scores.parquet").exists():
            found |= _scores(folder, number)
        if (folder / "selected.txt").exists():
            for name in read_names(folder / "selected.txt"):
                found[name] = replace(found.get(name, Found()), selected=number)
    return found


def _scores(folder: Any, number: int) -> dict[str, Found]:
    scores = read_task_scores(folder / "task_scores.parquet")
    region_of = {
        name: region
        for region in _REGIONS
        if (folder / f"{region}.txt").exists()
        for name in read_names(folder / f"{region}.txt")
    }
    figures = zip(scores.prompt_uncertainty.tolist(), scores.prediction_probability.tolist())
    return {
        name: Found(uncertainty, probability, region_of.get(name, "other"), number)
        for name, (uncertainty, probability) in zip(scores.tasks, figures)
    }
