"""From seconds of a batch to tasks scored per chip-hour and chip-hours of an experiment."""

from collections.abc import Mapping
from dataclasses import dataclass

from ait_jax.plan.compiled_stage import CompiledStage
from ait_jax.plan.plan_stages import DECODE, FORCE, TRAIN
from ait_jax.plan.planned import Planned
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.parts import tasks_of_round


@dataclass(frozen=True)
class Hours:
    """Chip-hours, by what they go to, at the peak of each stage's bound divided by `efficiency`.

    Attributes:
      by_stage: "train", "evaluate" (dev tasks in training included), "score".
      tasks_per_chip_hour: that scoring finishes.
    """

    efficiency: float
    by_stage: dict[str, float]
    tasks_per_chip_hour: float | None

    @property
    def total(self) -> float:
        return sum(self.by_stage.values())


def hours_of(
    planned: Planned, stages: Mapping[str, CompiledStage], efficiency: float
) -> Hours | None:
    """Returns what the configuration costs; None where a stage is missing or does not fit.

    Batches of shorter prompts have as many more rows. Teacher forcing takes time in proportion
    to an example's FLOPs, decoding to its prompt's tokens, training is padded to the longest.
    Prefixes that a decoder-only model runs once for several prompts cost what they are run.
    """
    if planned.workload is None:
        return _pretraining_hours(planned, stages, efficiency)
    needed = {FORCE, DECODE} | ({TRAIN} if planned.kind is Experiment else set())
    if not all(name in stages and stages[name].fits for name in needed):
        return None
    work, scorer = planned.workload, planned.scorer
    force, decode = stages[FORCE], stages[DECODE]
    source, target = force.lengths
    prompt_tokens = min(work.prompt_tokens, source)
    answer_tokens = min(work.answer_tokens, target)
    share = planned.model.config.flops_per_example(prompt_tokens, answer_tokens)
    share /= planned.model.config.flops_per_example(source, target)
    # Chip-seconds of one prompt.
    forced = force.roofline * force.chips / force.rows * share * (1 - work.shared_forced)
    decoded = decode.roofline * decode.chips / decode.rows * prompt_tokens / source
    decoded *= 1 - work.shared_decoded
    task = scorer.num_instances * (decoded + scorer.num_perturbations * forced)
    if planned.kind is not Experiment:
        seconds = {"score": work.tasks * task}
    else:
        seconds = _experiment_seconds(planned, stages[TRAIN], task, decoded)
    return Hours(
        efficiency,
        {name: value / efficiency / 3600 for name, value in seconds.items()},
        3600 * efficiency / task,
    )


def _experiment_seconds(
    planned: Planned, train: CompiledStage, task: float, decoded: float
) -> dict[str, float]:
    work, settings, trainer = planned.workload, planned.settings, planned.trainer
    rounds, chosen = settings["rounds"], work.initial_tasks
    seconds = {"train": 0.0, "evaluate": 0.0, "score": 0.0}
    once = (work.test_tasks + work.dev_tasks) * settings["max_eval_instances"] * decoded
    seconds["evaluate"] += once * settings["evaluate_base"]
    for round in range(rounds):
        examples = chosen * settings["max_instances_per_task"]
        steps = trainer.total_steps(examples)
        seconds["train"] += steps * train.roofline * train.chips
        evaluations = steps // max(1, trainer.steps_between_evaluations(examples))
        dev = work.dev_tasks * settings["max_dev_instances"] * decoded
        seconds["evaluate"] += once + evaluations * dev
        if round < rounds - 1:
            remaining = max(0, work.tasks - work.dev_tasks - chosen)
            seconds["score"] += remaining * task
            chosen += tasks_of_round(settings["tasks_per_round"], round)
    return seconds


def _pretraining_hours(
    planned: Planned, stages: Mapping[str, CompiledStage], efficiency: float
) -> Hours | None:
    train = stages.get(TRAIN)
    if train is None or not train.fits:
        return None
    seconds = planned.trainer.steps * train.roofline * train.chips
    return Hours(efficiency, {"train": seconds / efficiency / 3600}, None)
