"""The largest batches that fit, and the remat policy that costs least: found by compiling."""

from collections.abc import Callable

from ait_jax.models.layer_stack import REMAT_POLICIES
from ait_jax.plan.compiled_stage import CompiledStage
from ait_jax.plan.plan_stages import PlanStages

# What is left free: the memory of a larger batch is estimated from that of a smaller one.
_MARGIN = 0.92
_MOST_TRIES = 3

Report = Callable[[str], None]


def largest_scoring_batch(
    stages: PlanStages, first: CompiledStage, most_rows: int, report: Report
) -> CompiledStage | None:
    """Returns the stage with the largest TOKENS_PER_BATCH that fits; None where none does.

    Args:
      first: the stage as configured.
      most_rows: more are never there (of a chunk of prompts).
    """
    tokens_per_row = first.settings["TOKENS_PER_BATCH"] / first.rows

    def compile(rows: int) -> CompiledStage:
        return stages.score(first.name, round(rows * tokens_per_row))

    data_size, fixed = stages.partitioner.data_size, first.memory.weights
    return _largest(first, compile, data_size, most_rows, fixed, report)


def best_train_step(
    stages: PlanStages, first: CompiledStage, report: Report
) -> CompiledStage | None:
    """Returns the fastest train step of BATCH_SIZE examples that fits, None where none does.

    For every remat policy, the one that recomputes least first, the batch is divided into as few
    microbatches as fit; policies that recompute more are tried only while none has fitted, or
    microbatches were needed.
    """
    batch_size = first.rows
    # Gradients, and their sums over microbatches.
    fixed = _fixed(stages, first, 2)
    best = None
    for policy in REMAT_POLICIES:
        settings = first.settings
        same = settings["REMAT_POLICY"] == policy and settings["NUM_MICROBATCHES"] == 1
        whole = first if same else _said(stages.train(batch_size, 1, policy), report)
        found = _largest(
            whole,
            lambda rows, policy=policy: stages.train(batch_size, batch_size // rows, policy),
            stages.partitioner.data_size,
            batch_size,
            fixed,
            report,
        )
        if found is not None and (best is None or found.roofline < best.roofline):
            best = found
        if best is not None and best.settings["NUM_MICROBATCHES"] == 1:
            break
    return best


def largest_train_batch(
    stages: PlanStages, best: CompiledStage, report: Report
) -> CompiledStage | None:
    """Returns the largest batch of one microbatch under the policy of `best`, if larger."""
    if best.settings["NUM_MICROBATCHES"] > 1:
        return None
    policy = best.settings["REMAT_POLICY"]
    fixed = _fixed(stages, best, 1)
    found = _largest(
        best,
        lambda rows: stages.train(rows, 1, policy),
        stages.partitioner.data_size,
        64 * best.rows,
        fixed,
        report,
    )
    return found if found is not None and found.rows > best.rows else None


def _fixed(stages: PlanStages, stage: CompiledStage, gradients: int) -> float:
    """Returns the bytes that do not grow with the batch; gradients of adapters alone are few."""
    copies = 1 + gradients * stages.planned.trainer.trains_all
    return copies * stage.memory.weights + stage.memory.optimizer


def _largest(
    known: CompiledStage,
    compile: Callable[[int], CompiledStage],
    multiple_of: int,
    most: int,
    fixed: float,
    report: Report,
) -> CompiledStage | None:
    """Tries the number of rows that `known` lets expect to fit, and fewer while it does not."""
    fitting = known if known.fits else None
    given = known.rows // known.settings.get("NUM_MICROBATCHES", 1)
    per_row = max(known.memory.total - fixed, known.memory.total * 0.1) / given
    room = known.memory.capacity * _MARGIN - fixed
    rows = _power_of_two_times(multiple_of, min(room / per_row, most))
    for _ in range(_MOST_TRIES):
        if rows < multiple_of or (fitting is not None and rows <= given):
            break
        tried = _said(compile(rows), report)
        if tried.fits:
            return tried
        rows = _power_of_two_times(multiple_of, rows / 2)
    return fitting


def _power_of_two_times(multiple_of: int, rows: float) -> int:
    """Returns the largest multiple_of * 2**i that is at most `rows`; 0 where there is none."""
    if rows < multiple_of:
        return 0
    return multiple_of * 2 ** (int(rows / multiple_of).bit_length() - 1)


def _said(stage: CompiledStage, report: Report) -> CompiledStage:
    settings = ", ".join(f"{name} = {value}" for name, value in stage.settings.items())
    needed = stage.memory.total / 2**30
    verdict = f"fits, {stage.roofline / stage.rows:.2e} s a row" if stage.fits else "does not fit"
    report(f"  tried {stage.name}, {settings}: {needed:.1f} GiB, {verdict}")
    return stage
