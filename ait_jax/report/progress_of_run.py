"""How far a run has come: which stage comes next."""

from collections.abc import Iterator

from ait_jax.report.run_files import CONTINUAL, SCORE, RunFiles
from ait_jax.report.settings import Settings

FINISHED = "finished"


def state(run: RunFiles, settings: Settings) -> str:
    """Returns "finished", "unfinished: STAGE comes next", or that config.gin does not tell."""
    rounds = _num_rounds(run, settings)
    if rounds is None:
        last = next(reversed(run.stages), "nothing")
        return f"done so far: {last} (config.gin does not say how many rounds there are)"
    for stage in _stages(run, settings, rounds):
        if stage not in run.stages:
            return f"unfinished: {stage} comes next"
    return FINISHED


def rounds_done(run: RunFiles) -> int:
    """Returns how many rounds are trained and evaluated."""
    return sum(f"round_{round:03d}/evaluate" in run.stages for round in run.rounds)


def _num_rounds(run: RunFiles, settings: Settings) -> int | None:
    if run.kind == SCORE:
        return 0
    if run.kind == CONTINUAL:
        # A pool that was extended gives stages beyond those that the run began with.
        return max(run.stages.get("round_000/splits", {}).get("stages", 1), len(run.rounds))
    return settings.rounds


def _stages(run: RunFiles, settings: Settings, rounds: int) -> Iterator[str]:
    """Yields all stages of a run in their order."""
    if run.kind == SCORE:
        yield from ("score", "map")
        return
    yield "round_000/splits"
    if settings.evaluate_base and run.kind != CONTINUAL:
        yield "base/evaluate"
    for number in range(rounds):
        name = f"round_{number:03d}"
        if run.kind == CONTINUAL:
            yield f"{name}/replay"
        yield f"{name}/train"
        yield f"{name}/evaluate"
        if run.kind != CONTINUAL and number + 1 < rounds:
            # A strategy of the user's own: scored if it was not selected without.
            if settings.needs_scores or (
                settings.needs_scores is None and f"{name}/select" not in run.stages
            ):
                yield f"{name}/score"
            yield f"{name}/select"
