"""A pool to look at: opened from gin files as `run` opens it, or a run's with its results."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ait_jax.config import configuration
from ait_jax.config.config_values import ConfigValues
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, first_line
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import SPLIT_NAMES, Splits, read_splits
from ait_jax.report.run_results import names_in, regions
from ait_jax.rounds import continual, record, scoring
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.record import Record
from ait_jax.runtime import files
from ait_jax.scorer.likelihoods import read_task_scores

DEFAULT_FILE = "experiments/mini.gin"
_KINDS = (Experiment, scoring.Scoring, continual.Continual)
_UNUSED = {*scoring.UNUSED_MACROS, *continual.UNUSED_MACROS}


@dataclass(frozen=True)
class Found:
    """What a run found out about a task the last time it was scored.

    Attributes:
      region: of the task map: "ambiguous", "easy", "difficult" or "other".
      scored: the round.
      selected: the round whose selection took it, if any.
    """

    uncertainty: float | None = None
    probability: float | None = None
    region: str = ""
    scored: int | None = None
    selected: int | None = None


@dataclass
class PoolView:
    """A pool, the parts that make its prompts, and what a run found out about its tasks.

    Attributes:
      value: makes what gin binds to a parameter of the experiment (`configuration.read`).
      found: task -> what the run found out; empty without one.
      problems: what could not be opened and is therefore missing, in words.
    """

    value: Callable[[str], Any]
    run: Record | None = None
    found: dict[str, Found] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def pool(self) -> TaskPool:
        """The tasks."""
        return self.value("pool")

    @cached_property
    def seed(self) -> int:
        """The seed of the prompts' draws."""
        return self.value("seed")

    def part(self, name: str) -> Any:
        """Returns a part ("vocabulary", "encoding", "scorer"), None if it cannot be opened."""
        try:
            return self.value(name)
        except (UserError, ValueError, TypeError, RuntimeError) as error:  # also gin's own
            self.problems.append(f"no {name}: {first_line(error)}")
            return None

    @cached_property
    def split_of(self) -> dict[str, str]:
        """Task -> "train", "remain", "dev" or "test": in the run's last round, or in a new run."""
        splits = self._splits()
        return {name: split for split in SPLIT_NAMES for name in getattr(splits, split)}

    def _splits(self) -> Splits:
        for folder in reversed(self.folders()):
            if (folder / "train_tasks.txt").exists():
                return read_splits(folder)
        try:
            return self.value("initial_splits").draw(self.pool, self.seed)[0]
        except (UserError, AttributeError, ValueError, TypeError):
            return self.pool.splits or Splits()

    def folders(self) -> list[Any]:
        """Returns the folders of the run's rounds, none without a run."""
        return [self.run.folder(round_index) for round_index in self.run.rounds] if self.run else []


def open_pool(flags: GinFlags, run: str | None = None, trusts: bool = False) -> PoolView:
    """Reads gin files and flags as `ait-jax run` does; needs no checkpoint or vocabulary.

    Args:
      run: a run directory, whose config.gin comes before the files of `flags`.
      trusts: lets gin import and call what that config.gin names. By default it is data
        (`ConfigValues`): it may come from a stranger.

    Raises:
      UserError: as `configuration.parse`; no run directory, or a damaged one; gin files beside a
        config.gin that is not trusted.
    """
    if run is None:
        return PoolView(_reader(flags))
    found = record.read(run)
    if trusts:
        with files.local_copy(found.path / "config.gin") as config:
            value = _reader(replace(flags, files=(str(config), *flags.files)), known=found.config)
    elif flags.files:
        raise UserError(
            f"--gin_file={flags.files[0]} changes {found.path / 'config.gin'}, for which gin runs "
            "what both name: add --trust_config if that run is yours, or leave --gin_file out."
        )
    else:
        value = _read(found, flags.bindings)
    return PoolView(value, found, _found(found))


def _read(run: Record, bindings: Sequence[str]) -> Callable[[str], Any]:
    """Returns what makes a parameter of the experiment in config.gin, of which nothing is run."""
    values = ConfigValues("\n".join([run.config, *bindings, ""]), run.path)
    kind = next((kind for kind in _KINDS if values.of_class(kind.__name__)), Experiment)
    given = values.of_class(kind.__name__) or {}

    def value(name: str) -> Any:
        try:
            return values.build(given[name]) if name in given else getattr(kind, name, None)
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; --trust_config runs it.") from error

    return value


def _reader(flags: GinFlags, known: str = "") -> Callable[[str], Any]:
    # What a run's own configuration names was in use there.
    named = re.findall(r"^([A-Z][A-Z0-9_]*) =", known, re.MULTILINE)
    return configuration.read(flags, DEFAULT_FILE, _UNUSED | set(named), _KINDS)[1]


def _found(run: Record) -> dict[str, Found]:
    """Returns what the rounds found out, later ones over earlier ones."""
    found: dict[str, Found] = {}
    for round_index in run.rounds:
        folder = run.folder(round_index)
        if (folder / "task_scores.parquet").exists():
            scores, region_of = read_task_scores(folder / "task_scores.parquet"), regions(folder)
            figures = (scores.prompt_uncertainty.tolist(), scores.prediction_probability.tolist())
            for name, uncertainty, probability in zip(scores.tasks, *figures, strict=True):
                region = region_of.get(name, "other")
                found[name] = Found(uncertainty, probability, region, round_index)
        for name in names_in(folder / "selected.txt"):
            found[name] = replace(found.get(name, Found()), selected=round_index)
    return found
