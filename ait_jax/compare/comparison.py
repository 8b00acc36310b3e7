"""`ait-jax compare`: strategies x seeds, run and compared (gin/experiments/comparison.gin)."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ait_jax import __version__
from ait_jax.compare import (
    comparison_figure,
    comparison_result,
    comparison_text,
    finished_runs,
    overlap,
    schedule,
)
from ait_jax.compare.finished_runs import SEED_MACROS, SEED_NAMES, FinishedRun
from ait_jax.compare.schedule import Job
from ait_jax.config import configuration, gin_checks
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, nearest, shown
from ait_jax.report import page
from ait_jax.rounds import record, round_zero
from ait_jax.runtime import buckets, disk, files, reporter
from ait_jax.selection.selection import Strategy

DEFAULT_FILE = "experiments/compare_mini.gin"
# Read before the user's files, which need not mention comparisons.
MACROS_FILE = "experiments/comparison.gin"
# What a comparison sets for every run, and what to set instead.
_OF_RUNS = {"MODEL_DIR": "COMPARISON_DIR", "SEED": "SEEDS", "STRATEGY": "STRATEGIES"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared; gin fills it (gin/experiments/comparison.gin).

    Args:
      out: the folder for compare.json and for all runs, `<strategy>_<seed>`.
      strategies: names from gin/strategies/, or gin files that set STRATEGY; a list, or a string
        with commas.
      seeds: of the runs; a list, a number, or a string with commas. They are values of SPLIT_SEED
        where the experiment sets that (only the splits vary, as in the paper), else of SEED.
      baseline: what the others are compared with; by default random, else the first strategy.
      target_score: how many tasks does this test ROUGE-L take? By default the baseline's last mean.
      confidence: of the intervals.
      released_selections: the authors' released splits, to compare selections with.
      paper_curves: also draw the paper's published curves.

    Raises:
      UserError: nothing to compare, something twice, or a value out of range.
    """

    out: str
    strategies: str | Sequence[str]
    seeds: int | str | Sequence[int]
    baseline: str | None = None
    target_score: float | None = None
    confidence: float = 0.95
    released_selections: str | None = None
    paper_curves: bool = False

    def __post_init__(self) -> None:
        strategies = _list("STRATEGIES", self.strategies)
        seeds = tuple(map(_seed, _list("SEEDS", self.seeds)))
        object.__setattr__(self, "strategies", strategies)
        object.__setattr__(self, "seeds", seeds)
        names = [strategy_name(each) for each in strategies]
        for what, values in (("STRATEGIES", names), ("SEEDS", seeds)):
            for value, count in Counter[Any](values).items():
                if count > 1:
                    raise UserError(f"{what} has {shown(value)} twice; leave one out.")
        if not 0 < self.confidence < 1:
            raise UserError(f"CONFIDENCE = {self.confidence} must lie between 0 and 1, as in 0.95.")
        if self.baseline is not None and self.baseline not in names:
            raise UserError(
                f"BASELINE = {shown(self.baseline)} is not among STRATEGIES = {', '.join(names)}."
                f"{nearest(self.baseline, names)}"
            )


def _list(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    values = (value,) if isinstance(value, int) else tuple(value)
    if not values:
        raise UserError(f"{name} is empty; give one or more, as in --gin.{name}=a,b.")
    return values


def _seed(value: Any) -> int:
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"SEEDS has {shown(value)}; give whole numbers, as in --gin.SEEDS=0,1,2.")
    return value


def strategy_name(strategy: str) -> str:
    """Returns the name for a strategy's runs: its own, or that of its gin file."""
    name = strategy.rpartition("/")[2].removesuffix(".gin")
    return files.check_name(name, f"STRATEGIES: {shown(strategy)}: name")


