"""A plan's lines for the terminal."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ait_jax.models.interface import gin_name, runs_prefixes
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.plan.compiled_stage import CompiledStage
from ait_jax.plan.plan_stages import DECODE, FORCE, TRAIN, PlanStages
from ait_jax.plan.planned import Planned
from ait_jax.runtime.hardware import Chip
from ait_jax.runtime.partitioning import Partitioner

if TYPE_CHECKING:
    from ait_jax.plan.plan import Plan

_GIB = 2**30


def heading(
    planned: Planned, partitioner: Partitioner, chip: Chip, topology: str | None, device: str
) -> Iterator[str]:
    count = num_params(abstract_params(planned.model)[0])
    mesh = dict(partitioner.mesh.shape)
    where = f"{topology} ({device})" if topology else f"the devices at hand ({device})"
    sizes = f"mesh data {mesh['data']} x model {mesh['model']}"
    yield f"model of {count:,} parameters on {where}, {sizes}"
    yield (
        f"a chip: {_number(chip.flops)}FLOP/s, {chip.memory / _GIB:.1f} GiB at "
        f"{_number(chip.memory_bandwidth)}B/s, links {_number(chip.link_bandwidth)}B/s"
    )


def stage(stage: CompiledStage) -> Iterator[str]:
    """Yields what one program needs and takes, per chip."""
    lengths = "/".join(map(str, stage.lengths))
    settings = ", ".join(f"{name} = {value}" for name, value in stage.settings.items())
    yield (
        f"\n{stage.name}: {stage.rows:,} rows of {lengths} tokens on all chips ({settings}); "
        f"compiled in {stage.compile_seconds:.0f} s; per chip:"
    )
    memory = stage.memory
    parts = f"{_gib(memory.weights)} weights"
    if stage.name == TRAIN:
        parts += f" + {_gib(memory.optimizer)} optimizer"
    parts += f" + {_gib(memory.temporaries)} temporaries"
    verdict = "fits" if stage.fits else f"{_gib(memory.excess)} GiB TOO MUCH"
    yield f"  memory      {parts} = {_gib(memory.total)} of {_gib(memory.capacity)} GiB: {verdict}"
    if stage.flops is None:
        return
    ideal = f"{_number(stage.ideal_flops)} of the model"
    if stage.recomputed_flops:
        ideal += f" + {_number(stage.recomputed_flops)} recomputed"
    yield f"  FLOPs       {_number(stage.flops)}: {ideal} ({stage.over_ideal:+.1%})"
    yield f"  traffic     {_number(stage.bytes)}B to and from memory"
    kinds = ", ".join(
        f"{kind} {entry['count']:,.0f} x, {_number(entry['bytes'])}B"
        for kind, entry in stage.collectives.items()
    )
    yield f"  collectives {kinds or 'none'}"
    times = ", ".join(f"{name} {_seconds(value)}" for name, value in stage.seconds.items())
    yield (
        f"  at peak     {times}: bound by {stage.bound}, "
        f"{stage.rows / stage.roofline / stage.chips:,.3g} rows/s a chip"
    )
    if stage.name == DECODE:
        yield f"              (every row taken to have {stage.lengths[1]} tokens)"


def suggestions(plan: "Plan", stages: PlanStages) -> Iterator[str]:
    """Yields the gin flags of what fits best, and what to do where nothing does."""
    if plan.suggestions:
        yield "\nwhat fits"
    for name, found in plan.suggestions.items():
        if found is not None:
            flags = " ".join(f"--gin.{key}={value}" for key, value in found.settings.items())
            remat_policy = f"{gin_name(stages.planned.model.config)}.remat_policy"
            flags = flags.replace("REMAT_POLICY", remat_policy)
            yield (
                f"  {name}: {flags} ({_gib(found.memory.total)} of {_gib(found.memory.capacity)} "
                f"GiB, {found.rows / found.roofline / found.chips:,.3g} rows/s a chip at peak)"
            )
        elif name in plan.stages:
            yield f"  {name}: nothing. {_way_out(plan.stages[name], stages)}"
    if all(plan.suggestions.get(name) for name in (FORCE, DECODE)):
        yield "  both of scoring take the same TOKENS_PER_BATCH: give the smaller one"
    for name, stage in plan.stages.items():
        if not stage.fits and name not in plan.suggestions:
            yield f"\n{name} does not fit. {_way_out(stage, stages)}"


def _way_out(stage: CompiledStage, stages: PlanStages) -> str:
    """Says what would fit a stage that does not, whatever its batch."""
    memory = stage.memory
    has_gradients = stage.name == TRAIN and stages.planned.trainer.trains_all
    resident = (memory.weights + memory.optimizer) * (2 if has_gradients else 1)
    whole = stages.planned.model.config
    count = num_params(abstract_params(type(stages.planned.model)(whole))[0])
    # Parameters and gradients, float32; in scoring parameters in the dtype of the products.
    needed = count * (8 if has_gradients else whole.dtype.itemsize)
    if resident < 0.8 * memory.capacity:
        return "Lower BATCH_SIZE or TOKENS_PER_BATCH, raise NUM_MICROBATCHES, or use more chips."
    if needed / stages.chips < 0.5 * memory.capacity:
        what = "Parameters, gradients and optimizer" if stage.name == TRAIN else "Parameters"
        return (
            f"{what} take {_gib(resident)} of {_gib(memory.capacity)} "
            "GiB a chip: spread them with --gin_file=partitioning/fsdp_2d.gin, or raise "
            "NUM_PARTITIONS."
        )
    chips = 2 ** math.ceil(math.log2(needed / (0.5 * memory.capacity)))
    return (
        f"Parameters{' and gradients' if has_gradients else ''} alone take "
        f"{needed / _GIB:.0f} GiB: use {chips} such chips or more, with partitioning/fsdp_2d.gin."
    )


def hours(plan: "Plan") -> Iterator[str]:
    """Yields tasks per chip-hour and the chip-hours of the whole."""
    work, hours = plan.planned.workload, plan.hours
    if hours is None:
        return
    instead = any(not stage.fits for stage in plan.stages.values())
    with_what = ", with what fits" if instead else ""
    yield f"\nthe whole at {hours.efficiency:.0%} of these peaks (--efficiency){with_what}"
    if work is not None:
        yield (
            f"  {work.tasks:,} tasks, prompts of {work.prompt_tokens:.0f} tokens, answers of "
            f"{work.answer_tokens:.0f} ({work.source})"
        )
        if work.shared_forced:
            yield (
                f"  of their tokens {work.shared_forced:.0%} are shared by prompts when they are "
                f"scored and {work.shared_decoded:.0%} when they are answered, and not run again"
            )
        elif runs_prefixes(plan.planned.model):
            yield "  what prompts share is run once; without the pool nobody knows how much: not counted"
    if hours.tasks_per_chip_hour is not None:
        scorer = plan.planned.scorer
        yield (
            f"  scoring {hours.tasks_per_chip_hour:,.0f} tasks a chip-hour "
            f"(n = {scorer.num_instances}, k = {scorer.num_perturbations})"
        )
    parts = ", ".join(f"{name} {_hours(value)}" for name, value in hours.by_stage.items())
    yield f"  {_hours(hours.total)} chip-hours ({parts}), without compiling, loading and saving"


def _hours(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def _gib(value: float) -> str:
    return f"{value / _GIB:.2f}" if value < 10 * _GIB else f"{value / _GIB:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _number(value: float) -> str:
    """Returns 1234567 as "1.23 M"; the unit follows."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} "
