"""`ait-jax plan`: what an experiment needs and takes on devices, before any of them is rented."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, nearest
from ait_jax.plan import plan_search, plan_text, topology
from ait_jax.plan.compiled_stage import CompiledStage
from ait_jax.plan.plan_hours import Hours, hours_of
from ait_jax.plan.plan_stages import STAGES, TRAIN, PlanStages
from ait_jax.plan.planned import Planned, planned
from ait_jax.runtime import files
from ait_jax.runtime.hardware import known_chip, local_chip

DEFAULT_FILE = "experiments/mini.gin"


@dataclass(frozen=True)
class Options:
    """The flags of `ait-jax plan` besides gin's.

    Attributes:
      topology: a TPU slice ("v5e:16x16"); None is the devices at hand.
      json: a file for everything that is printed.
      stages: which programs are compiled.
      quick: lets the compiler try less hard: several times as fast, nearly the same figures.
      search: look for the largest batches and the best remat policy.
      efficiency: the share of the roofline that chip-hours assume.
      tasks, prompt_tokens, answer_tokens: of the pool, instead of what is measured or assumed.
    """

    topology: str | None = None
    json: str | None = None
    stages: Sequence[str] = STAGES
    quick: bool = False
    search: bool = True
    efficiency: float = 0.5
    tasks: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage not in STAGES:
                raise UserError(
                    f"--stages has {stage!r}; needed: some of {', '.join(STAGES)}."
                    + nearest(stage, STAGES)
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
      stages: as configured, by name.
      suggestions: the better ones, by what was looked for.
    """

    planned: Planned
    stages: dict[str, CompiledStage]
    suggestions: dict[str, CompiledStage | None]
    hours: Hours | None
    device: str
    options: Options


def run(flags: GinFlags, options: Options, report: Callable[[str], None] = print) -> Plan:
    """Compiles an experiment's programs, prints what they need and take, and returns it.

    Raises:
      UserError: a wrong configuration or topology, a mesh that does not fit the model, or no
        TPU compiler.
    """
    if options.topology is not None:
        topology.check_name(options.topology)
        # The slice's own compiler does the work: no accelerator at hand is taken for it.
        jax.config.update("jax_platforms", "cpu")
    settings: dict[str, Any] = {}
    if options.quick:
        settings["jax_exec_time_optimization_effort"] = -1.0
    if options.topology is not None:
        # A TPU's programs cannot be read back where there is none, and JAX warns of each.
        settings["jax_enable_compilation_cache"] = False
    with _jax_settings(settings):
        return _run(flags, options, report)


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


def _run(flags: GinFlags, options: Options, report: Callable[[str], None]) -> Plan:
    given = {name: getattr(options, name) for name in ("tasks", "prompt_tokens", "answer_tokens")}
    wanted = planned(flags, DEFAULT_FILE, **given)
    if options.topology is None:
        partitioner, chip = wanted.partitioner, local_chip()
    else:
        devices = topology.devices_of(options.topology)
        partitioner = topology.PlannedPartitioner.of(wanted.partitioner, devices)
        chip = known_chip(devices[0].device_kind)
    stages = PlanStages(wanted, partitioner, chip)
    device = f"{stages.chips} x {partitioner.mesh.devices.flat[0].device_kind}"
    for line in plan_text.heading(wanted, partitioner, chip, options.topology, device):
        report(line)
    compiled = _compile(stages, options, report)
    suggestions = _search(stages, compiled, report) if options.search else {}
    usable = {
        name: stage if stage.fits else suggestions.get(name) or stage
        for name, stage in compiled.items()
    }
    hours = hours_of(wanted, usable, options.efficiency)
    plan = Plan(wanted, compiled, suggestions, hours, device, options)
    for line in [*plan_text.suggestions(plan, stages), *plan_text.hours(plan)]:
        report(line)
    if options.json:
        files.write_text(Path(options.json), json.dumps(to_json(plan), indent=1) + "\n")
        report(f"written: {options.json}")
    return plan


def _compile(
    stages: PlanStages, options: Options, report: Callable[[str], None]
) -> dict[str, CompiledStage]:
    trainer = stages.planned.trainer
    compiled = {}
    for name in options.stages:
        if name == TRAIN:
            if trainer is None:
                continue
            policy = stages.planned.model.config.remat_policy
            stage = stages.train(trainer.batch_size, trainer.num_microbatches, policy)
        elif stages.planned.scorer is None:
            continue
        else:
            stage = stages.score(name, stages.planned.settings["tokens_per_batch"])
        compiled[name] = stage
        for line in plan_text.stage(stage):
            report(line)
    return compiled


def _search(
    stages: PlanStages, compiled: dict[str, CompiledStage], report: Callable[[str], None]
) -> dict[str, CompiledStage | None]:
    found: dict[str, CompiledStage | None] = {}
    report("\nlooking for what else fits")
    for name, stage in compiled.items():
        if name == TRAIN:
            best = found[TRAIN] = plan_search.best_train_step(stages, stage, report)
            if best is not None:
                largest = plan_search.largest_train_batch(stages, best, report)
                found["largest train batch"] = largest
        else:
            most = stages.planned.scorer.prompts_per_chunk
            found[name] = plan_search.largest_scoring_batch(stages, stage, most, report)
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns a plan as JSON's types."""
    return {
        "topology": plan.options.topology,
        "quick": plan.options.quick,
        "device": plan.device,
        "stages": {name: stage.to_json() for name, stage in plan.stages.items()},
        "suggestions": {
            name: None if stage is None else stage.to_json()
            for name, stage in plan.suggestions.items()
        },
        "workload": None if plan.planned.workload is None else vars(plan.planned.workload),
        "chip_hours": None
        if plan.hours is None
        else {
            "efficiency": plan.hours.efficiency,
            "by_stage": plan.hours.by_stage,
            "total": plan.hours.total,
            "tasks_per_chip_hour": plan.hours.tasks_per_chip_hour,
        },
    }