def strategy_file(strategy: str) -> str:
    """Returns the gin file of one of STRATEGIES. Raises UserError: there is none."""
    if strategy.endswith(".gin"):
        return strategy
    folder = configuration.gin_folder() / "strategies"
    known = sorted(path.stem for path in folder.glob("*.gin"))
    if strategy not in known:
        raise UserError(
            f"STRATEGIES has the unknown {shown(strategy)}.{nearest(strategy, known)} "
            f"Known: {', '.join(known)}, or a gin file (my_strategy.gin)."
        )
    return f"strategies/{strategy}.gin"


def build(flags: GinFlags, has_runs: bool = False) -> Comparison:
    """Returns the comparison that gin files and overrides describe.

    Args:
      has_runs: there are finished runs, so no experiment is needed.
    """
    for binding in flags.bindings:
        name = binding.partition(" = ")[0]
        if name in _OF_RUNS:
            raise UserError(
                f"--gin.{name}: `ait-jax compare` sets {name} of every run itself; give "
                f"--gin.{_OF_RUNS[name]}."
            )
    given = flags.files or (() if has_runs else (DEFAULT_FILE,))
    _parse(replace(flags, files=(MACROS_FILE, *given)))
    built = configuration.build(Comparison, DEFAULT_FILE)
    strategies = cast(tuple[str, ...], built.strategies)
    names = map(strategy_name, strategies)
    if has_runs or built.baseline or comparison_result.BASELINE in names:
        return built
    # Without random tasks no difference says that choosing pays.
    return replace(built, strategies=(*strategies, comparison_result.BASELINE))


def _parse(flags: GinFlags) -> None:
    """Reads gin files as `ait-jax run` does."""
    from ait_jax.rounds import continual

    configuration.parse(flags, DEFAULT_FILE, unused=continual.UNUSED_MACROS)


def run_flags(flags: GinFlags) -> GinFlags:
    """Returns the flags of `ait-jax run` that all runs share, without those of comparisons."""
    _parse(GinFlags((MACROS_FILE,)))
    own = set(gin_checks.macro_values())
    bindings = tuple(
        binding
        for binding in flags.bindings
        if (name := binding.partition(" = ")[0]) not in own
        and not name.startswith(("comparison.", "Comparison."))
    )
    return replace(flags, files=flags.files or (DEFAULT_FILE,), bindings=bindings)


def plan(comparison: Comparison, flags: GinFlags) -> list[Job]:
    """Returns every run of a comparison, seed by seed; checks that all of them can begin.

    Raises:
      UserError: a mistake in the experiment or a strategy, or a folder holds another run.
    """
    from ait_jax.rounds.experiment import Experiment

    out = files.as_path(comparison.out)
    base = run_flags(flags)
    strategies = cast(tuple[str, ...], comparison.strategies)
    scored = {name: _strategy(base, name).needs_scores for name in strategies}
    _parse(base)
    macros = gin_checks.macro_values()
    seed_name = next((name for name in SEED_MACROS if macros.get(name) is not None), "SEED")
    experiment = configuration.build(Experiment, DEFAULT_FILE)
    config = configuration.operative_config()
    shares_scores = not (experiment.racing or experiment.grow_pool)
    jobs = [
        Job(
            strategy_name(strategy),
            seed,
            folder := out / f"{strategy_name(strategy)}_{seed}",
            _arguments(base, strategy, f"{seed_name}={seed}", folder),
            out / "logs" / f"{folder.name}.log",
            experiment.rounds,
            takes_scores=scored[strategy] and shares_scores,
        )
        for seed in cast(tuple[int, ...], comparison.seeds)
        for strategy in strategies
    ]
    _check_folders(out, jobs, config)
    return jobs


def _strategy(base: GinFlags, name: str) -> Strategy:
    flags = replace(base, files=(*base.files, strategy_file(name)))
    _parse(flags)
    reference: Any = gin_checks.macro_values().get("STRATEGY")
    strategy = reference.scoped_configurable_fn() if hasattr(reference, "evaluate") else None
    if not isinstance(strategy, Strategy):
        raise UserError(
            f"{flags.files[-1]} must set STRATEGY to a strategy, such as @selection.Random()."
        )
    return strategy


