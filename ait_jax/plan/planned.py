"""What a plan needs of a gin configuration: no checkpoint, and no pool where there is none."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from ait_jax.config import configuration, gin_checks
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.models.interface import Model, runs_prefixes
from ait_jax.pool.pool import TaskPool
from ait_jax.randomness import Key
from ait_jax.rounds.experiment import Experiment
from ait_jax.rounds.pretraining import Pretraining
from ait_jax.rounds.scoring import UNUSED_MACROS, Scoring
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import continuous
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.chunk import prepare
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts
from ait_jax.scorer.scorer import Scorer
from ait_jax.scorer.shared_prefixes import MOST_MEMBERS, SHORTEST, grouped
from ait_jax.trainer.feedback import FeedbackTrainer
from ait_jax.trainer.interface import Trainer

# What stands for a pool that cannot be read here: NIV2's English tasks (756 to train on, 119 to
# test), prompts and answers of the lengths that they have on average.
ASSUMED_TASKS = 756
ASSUMED_TEST_TASKS = 119
ASSUMED_PROMPT_TOKENS = 300
ASSUMED_ANSWER_TOKENS = 16
_SAMPLED_TASKS, _WHOLE_TASKS = 40, 10


@dataclass(frozen=True)
class Workload:
    """How much there is to do.

    Attributes:
      tasks: of the pool, to train on or to score; dev tasks among them, test tasks not.
      prompt_tokens, answer_tokens: means.
      shared_forced, shared_decoded: of the tokens of teacher forcing and of decoded prompts, the
        share that lies in prefixes which a decoder-only model has run already for another prompt.
      source: where these come from, in words.
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
    """The parts of an experiment, a scoring or a pre-training that are compiled.

    Attributes:
      kind: Experiment, Scoring or Pretraining.
      trainer: None for a scoring.
      settings: the other values of the experiment, by field name.
      workload: None for a pre-training, which has no tasks.
    """

    kind: type
    model: Model
    partitioner: Partitioner
    trainer: Trainer | None
    scorer: Scorer | None
    buckets: LengthBuckets
    settings: Mapping[str, Any]
    workload: Workload | None


def planned(flags: GinFlags, default_file: str, **given: Any) -> Planned:
    """Reads gin files and flags as `ait-jax run` does, but asks for no checkpoint or vocabulary.

    Args:
      given: of `Workload`, numbers that the user gave.

    Raises:
      UserError: as `configuration.parse`, or a configuration of something else.
    """
    configuration.parse(flags, default_file, unused=UNUSED_MACROS, required=False)
    gin_checks.check_types()
    kind = next(
        (k for k in (Experiment, Scoring, Pretraining) if gin_checks.is_configured(k)), None
    )
    if kind is None:
        raise UserError(
            "the gin files configure no experiment to plan. --gin_file replaces the default: give "
            f"one first (--gin_file={default_file}), then what changes it."
        )
    values = Values(kind)
    if kind is Pretraining:
        buckets = LengthBuckets((values["input_length"],), (values["target_length"],))
        return Planned(
            kind, values["model"], values["partitioner"], values["trainer"], None, buckets, {}, None
        )
    trainer = values["trainer"] if kind is Experiment else None
    names = ("tokens_per_batch", "length_growth", "tasks_per_round", "rounds", "evaluate_base",
             "max_instances_per_task", "max_eval_instances", "max_dev_instances")  # fmt: skip
    return Planned(
        kind,
        values["model"],
        values["partitioner"],
        _supervised(trainer[0] if isinstance(trainer, Mapping) else trainer),
        values["scorer"],
        values["buckets"],
        {name: values[name] for name in names if name in values},
        _workload(values, given),
    )


def _supervised(trainer: Trainer | None) -> Trainer | None:
    """Returns what trains before a feedback stage, which is not part of a plan."""
    return trainer.supervised if isinstance(trainer, FeedbackTrainer) else trainer


