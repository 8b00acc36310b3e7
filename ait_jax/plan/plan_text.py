"""A plan's lines for the terminal."""

import math
from collections.abc import Iterator, Mapping

from ait_jax.models.interface import gin_name, runs_prefixes
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.plan.compiled_program import CompiledProgram
from ait_jax.plan.planned import DECODE, FORCE, TRAIN, Hours, Planned
from ait_jax.plan.programs import Programs

_GIB = 2**30


def heading(programs: Programs, topology: str | None, device: str) -> Iterator[str]:
    """Yields the model, the mesh and the chip."""
    count = num_params(abstract_params(programs.planned.model)[0])
    mesh, chip = programs.partitioner.mesh.shape, programs.chip
    where = f"{topology} ({device})" if topology else f"the devices at hand ({device})"
    sizes = f"mesh data {mesh['data']} x model {mesh['model']}"
    yield f"model of {count:,} parameters on {where}, {sizes}"
    yield (
        f"a chip: {_number(chip.flops)}FLOP/s, {chip.memory / _GIB:.1f} GiB at "
        f"{_number(chip.memory_bandwidth)}B/s, links {_number(chip.link_bandwidth)}B/s"
    )


def program(program: CompiledProgram) -> Iterator[str]:
    """Yields what one program needs and takes, per chip."""
    lengths = "/".join(map(str, program.lengths))
    settings = ", ".join(f"{name} = {value}" for name, value in program.settings.items())
    yield (
        f"\n{program.name}: {program.rows:,} rows of {lengths} tokens on all chips ({settings}); "
        f"compiled in {program.compile_seconds:.0f} s; per chip:"
    )
    memory = program.memory
    parts = f"{_gib(memory.weights)} weights"
    if program.name == TRAIN:
        parts += f" + {_gib(memory.optimizer)} optimizer"
    parts += f" + {_gib(memory.temporaries)} temporaries"
    verdict = "fits" if program.fits else f"{_gib(memory.excess)} GiB TOO MUCH"
    yield f"  memory      {parts} = {_gib(memory.total)} of {_gib(memory.capacity)} GiB: {verdict}"
    if program.flops is None:
        return
    ideal = f"{_number(program.ideal_flops)} of the model"
    if program.recomputed_flops:
        ideal += f" + {_number(program.recomputed_flops)} recomputed"
    yield f"  FLOPs       {_number(program.flops)}: {ideal} ({program.over_ideal:+.1%})"
    yield f"  traffic     {_number(program.bytes or 0)}B to and from memory"
    kinds = ", ".join(
        f"{kind} {entry['count']:,.0f} x, {_number(entry['bytes'])}B"
        for kind, entry in program.collectives.items()
    )
    yield f"  collectives {kinds or 'none'}"
    times = ", ".join(f"{name} {_seconds(value)}" for name, value in program.seconds.items())
    yield (
        f"  at peak     {times}: bound by {program.bound}, "
        f"{program.rows_per_second:,.3g} rows/s a chip"
    )
    if program.name == DECODE:
        yield f"              (every row taken to have {program.lengths[1]} tokens)"


def suggestions(
    found: Mapping[str, CompiledProgram | None],
    compiled: Mapping[str, CompiledProgram],
    programs: Programs,
) -> Iterator[str]:
    """Yields the gin flags of what fits best, and what to do where nothing does.

    Args:
      found: what was looked for -> the best program.
      compiled: as configured.
    """
    if found:
        yield "\nwhat fits"
    for name, best in found.items():
        if best is not None:
            flags = " ".join(f"--gin.{key}={value}" for key, value in best.settings.items())
            remat_policy = f"{gin_name(programs.planned.model.config)}.remat_policy"
            flags = flags.replace("REMAT_POLICY", remat_policy)
            yield (
                f"  {name}: {flags} ({_gib(best.memory.total)} of {_gib(best.memory.capacity)} "
                f"GiB, {best.rows_per_second:,.3g} rows/s a chip at peak)"
            )
        elif name in compiled:
            yield f"  {name}: nothing. {_way_out(compiled[name], programs)}"
    if all(found.get(name) for name in (FORCE, DECODE)):
        yield "  both of scoring take the same TOKENS_PER_BATCH: give the smaller one"
    for name, tried in compiled.items():
        if not tried.fits and name not in found:
            yield f"\n{name} does not fit. {_way_out(tried, programs)}"


def _way_out(program: CompiledProgram, programs: Programs) -> str:
    """Returns what would make a program fit that does not, whatever its batch."""
    memory, model = program.memory, programs.planned.model
    has_gradients = program.name == TRAIN and programs.planned.training.trains_all
    resident = (memory.weights + memory.optimizer) * (2 if has_gradients else 1)
    count = num_params(abstract_params(model)[0])
    # Parameters and gradients, float32; in scoring parameters in the dtype of the products.
    needed = count * (8 if has_gradients else model.config.dtype.itemsize)
    if resident < 0.8 * memory.capacity:
        return "Lower BATCH_SIZE or TOKENS_PER_BATCH, raise NUM_MICROBATCHES, or use more chips."
    if needed / programs.chips < 0.5 * memory.capacity:
        what = "Parameters, gradients and optimizer" if program.name == TRAIN else "Parameters"
        return (
            f"{what} take {_gib(resident)} of {_gib(memory.capacity)} GiB a chip: spread them "
            "with --gin_file=partitioning/fsdp_2d.gin, or raise NUM_PARTITIONS."
        )
    chips = 2 ** math.ceil(math.log2(needed / (0.5 * memory.capacity)))
    return (
        f"Parameters{' and gradients' if has_gradients else ''} alone take "
        f"{needed / _GIB:.0f} GiB: use {chips} such chips or more, with partitioning/fsdp_2d.gin."
    )


def hours(planned: Planned, hours: Hours | None, all_fit: bool) -> Iterator[str]:
    """Yields tasks per chip-hour and the chip-hours of the whole.

    Args:
      all_fit: whether the programs do as configured.
    """
    work = planned.workload
    if hours is None:
        return
    with_what = "" if all_fit else ", with what fits"
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
        elif runs_prefixes(planned.model):
            yield "  shared prefixes run once; only the pool tells how much that is: not counted"
    if hours.tasks_per_chip_hour is not None:
        scorer = planned.scoring
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