def _arguments(base: GinFlags, strategy: str, seed: str, folder: Any) -> tuple[str, ...]:
    return (
        "run",
        *(f"--gin_file={file}" for file in (*base.files, strategy_file(strategy))),
        *(f"--gin_search_paths={path}" for path in base.search_paths),
        *(f"--gin.{binding.replace(' = ', '=', 1)}" for binding in base.bindings),
        f"--gin.{seed}",
        f"--gin.MODEL_DIR={folder}",
    )


def _check_folders(out: Any, jobs: Sequence[Job], config: str) -> None:
    """Refuses a folder that is a run's, holds runs of another experiment, or links to elsewhere."""
    if buckets.is_local(out):
        disk.tidy(out, depth=1)
    if record.is_run(out):
        raise UserError(
            f"COMPARISON_DIR = {shown(str(out))} is a run directory; set another "
            "--gin.COMPARISON_DIR."
        )
    for job in jobs:
        if not job.stages():
            continue
        saved = record.read(job.folder).config
        changes = round_zero.other_differences(saved, config, SEED_NAMES)
        if changes:
            raise UserError(
                f"COMPARISON_DIR = {shown(str(out))} holds another comparison; {job.name} differs:",
                *(f"  {change}" for change in changes),
                "Set another --gin.COMPARISON_DIR, or give the old values to continue.",
            )


def commands(jobs: Sequence[Job]) -> list[str]:
    """Returns the command line of every unfinished run."""
    return [shlex.join(["ait-jax", *job.arguments]) for job in jobs if not job.is_finished]


def run(
    comparison: Comparison, jobs: Sequence[Job], processes: int = 1, until_decided: bool = False
) -> bool:
    """Runs what is missing and compares; returns whether all runs finished.

    Args:
      until_decided: take seeds one after the other, leave out strategies that are found better or
        worse than the baseline, and end when all are.

    Raises:
      UserError, schedule.Stopped: as `schedule.run`; or no run finished.
    """
    if not buckets.is_local(comparison.out):
        raise UserError(
            f"COMPARISON_DIR = {shown(comparison.out)} is in a bucket, but runs here need a local "
            "folder. --print_commands gives the commands to run elsewhere."
        )
    missing = sum(not job.is_finished for job in jobs)
    reporter.say(
        f"{len(jobs)} runs in {comparison.out}: {len(jobs) - missing} finished, {missing} to do, "
        f"{min(processes, missing) or 'none'} at a time"
    )
    remarks: list[str] = []
    if until_decided:
        jobs = _run_until_decided(comparison, jobs, processes)
        remarks.append(
            "--until=decided chose the number of seeds by their results: go by what holds at every "
            "look; t intervals and p-values are for a number fixed beforehand"
        )
    else:
        schedule.run(jobs, processes)
    _compare_jobs(comparison, jobs, remarks)
    return all(job.is_finished for job in jobs)


def _run_until_decided(comparison: Comparison, jobs: Sequence[Job], processes: int) -> list[Job]:
    """Runs seed after seed; returns the jobs that were wanted."""
    names = list(dict.fromkeys(job.strategy for job in jobs))
    baseline = comparison_result.baseline_among(comparison.baseline, names)
    undecided, wanted = [name for name in names if name != baseline], list[Job]()
    others = len(undecided)
    for seed in sorted({job.seed for job in jobs}):
        if not undecided:
            break
        of_seed = [j for j in jobs if j.seed == seed and j.strategy in (baseline, *undecided)]
        wanted += of_seed
        schedule.run(of_seed, processes)
        finished = [job for job in wanted if job.is_finished]
        runs = [finished_runs.read(job.folder, job.strategy) for job in finished]
        seen = comparison_result.looks(runs, baseline, comparison.confidence, others)
        for name in list(undecided):
            if name in seen:
                reporter.say(f"seed {seed}: {comparison_text.look(name, baseline, seen[name][-1])}")
                if seen[name][-1]["verdict"]:
                    undecided.remove(name)
    return wanted


