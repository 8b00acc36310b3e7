"""What a gin configuration plans: its parts, its workload, and the chip-hours of that.

Needs no checkpoint, and no pool where there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ait_jax.config import configuration
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError, first_line, shown
from ait_jax.models.interface import Model, runs_prefixes
from ait_jax.plan.compiled_program import CompiledProgram
from ait_jax.pool import Splits, TaskPool
from ait_jax.randomness import Key
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.pretraining import Pretraining
from ait_jax.rounds.scoring import UNUSED_MACROS, Scoring
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import continuous
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.chunk import prepare
from ait_jax.scorer.parts import tasks_of_round
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts
from ait_jax.scorer.scorer import Scorer
from ait_jax.scorer.shared_prefixes import MOST_MEMBERS, SHORTEST, grouped
from ait_jax.trainer.feedback import FeedbackTrainer
from ait_jax.trainer.interface import Trainer

TRAIN, FORCE, DECODE = "train step", "teacher forcing", "decode"
PROGRAMS = (TRAIN, FORCE, DECODE)
_Reader = Callable[[str], Any]  # from `configuration.read`

_SAMPLED_TASKS, _WHOLE_TASKS = 40, 10
# The settings of an experiment, and the one of a scoring, that chip-hours depend on.
_SETTINGS = (
    "tokens_per_batch", "tasks_per_round", "rounds", "evaluate_base", "max_instances_per_task",
    "max_eval_instances", "max_dev_instances",
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """How much there is to do.

    Attributes:
      tasks: of the pool, to train on or to score, including dev tasks but not test tasks.
      prompt_tokens, answer_tokens: means.
      source: where these come from, in words.
      shared_forced, shared_decoded: of the tokens of teacher forcing and of decoded prompts, the
        share in prefixes that a decoder-only model has already run for another prompt.
    """

    tasks: int
    test_tasks: int
    initial_tasks: int
    dev_tasks: int
    prompt_tokens: float
    answer_tokens: float
    source: str
    shared_forced: float = 0.0
    shared_decoded: float = 0.0


@dataclass(frozen=True)
class Planned:
    """The parts of an experiment, a scoring or a pretraining that are compiled.

    Attributes:
      kind: Experiment, Scoring or Pretraining.
      trainer: None for a scoring.
      scorer: None for a pretraining.
      settings: the other values of the experiment, by field name.
      workload: None for a pretraining, which has no tasks.
    """

    kind: type
    model: Model
    partitioner: Partitioner
    trainer: Trainer | None
    scorer: Scorer | None
    buckets: LengthBuckets
    settings: Mapping[str, Any]
    workload: Workload | None

    @property
    def training(self) -> Trainer:
        """The trainer of what has one."""
        assert self.trainer is not None, f"{self.kind.__name__} has no trainer"
        return self.trainer

    @property
    def scoring(self) -> Scorer:
        """The scorer of what has one."""
        assert self.scorer is not None, f"{self.kind.__name__} has no scorer"
        return self.scorer


def planned(flags: GinFlags, default_file: str, **given: Any) -> Planned:
    """Reads gin files and flags as `ait-jax run` does, but needs no checkpoint or vocabulary.

    Args:
      given: fields of `Workload` that the user set.

    Raises:
      UserError: as `configuration.read`.
    """
    kinds = (Experiment, Scoring, Pretraining)
    kind, value = configuration.read(flags, default_file, UNUSED_MACROS, kinds)
    model, partitioner, trainer = value("model"), value("partitioner"), value("trainer")
    if kind is Pretraining:
        buckets = LengthBuckets((value("input_length"),), (value("target_length"),))
        return Planned(kind, model, partitioner, trainer, None, buckets, {}, None)
    if isinstance(trainer, Mapping):
        trainer = trainer[0]
    if isinstance(trainer, FeedbackTrainer):  # feedback is not part of a plan
        trainer = trainer.supervised
    settings = {name: value(name) for name in _SETTINGS}
    workload = _workload(value, given)
    scorer, buckets = value("scorer"), value("buckets")
    return Planned(kind, model, partitioner, trainer, scorer, buckets, settings, workload)


def _workload(value: _Reader, given: Mapping[str, Any]) -> Workload:
    """Measures the pool where it and its vocabulary can be read; otherwise assumes NIV2.

    That is its English tasks, and the mean lengths of their prompts and answers.
    """
    splits = value("initial_splits")
    known = {
        "tasks": 756,
        "test_tasks": 119,
        "initial_tasks": getattr(splits, "initial_tasks", 68),
        "dev_tasks": getattr(splits, "dev_tasks", 68),
        "prompt_tokens": 300,
        "answer_tokens": 16,
    }
    try:
        known |= _measured(value("pool"), value)
    except (UserError, ValueError, TypeError, RuntimeError) as error:  # gin raises them, too
        known["source"] = f"assumed, NIV2's: {first_line(error).partition(': ')[0]}"
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        known["source"] += f"; given: {', '.join(sorted(given))}"
    return Workload(**(known | given))


def _measured(pool: TaskPool, value: _Reader) -> dict[str, Any]:
    own = pool.splits or Splits(remain=tuple(pool))
    vocabulary, encoding = value("vocabulary"), value("encoding")
    prompts = TaskPrompts(pool, vocabulary, encoding, None, 2, Key(0, 0))
    names = [name for name in pool if len(pool[name].instances)]
    sizes = [
        (len(prompt.tokens), len(vocabulary.encode_answer((*instance.outputs, "")[0])) + 1)
        for name in names[:: max(1, len(names) // _SAMPLED_TASKS)]
        for instance, prompt, _, _ in prompts.build(name, same_prompts([0]))
    ]
    lengths, answers = zip(*sizes, strict=True)
    found = {
        "tasks": len(own.names) - len(own.test),
        "test_tasks": len(own.test),
        "prompt_tokens": sum(lengths) / len(lengths),
        "answer_tokens": sum(answers) / len(answers),
        "source": f"measured on {len(sizes)} prompts of the pool {shown(pool.name)}",
    }
    if own.dev:
        found["dev_tasks"] = len(own.dev)
    if runs_prefixes(value("model")):
        scorer = value("scorer")
        scored = (scorer.perturbation, scorer.num_instances, Key(0, 0))
        prompts = TaskPrompts(pool, vocabulary, encoding, *scored)
        found |= _shared(prompts, names, scorer.num_perturbations)
    return found


def _shared(prompts: TaskPrompts, names: Sequence[str], num_perturbations: int) -> dict[str, float]:
    """Returns the shares of tokens in shared prefixes, of a few whole tasks."""
    few = names[:: max(1, len(names) // _WHOLE_TASKS)]
    ready = prepare(few, same_prompts(range(1, num_perturbations + 1)), prompts)

    def share(rows: np.ndarray, most_members: int) -> float:
        texts = [ready.inputs[row] for row in np.unique(rows)]
        saved = sum((len(g.members) - 1) * g.length for g in grouped(texts, SHORTEST, most_members))
        return saved / sum(map(len, texts))

    return {
        "shared_forced": share(ready.rows, MOST_MEMBERS),
        "shared_decoded": share(ready.original, continuous.MOST_MEMBERS),
    }


# Chip-hours


@dataclass(frozen=True)
class Hours:
    """Chip-hours by purpose, at the peak of each program's bound divided by `efficiency`.

    Attributes:
      by_stage: "train", "evaluate" (including dev tasks in training), "score".
      tasks_per_chip_hour: that scoring finishes.
    """

    efficiency: float
    by_stage: dict[str, float]
    tasks_per_chip_hour: float | None

    @property
    def total(self) -> float:
        """Chip-hours of everything."""
        return sum(self.by_stage.values())


def hours_of(
    planned: Planned, programs: Mapping[str, CompiledProgram], efficiency: float
) -> Hours | None:
    """Returns what the configuration costs; None where a program is missing or does not fit.

    Batches of shorter prompts have proportionally more rows. Teacher forcing takes time in
    proportion to an example's FLOPs, decoding to its prompt's tokens, training is padded to the
    longest. Prefixes that a decoder-only model runs once for several prompts are counted once.
    """
    work = planned.workload
    needed = {TRAIN} if planned.trainer is not None else set()
    if work is not None:
        needed |= {FORCE, DECODE}
    if not all(name in programs and programs[name].fits for name in needed):
        return None
    if work is None:
        train = programs[TRAIN]
        seconds = (planned.training.steps or 0) * train.roofline * train.chips
        return Hours(efficiency, {"train": seconds / efficiency / 3600}, None)
    force, decode = programs[FORCE], programs[DECODE]
    source, target = force.lengths
    prompt_tokens = min(work.prompt_tokens, source)
    answer_tokens = min(work.answer_tokens, target)
    share = planned.model.config.flops_per_example(prompt_tokens, answer_tokens)
    share /= planned.model.config.flops_per_example(source, target)
    # Chip-seconds of one prompt.
    forced = force.roofline * force.chips / force.rows * share * (1 - work.shared_forced)
    decoded = decode.roofline * decode.chips / decode.rows * prompt_tokens / source
    decoded *= 1 - work.shared_decoded
    scorer = planned.scoring
    task = scorer.num_instances * (decoded + scorer.num_perturbations * forced)
    if planned.trainer is None:
        by_stage = {"score": work.tasks * task}
    else:
        by_stage = _experiment_seconds(planned, work, programs[TRAIN], task, decoded)
    return Hours(
        efficiency,
        {name: value / efficiency / 3600 for name, value in by_stage.items()},
        3600 * efficiency / task,
    )


def _experiment_seconds(
    planned: Planned, work: Workload, train: CompiledProgram, task: float, decoded: float
) -> dict[str, float]:
    """Returns chip-seconds by purpose.

    Args:
      task, decoded: chip-seconds to score a task and to decode a prompt.
    """
    settings, trainer = planned.settings, planned.training
    rounds, chosen = settings["rounds"], work.initial_tasks
    seconds = {"train": 0.0, "evaluate": 0.0, "score": 0.0}
    once = (work.test_tasks + work.dev_tasks) * settings["max_eval_instances"] * decoded
    seconds["evaluate"] += once * settings["evaluate_base"]
    for round_index in range(rounds):
        examples = chosen * settings["max_instances_per_task"]
        steps = trainer.total_steps(examples)
        seconds["train"] += steps * train.roofline * train.chips
        evaluations = steps // max(1, trainer.steps_between_evaluations(examples))
        dev = work.dev_tasks * settings["max_dev_instances"] * decoded
        seconds["evaluate"] += once + evaluations * dev
        if round_index < rounds - 1:
            remaining = max(0, work.tasks - work.dev_tasks - chosen)
            seconds["score"] += remaining * task
            chosen += tasks_of_round(settings["tasks_per_round"], round_index)
    return seconds