class Values(Mapping):
    """What gin binds to a class's parameters, or their defaults; each is made when it is taken."""

    def __init__(self, kind: type) -> None:
        import gin

        self._kind = kind
        self._bound = gin.get_bindings(kind, resolve_references=False)
        self._defaults = {}
        for field in fields(kind):
            if field.default is not MISSING:
                self._defaults[field.name] = lambda field=field: field.default
            elif field.default_factory is not MISSING:
                self._defaults[field.name] = field.default_factory

    def __getitem__(self, name: str) -> Any:
        if name in self._bound:
            # Copying a reference is how gin calls what it refers to.
            try:
                return copy.deepcopy(self._bound[name])
            except UserError as error:
                raise configuration.original(error) from None
        return self._defaults[name]()

    def __iter__(self):
        return iter({**self._defaults, **self._bound})

    def __len__(self) -> int:
        return len(set(self))


def _workload(values: Mapping[str, Any], given: Mapping[str, Any]) -> Workload:
    """Measures the pool where it and its vocabulary can be read, and assumes NIV2 elsewhere."""
    splits = values["initial_splits"] if "initial_splits" in values else None
    known = {
        "tasks": ASSUMED_TASKS,
        "test_tasks": ASSUMED_TEST_TASKS,
        "initial_tasks": getattr(splits, "initial_tasks", 68),
        "dev_tasks": getattr(splits, "dev_tasks", 68),
        "prompt_tokens": ASSUMED_PROMPT_TOKENS,
        "answer_tokens": ASSUMED_ANSWER_TOKENS,
    }
    try:
        known |= _measured(values["pool"], values)
    except (UserError, ValueError, TypeError, RuntimeError) as error:  # gin's own among them
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].partition(": ")[0]
        known["source"] = f"assumed, NIV2's: {reason}"
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        known["source"] += f"; given: {', '.join(sorted(given))}"
    return Workload(**(known | given))


def _measured(pool: TaskPool, values: Mapping[str, Any]) -> dict[str, Any]:
    own = pool.splits
    found: dict[str, Any] = {"tasks": len(pool), "test_tasks": 0}
    if own is not None:
        found = {
            "tasks": len(own.train) + len(own.remain) + len(own.dev),
            "test_tasks": len(own.test),
        }
        if own.dev:
            found["dev_tasks"] = len(own.dev)
    vocabulary, encoding = values["vocabulary"], values["encoding"]
    prompts = TaskPrompts(pool, vocabulary, encoding, None, 2, Key(0, 0))
    names = [name for name in pool if len(pool[name].instances)]
    sizes = [
        (len(prompt.tokens), len(vocabulary.encode((*instance.outputs, "")[0])) + 1)
        for name in names[:: max(1, len(names) // _SAMPLED_TASKS)]
        for instance, prompt, _, _ in prompts.build(name, same_prompts([0]))
    ]
    lengths, answers = zip(*sizes)
    found |= {
        "prompt_tokens": sum(lengths) / len(lengths),
        "answer_tokens": sum(answers) / len(answers),
        "source": f"measured on {len(sizes)} prompts of the pool {pool.name!r}",
    }
    return found | (_shared(pool, names, values) if runs_prefixes(values["model"]) else {})


def _shared(pool: TaskPool, names: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the shares of tokens in shared prefixes, of a few whole tasks."""
    scorer = values["scorer"]
    prompts = TaskPrompts(
        pool, values["vocabulary"], values["encoding"], scorer.perturbation, scorer.num_instances,
        Key(0, 0),
    )  # fmt: skip
    few = names[:: max(1, len(names) // _WHOLE_TASKS)]
    ready = prepare(few, same_prompts(range(1, scorer.num_perturbations + 1)), prompts)

    def share(rows: np.ndarray, most_members: int) -> float:
        texts = [ready.inputs[row] for row in np.unique(rows)]
        saved = sum((len(g.members) - 1) * g.length for g in grouped(texts, SHORTEST, most_members))
        return saved / sum(map(len, texts))

    return {
        "shared_forced": share(ready.rows, MOST_MEMBERS),
        "shared_decoded": share(ready.original, continuous.MOST_MEMBERS),
    }