def _compare_jobs(comparison: Comparison, jobs: Sequence[Job], remarks: Sequence[str]) -> None:
    """Compares the finished ones among a comparison's runs."""
    names = [strategy_name(name) for name in cast(tuple[str, ...], comparison.strategies)]
    runs: list[FinishedRun] = []
    left_out: list[dict[str, Any]] = []
    for job in sorted(jobs, key=lambda job: (names.index(job.strategy), job.seed)):
        if job.is_finished:
            runs.append(finished_runs.read(job.folder, job.strategy))
        else:
            about = {"strategy": job.strategy, "seed": job.seed, "path": str(job.folder)}
            left_out.append(about | {"reason": _reason(job)})
    _compare(comparison, runs, left_out, remarks)


def _reason(job: Job) -> str:
    if job.code:
        return f"it failed with exit code {job.code}, see {job.log}"
    return "it is not finished" if job.stages() else "it has not begun"


def compare_folders(comparison: Comparison, folders: Sequence[str]) -> None:
    """Compares finished runs, wherever they were made; leaves out and names unfinished ones."""
    runs: list[FinishedRun] = []
    left_out: list[dict[str, Any]] = []
    for folder in folders:
        try:
            runs.append(finished_runs.read(folder))
        except finished_runs.Unfinished as error:
            about = {"strategy": Path(folder).name, "seed": None, "path": str(folder)}
            left_out.append(about | {"reason": str(error)})
    _compare(comparison, runs, left_out)


def _compare(
    comparison: Comparison,
    runs: Sequence[FinishedRun],
    left_out: Sequence[dict[str, Any]],
    remarks: Sequence[str] = (),
) -> None:
    if not runs:
        raise UserError("No run is finished, so there is nothing to compare yet.")
    named, more = finished_runs.grouped(runs)
    given = comparison.released_selections
    result = comparison_result.compare(
        named,
        baseline=_baseline_among(comparison.baseline, named),
        target=comparison.target_score,
        confidence=comparison.confidence,
        left_out=left_out,
        remarks=[*remarks, *more],
        released=None if given is None else overlap.released(given),
        paper=comparison.paper_curves,
    )
    result["verdict"] = comparison_text.verdict(result)
    result["warnings"] = comparison_text.warnings(result)
    _write(files.as_path(comparison.out), result)
    reporter.say(f"\n{comparison_text.render(result)}\n")
    for name in ("compare.json", "comparison.csv", "comparison.png", "report.html"):
        reporter.say(f"{files.as_path(comparison.out) / name}")


def _baseline_among(baseline: str | None, runs: Sequence[FinishedRun]) -> str | None:
    """Returns the name of the baseline's group, which may be longer than its strategy's."""
    groups = {run.strategy for run in runs}
    longer = sorted(name for name in groups if baseline and name.startswith(f"{baseline} ["))
    return longer[0] if baseline not in groups and len(longer) == 1 else baseline


def _write(out: Any, result: dict[str, Any]) -> None:
    """Writes the files of a comparison, each whole or not at all."""
    files.write_json(out / "compare.json", result)
    files.write_text(out / "comparison.csv", comparison_text.csv_text(result))
    comparison_figure.plot(out / "comparison.png", result)
    folders = [run["path"] for run in result["runs"]]
    again = ["ait-jax", "compare", *folders, f"--gin.COMPARISON_DIR={out}"]
    payload = {
        "kind": "comparison",
        "title": str(out),
        "version": __version__,
        "result": result,
        "commands": [{"what": "compare these runs again", "line": shlex.join(again)}],
        "config": "",
    }
    files.write_text(out / "report.html", page.render(payload, []))
