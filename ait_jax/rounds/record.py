"""A run directory as its readers find it: finished, killed or at work. Writes and locks nothing.

Status, report, tasks, compare and resume read run.json, config.gin, timings.jsonl, metrics.jsonl
and eval.json through this module, as typed values or one kind of error. Every file is whole or
absent, except for the last line of files that grow by lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

from ait_jax.config import configuration
from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.runtime import buckets, files, strict_json

SCHEMA_VERSION = 1
ACTIVE, CONTINUAL, SCORE = "run", "continual", "score"
# The stage that settles a run's splits, and its key for the ROUGE that measures them.
SPLITS, ROUGE_TOKENIZER = "round_000/splits", "rouge_tokenizer"
_RESTORE = "restore it from a copy or set another --gin.MODEL_DIR"
# Class of the settings -> kind of run.
OWNERS = {
    "experiment.Experiment": ACTIVE,
    "continual.Continual": CONTINUAL,
    "scoring.Scoring": SCORE,
}
T = TypeVar("T")
_MOST_BYTES = 1 << 28  # of a JSON file; eval.json of 100,000 tasks has 10 MB
_MOST_ROUNDS = 9999  # folders are round_000 to round_999, and some more


class Pool(TypedDict):
    """The pool in run.json; that of a scoring also has what was asked for."""

    name: str
    fingerprint: str


class State(TypedDict):
    """What run.json must have; the summaries of stages are `Summary` or groups of `Figures`."""

    schema_version: int
    code_version: str
    pool: Pool
    seed: int
    stages: dict[str, dict[str, Any]]


class Selected(TypedDict, total=False):
    """What run.json says of a selection (`stages.selection_summary`)."""

    strategy: str
    tasks: int
    close_calls: dict[str, float]


class Summary(Selected, total=False):
    """What run.json says of a stage, as far as readers rely on it."""

    checkpoint_step: int | None
    dropped_tasks: int
    fingerprint: str
    generation: int
    joined: int
    prompts_cut: int
    replayed: int
    rouge_tokenizer: str
    selection: Selected | None
    stages: int


class Figures(TypedDict):
    """Metrics of a group of instances; ROUGE and exact match in percent."""

    rougeL: float | None
    rouge1: NotRequired[float | None]
    exact_match: NotRequired[float | None]
    num_instances: NotRequired[int]
    num_tasks: NotRequired[int]


class Headline(Figures):
    """Metrics of a split in run.json."""

    cls: Figures
    gen: Figures


class Evaluation(Headline, total=False):
    """Metrics of a split in eval.json."""

    num_without_references: int
    rouge_tokenizer: str
    per_category: dict[str, Figures]
    per_task: dict[str, Figures]


class RaceSummary(TypedDict, total=False):
    """What race.json says of a race."""

    passes: int
    full_passes: int


class Race(TypedDict, total=False):
    """race.json."""

    report: RaceSummary


class _TimingLine(TypedDict):
    stage: str
    seconds: float
    tokens_per_second: NotRequired[float | None]
    padding_fraction: NotRequired[float | None]
    mfu: NotRequired[float | None]
    devices: NotRequired[int | None]
    device_kind: NotRequired[str | None]


@dataclass(frozen=True)
class Timing:
    """A line of timings.jsonl: a stage and how long it took, in the call that ended it.

    Attributes:
      figures: the rest of the line (tokens_per_second, padding_fraction, devices, ...).
    """

    stage: str
    seconds: float
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What run.json and config.gin say about a run.

    Attributes:
      path: the run directory, local or in a bucket.
      state: run.json's object; its parts below have the right types.
      config: the operative configuration.
    """

    path: Any
    state: dict[str, Any]
    config: str

    @property
    def stages(self) -> dict[str, Any]:
        """Finished stage -> its summary."""
        return self.state["stages"]

    @property
    def pool(self) -> dict[str, Any]:
        """The pool's name and fingerprint; of a scoring, also its tasks."""
        return self.state["pool"]

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return self.state["seed"]

    @property
    def rouge_tokenizer(self) -> str:
        """The ROUGE of its figures."""
        return rouge_tokenizer_of(self.stages)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Parameter -> value of the operative configuration, as gin source."""
        return configuration.parameters_of(self.config)

    @cached_property
    def kind(self) -> str:
        """ACTIVE, CONTINUAL or SCORE."""
        for owner, kind in OWNERS.items():
            if any(name.startswith(f"{owner}.") for name in self.parameters):
                return kind
        if "tasks" in self.pool:
            return SCORE
        continual = any(name.endswith("/replay") for name in self.stages)
        return CONTINUAL if continual else ACTIVE

    @cached_property
    def num_rounds(self) -> int | None:
        """ROUNDS of the configuration, if it has one."""
        value = self.parameters.get("experiment.Experiment.rounds", "")
        value = self.parameters.get(value.removeprefix("%"), value)
        return int(value) if value.isdecimal() and len(value) <= len(str(_MOST_ROUNDS)) else None

    @cached_property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the rounds that have a folder, ascending; a folder of scores is round 0."""
        if self.kind == SCORE:
            return (0,)
        numbers = {round_of(folder.name) for folder in self.path.glob("round_*")}
        return tuple(sorted(number for number in numbers if number is not None))

    def folder(self, round_index: int) -> Any:
        """Returns the path of a round's files."""
        return self.path if self.kind == SCORE else self.path / round_name(round_index)

    def stage(self, round_index: int, name: str) -> dict[str, Any] | None:
        """Returns the summary of a round's stage, None while it is not done."""
        return self.stages.get(name if self.kind == SCORE else f"{round_name(round_index)}/{name}")


