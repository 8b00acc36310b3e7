"""What a reader should know before trusting a figure, in sentences."""

from typing import Any

from ait_jax import __version__
from ait_jax.report.run_files import RunFiles


def notes(run: RunFiles) -> list[str]:
    """Returns the payload's `summary.notes` that follow from the run's files alone."""
    found: list[str] = []
    version = run.state["code_version"]
    if version != __version__:
        found.append(f"The run was begun with ait-jax {version}; this report is by {__version__}.")
    dropped = run.stages.get("round_000/splits", {}).get("dropped_tasks")
    if dropped:
        found.append(f"{dropped:,} tasks named in the split files are not in the pool.")
    for round in run.rounds:
        found += _of_round(run, round)
    return found


def _of_round(run: RunFiles, round: int) -> list[str]:
    found = []
    grown = run.stage(round, "pool")
    if grown and grown.get("joined"):
        found.append(f"{grown['joined']:,} new tasks joined the pool in round {round}.")
    scored = run.stage(round, "score") or {}
    if scored.get("prompts_cut"):
        found.append(
            f"{scored['prompts_cut']:,} prompts of round {round} were too long and were cut at "
            "their end."
        )
    found += _of_race(run, round)
    select = run.stage(round, "select") or (run.stage(round, "map") or {}).get("selection") or {}
    for group, margin in (select.get("close_calls") or {}).items():
        found.append(
            f"The last {group} task of round {round} won by {margin:.1e}: another mesh may select "
            "otherwise."
        )
    evaluation = run.json(run.folder(round) / "eval.json") or {}
    without = (evaluation.get("test") or {}).get("num_without_references")
    if without:
        found.append(
            f"{without:,} test instances of round {round} have no reference and are not measured."
        )
    return found


def _of_race(run: RunFiles, round: int) -> list[str]:
    race: dict[str, Any] = (run.json(run.folder(round) / "race.json") or {}).get("report") or {}
    if not race:
        return []
    passes, full = race.get("passes"), race.get("full_passes")
    share = f" with {passes / full:.0%} of the prompts" if passes and full else ""
    return [
        f"Round {round} was scored as a race{share}: a task's uncertainty is a mean over as many "
        "prompts as its place in the selection needed."
    ]
