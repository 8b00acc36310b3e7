"""`ait-jax plan`: the memory and time an experiment needs on devices, before they are rented."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, nearest
from ait_jax.plan import plan_text, topology
from ait_jax.plan.compiled_program import CompiledProgram
from ait_jax.plan.planned import PROGRAMS, TRAIN, Hours, Planned, hours_of, planned
from ait_jax.plan.programs import Programs
from ait_jax.runtime import files, reporter
from ait_jax.runtime.hardware import known_chip, local_chip

DEFAULT_FILE = "experiments/mini.gin"


@dataclass(frozen=True)
class Options:
    """The flags of `ait-jax plan` besides gin's.

    Attributes:
      topology: a TPU slice ("v5e:16x16"); None is the devices at hand.
      json: a file for everything that is printed.
      stages: names of the programs to compile.
      quick: spend less effort on compiling: several times as fast, nearly the same figures.
      search: look for the largest batches and the best remat policy.
      efficiency: the share of the roofline that chip-hours assume.
      tasks, prompt_tokens, answer_tokens: of the pool, in place of measured or assumed ones.
    """

    topology: str | None = None
    json: str | None = None
    stages: Sequence[str] = PROGRAMS
    quick: bool = False
    search: bool = True
    efficiency: float = 0.5
    tasks: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage not in PROGRAMS:
                raise UserError(
                    f"--stages={stage} must be one or more of {', '.join(PROGRAMS)}."
                    + nearest(stage, PROGRAMS)
                )
        if not 0 < self.efficiency <= 1:
            raise UserError(f"--efficiency={self.efficiency} must be above 0 and at most 1.")
        for name in ("tasks", "prompt_tokens", "answer_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name}={value} must be at least 1.")


@dataclass(frozen=True)
class Plan:
    """What `run` found.

    Attributes:
      programs: as configured, by name.
      suggestions: better ones, by what was looked for.
    """

    planned: Planned
    programs: dict[str, CompiledProgram]
    suggestions: dict[str, CompiledProgram | None]
    hours: Hours | None
    device: str
    options: Options


def run(flags: GinFlags, options: Options) -> Plan:
    """Compiles an experiment's programs, prints what they need and take, and returns it.

    Raises:
      UserError: a wrong configuration or topology, a mesh that does not fit the model, or no
        TPU compiler.
    """
    if options.topology is not None:
        topology.check_name(options.topology)
        # The slice's own compiler does the work, without any accelerator at hand.
        jax.config.update("jax_platforms", "cpu")
    settings: dict[str, Any] = {}
    if options.quick:
        settings["jax_exec_time_optimization_effort"] = -1.0
    if options.topology is not None:
        # Without a TPU its programs cannot be read back, and JAX warns about each.
        settings["jax_enable_compilation_cache"] = False
    with _jax_settings(settings):
        return _run(flags, options)


@contextmanager
def _jax_settings(settings: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _run(flags: GinFlags, options: Options) -> Plan:
    given = {name: getattr(options, name) for name in ("tasks", "prompt_tokens", "answer_tokens")}
    wanted = planned(flags, DEFAULT_FILE, **given)
    if options.topology is None:
        partitioner, chip = wanted.partitioner, local_chip()
    else:
        devices = topology.devices_of(options.topology)
        rules = wanted.partitioner.logical_axis_rules
        partitioner = topology.PlannedPartitioner(
            wanted.partitioner.num_partitions, rules, tuple(devices)
        )
        chip = known_chip(devices[0].device_kind)
        if chip is None:
            raise UserError(f"--topology={options.topology}: add its peaks to runtime/chips.toml.")
    programs = Programs(wanted, partitioner, chip)
    device = f"{programs.chips} x {partitioner.mesh.devices.flat[0].device_kind}"
    _say(plan_text.heading(programs, options.topology, device))
    compiled = _compile(programs, options.stages)
    found = _search(programs, compiled) if options.search else {}
    usable = {
        name: program if program.fits else found.get(name) or program
        for name, program in compiled.items()
    }
    hours = hours_of(wanted, usable, options.efficiency)
    plan = Plan(wanted, compiled, found, hours, device, options)
    _say(plan_text.suggestions(found, compiled, programs))
    _say(plan_text.hours(wanted, hours, all(program.fits for program in compiled.values())))
    if options.json:
        files.write_text(Path(options.json), json.dumps(to_json(plan), indent=1) + "\n")
        reporter.say(f"written: {options.json}")
    return plan


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        reporter.say(line)


def _compile(programs: Programs, names: Sequence[str]) -> dict[str, CompiledProgram]:
    """Returns the programs as configured, of those that the experiment has."""
    trainer, scorer = programs.planned.trainer, programs.planned.scorer
    compiled = {}
    for name in names:
        if name == TRAIN and trainer is not None:
            policy = programs.planned.model.config.remat_policy
            program = programs.train(trainer.batch_size, trainer.num_microbatches, policy)
        elif name != TRAIN and scorer is not None:
            program = programs.score(name, programs.planned.settings["tokens_per_batch"])
        else:
            continue
        compiled[name] = program
        _say(plan_text.program(program))
    return compiled


def _search(
    programs: Programs, compiled: Mapping[str, CompiledProgram]
) -> dict[str, CompiledProgram | None]:
    """Returns the best programs that fit, by what was looked for."""
    found: dict[str, CompiledProgram | None] = {}
    reporter.say("\nlooking for what else fits")
    for name, program in compiled.items():
        if name == TRAIN:
            best = found[TRAIN] = programs.best_train_step(program)
            if best is not None:
                found["largest train batch"] = programs.largest_train_batch(best)
        else:
            found[name] = programs.largest_scoring_batch(program)
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns a plan as JSON's types."""
    return {
        "topology": plan.options.topology,
        "quick": plan.options.quick,
        "device": plan.device,
        "stages": {name: program.to_json() for name, program in plan.programs.items()},
        "suggestions": {
            name: program and program.to_json() for name, program in plan.suggestions.items()
        },
        "workload": plan.planned.workload and vars(plan.planned.workload),
        "chip_hours": plan.hours and vars(plan.hours) | {"total": plan.hours.total},
    }