def rouge_tokenizer_of(stages: Mapping[str, Any]) -> str:
    """Returns the ROUGE that a run settled; runs of earlier versions had the English one."""
    from ait_jax.evaluation.rouge import ENGLISH  # most readers do not measure

    return stages.get(SPLITS, {}).get(ROUGE_TOKENIZER, ENGLISH)


def round_name(round_index: int | None) -> str:
    """Returns the folder of a round, and the first part of its stages' names; None is the base."""
    return "base" if round_index is None else f"round_{round_index:03d}"


def round_of(stage: str) -> int | None:
    """Returns the round of a stage ("round_002/train") or a folder; None if it has none."""
    name = stage.partition("/")[0]
    digits = name.removeprefix("round_")
    if not digits.isdecimal() or len(digits) > len(str(_MOST_ROUNDS)):
        return None
    return int(digits) if name == round_name(int(digits)) else None


def read(path: Any) -> Record:
    """Reads run.json and config.gin of a run directory.

    Raises:
      UserError: not a run directory, a file missing or damaged, or another schema.
    """
    path = files.as_path(path)
    with buckets.errors_of(path):
        if not is_run(path):
            raise UserError(_no_run(path))
    return Record(path, _state(path / "run.json"), _config(path / "config.gin"))


def is_run(path: Any) -> bool:
    """Says whether a folder is a run directory."""
    return (path / "run.json").exists()


def runs_below(path: Any) -> list[Any]:
    """Returns the run directories up to three levels below a folder (a comparison's, say)."""
    found = [run for depth in ("*", "*/*", "*/*/*") for run in path.glob(f"{depth}/run.json")]
    return sorted(run.parent for run in found)


def _state(file: Any) -> dict[str, Any]:
    state = read_json(file, dict[str, Any], _RESTORE) or {}
    version = state.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{shown_path(file)} has schema {shown(version)}, but this version of ait-jax reads "
            f"{SCHEMA_VERSION}; set another --gin.MODEL_DIR."
        )
    _check(file, state, State, "")
    for stage, summary in state["stages"].items():
        evaluated = stage.rpartition("/")[2] == "evaluate"
        _check(file, summary, dict[str, Headline] if evaluated else Summary, f"{shown(stage)}: ")
    return state


def _check(file: Any, value: Any, kind: type, place: str) -> None:
    """Checks a part of run.json, which itself stays as it is: a run writes back all of it."""
    try:
        strict_json.checked(value, kind)
    except strict_json.Unfit as error:
        raise _damaged(file, f"{place}{error}", _RESTORE) from error


def _config(file: Any) -> str:
    try:
        return files.read_text(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error, _RESTORE) from error


def _damaged(file: Any, problem: object, remedy: str) -> UserError:
    return UserError(f"{shown_path(file)} is damaged ({problem}); {remedy}.")


def _no_run(path: Any) -> str:
    """Says what a path is instead of a run directory, and which runs lie near it."""
    if not buckets.is_local(path):
        return f"{path} is not a run directory: it has no run.json."
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        beside = path.parent if path.parent.is_dir() else Path()
    else:
        what, beside = "is not a run directory: it has no run.json", path
        if is_run(path.absolute().parent):
            return f"{path} {what}; it is inside one: give {path.parent}."
    names = [str(run) for run in runs_below(beside)]
    hint = nearest(str(path), names)
    if not hint and names:
        hint = f" Nearby runs: {', '.join(names[:5])}."
    return f"{path} {what}.{hint} Give a run's MODEL_DIR."


# --- files of stages ---


def read_timings(path: Any) -> list[Timing]:
    """Returns the lines of a run directory's timings.jsonl, in the order that stages ended.

    Raises:
      UserError: a line has a figure of a wrong type.
    """
    timings: list[Timing] = []
    for line in read_lines(path / "timings.jsonl", _TimingLine):
        figures = {name: value for name, value in line.items() if name not in ("stage", "seconds")}
        timings.append(Timing(line["stage"], float(line["seconds"]), figures))
    return timings


def durations(path: Any) -> list[tuple[str, float]]:
    """Returns (stage, seconds) for each line of timings.jsonl."""
    return [(timing.stage, timing.seconds) for timing in read_timings(path)]


def read_metrics(folder: Any) -> list[dict[str, float | None]]:
    """Returns the lines of a training's metrics.jsonl: step, loss, ...

    Raises:
      UserError: a line has something else than numbers.
    """
    return read_lines(folder / "metrics.jsonl", dict[str, float | None])


def read_evaluation(folder: Any) -> dict[str, Evaluation] | None:
    """Returns group -> metrics of a folder's eval.json, None where it is absent.

    Raises:
      UserError: it is damaged.
    """
    return read_json(folder / "eval.json", dict[str, Evaluation])


def read_race(folder: Any) -> RaceSummary:
    """Returns what a folder's race.json says of the race, nothing where it is absent.

    Raises:
      UserError: it is damaged.
    """
    return (read_json(folder / "race.json", Race) or {}).get("report", {})


def read_json(file: Any, kind: type[T], remedy: str = "delete it and run again") -> T | None:
    """Returns the value of a JSON file as `kind`, None where it is absent.

    Raises:
      UserError: it is damaged.
    """
    try:
        data = files.read_bytes(file, _MOST_BYTES)
        return strict_json.checked(strict_json.parse(data), kind)
    except FileNotFoundError:
        return None
    except (strict_json.Unfit, OSError) as error:
        raise _damaged(file, error, remedy) from error


def read_lines(file: Any, kind: type[T] = dict[str, Any]) -> list[T]:
    """Returns the objects of a file of JSON lines, without lines cut short by a crash.

    Raises:
      UserError: a line is not `kind`.
    """
    try:
        data = files.read_bytes(file, _MOST_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _damaged(file, error.strerror or error, "delete it") from error
    return list(strict_json.lines(data, kind, file, "delete that line"))
