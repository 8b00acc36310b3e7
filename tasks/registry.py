"""SeqIO tasks and mixtures of a pool, for T5X and whatever else reads SeqIO.

`register` makes, of any pool, one SeqIO task per pool task and the mixtures
`<prefix>_default_train` and `<prefix>_default_test` (and `_dev` where the pool has dev tasks).
Of a pool of more than 2,000 tasks each of the latter is one SeqIO task that reads all instances of
its pool tasks, and so is every other selection (`add_mixture`): SeqIO opens a pipeline for each
task of a mixture, and 50,000 are too many.
For NIV2 from plain T5X, either in a gin file

    from ait_jax.tasks import registry
    MIXTURE_OR_TASK_NAME = @registry.register_niv2()
    registry.register_niv2.mixture = "niv2_default_train"
    registry.register_niv2.data_dir = "..."
    registry.register_niv2.vocabulary = "..."

or by environment variables and an import of this module (`import ait_jax.tasks` after
`import seqio` will do): AIT_JAX_DATA_DIR (where NIV2 is, or is to be, prepared),
AIT_JAX_NIV2_DIR (a clone; needed if it is not prepared yet), AIT_JAX_VOCABULARY_PATH.

Splits of every task:
- "train": all instances. As in Tk-Instruct what is held out is whole tasks, not instances;
  `first_train_instance = 100` keeps a task's own test instances out of its training split.
- "test" and "validation": the first 100 instances, the official test instances of test tasks.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ait_jax.tasks.task_names import word_names

from ait_jax import randomness
from ait_jax.errors import UserError, nearest
from ait_jax.pool.pool import Task, TaskPool
from ait_jax.prompts.prompts import Encoding, TkInstructEncoding
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary, vocabulary_at
from ait_jax.prompts.vocabulary import Vocabulary

DATA_DIR_VARIABLE = "AIT_JAX_DATA_DIR"
NIV2_DIR_VARIABLE = "AIT_JAX_NIV2_DIR"
VOCABULARY_VARIABLE = "AIT_JAX_VOCABULARY_PATH"
# More pool tasks than NIV2's 1,616 are registered by selections.
MAX_SEQIO_TASKS = 2000

_registered: dict[str, "Registered"] = {}
# The arguments of the last `register_niv2`.
_niv2_arguments: list[tuple] = []
# Prefix -> the arguments of the last `register_pool`.
_pool_arguments: dict[str, tuple] = {}


@dataclass(frozen=True)
class InstanceSplits:
    """Which instances of a task are in which SeqIO split.

    Attributes:
      first_train_instance: "train" begins with this position of the file.
      max_train_instances: at most so many in "train", drawn by (seed, task); None for all.
      num_test_instances: so many, from the first on, in "test" and in "validation".
    """

    first_train_instance: int = 0
    max_train_instances: int | None = None
    num_test_instances: int = 100

    def __post_init__(self) -> None:
        for name, least in (
            ("first_train_instance", 0),
            ("max_train_instances", 1),
            ("num_test_instances", 1),
        ):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < least
            ):
                raise UserError(
                    f"InstanceSplits.{name} is {value!r}; it must be a whole number, {least} or more."
                )

    def positions(self, task: Task, seed: int) -> dict[str, Sequence[int]]:
        """Returns split -> positions; "train" is missing if no instance is left for it."""
        length = len(task.instances)
        train: Sequence[int] = range(self.first_train_instance, length)
        if self.max_train_instances is not None and len(train) > self.max_train_instances:
            drawn = randomness.shuffled(train, seed, "training instances", task.name)
            train = sorted(drawn[: self.max_train_instances])
        test = range(min(self.num_test_instances, length))
        splits: dict[str, Sequence[int]] = {"validation": test, "test": test}
        return {"train": train, **splits} if train else splits


@dataclass(frozen=True)
class Registered:
    """What `register` made.

    Attributes:
      task_names: pool task -> SeqIO task; empty where only selections are SeqIO tasks.
      mixtures: names of the mixtures, or of the SeqIO tasks that take their place.
      maker: makes the SeqIO task of a selection, where pool tasks have none of their own.
    """

    task_names: Mapping[str, str]
    mixtures: tuple[str, ...]
    maker: "TaskMaker | None" = None


@dataclass(frozen=True)
class TaskMaker:
    """Registers SeqIO tasks of one or many pool tasks; fields as of `register`."""

    pool: TaskPool
    vocabulary: Vocabulary
    encoding: Encoding
    splits: InstanceSplits
    seed: int

    def add(self, name: str, tasks: Sequence[str]) -> None:
        """Adds the SeqIO task `name` with the instances of the pool tasks `tasks`."""
        import seqio
        from ait_jax.tasks import seqio_tasks
        from ait_jax.tasks.seqio_vocabulary import seqio_vocabulary

        members = [self.pool[task] for task in tasks]
        feature = seqio.Feature(seqio_vocabulary(self.vocabulary), add_eos=True)
        seqio.TaskRegistry.add(
            name,
            source=seqio_tasks.PoolSource(members, self._places(members), self.seed),
            preprocessors=[seqio_tasks.make_preprocessor(members, self.encoding, self.vocabulary)],
            output_features={"inputs": feature, "targets": feature},
            postprocess_fn=seqio_tasks.all_references,
            metric_fns=[seqio_tasks.rouge_l, seqio_tasks.exact_match],
            # The source shuffles all places; a buffer of tokens would add memory only.
            shuffle_buffer_size=None,
            task_cls=seqio_tasks.PoolTask,
        )

    def _places(self, members: Sequence[Task]) -> dict[str, np.ndarray]:
        """Returns split -> int32[instances, 2]: index in `members`, position in the task."""
        places: dict[str, list[np.ndarray]] = {}
        for index, task in enumerate(members):
            for split, positions in self.splits.positions(task, self.seed).items():
                found = np.asarray(positions, np.int32)
                rows = np.stack([np.full(len(found), index, np.int32), found], axis=1)
                places.setdefault(split, []).append(rows)
        return {split: np.concatenate(rows) for split, rows in places.items()}


def register(
    pool: TaskPool,
    prefix: str = "niv2",
    *,
    vocabulary: Any,
    encoding: Encoding = TkInstructEncoding(),
    splits: InstanceSplits = InstanceSplits(),
    seed: int = 0,
    max_seqio_tasks: int = MAX_SEQIO_TASKS,
) -> Registered:
    """Registers a pool with SeqIO; a pool registered before under this prefix is replaced.

    Tasks are named `<prefix>_<task>` with characters that SeqIO does not allow, and dots,
    replaced by underscores (task1530_scitail1.1_sentence_generation is
    niv2_task1530_scitail1_1_sentence_generation); `Registered.task_names` is the table.
    In a mixture a task's rate is its number of instances, so that every instance is as
    likely as every other. Where the pool's splits name tasks that it lacks, the mixtures
    do without them and the log says how many.

    Args:
      pool: e.g. `niv2.load_pool(...)`.
      prefix: of all names.
      vocabulary: path of a SentencePiece model (100 sentinels are added), a
        `Vocabulary`, or a `seqio.SentencePieceVocabulary`.
      encoding: of the prompts.
      splits: which instances are in which split.
      seed: for training targets and `max_train_instances`.
      max_seqio_tasks: of a larger pool each selection is one SeqIO task.

    Raises:
      UserError: no vocabulary, or it is not one of T5's.
    """
    import seqio
    from ait_jax.tasks import seqio_tasks

    seqio_tasks.hide_accelerators()
    _niv2_arguments.clear()
    _pool_arguments.pop(prefix, None)
    maker = TaskMaker(pool, _vocabulary(vocabulary), encoding, splits, seed)
    if prefix in _registered:
        for name in _registered[prefix].task_names.values():
            seqio.TaskRegistry.remove(name)
        for name in _registered[prefix].mixtures:
            _remove(name)
    if len(pool) > max_seqio_tasks:
        registered = Registered({}, (), maker)
    else:
        names = {task: f"{prefix}_{word}" for task, word in word_names(pool).items()}
        for task, name in names.items():
            maker.add(name, [task])
        registered = Registered(names, ())
    mixtures = []
    for mixture, split, tasks in _default_mixtures(pool, prefix):
        if add_mixture(mixture, tasks, registered, split=split):
            mixtures.append(mixture)
    _registered[prefix] = replace(registered, mixtures=tuple(mixtures))
    return _registered[prefix]


def _remove(mixture: str) -> None:
    import seqio

    seqio.MixtureRegistry.remove(mixture)
    seqio.TaskRegistry.remove(mixture)


def _default_mixtures(pool: TaskPool, prefix: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns (mixture, split whose size gives the rates, tasks) for the pool's own splits."""
    if pool.splits is None:
        return [(f"{prefix}_default_train", "train", tuple(pool))]
    known = pool.splits.only(pool)
    missing = len(pool.splits.names) - len(known.names)
    if missing:
        logging.warning(
            "%s: %d of the %d tasks in the splits are not in the pool; the mixtures do without them.",
            prefix,
            missing,
            len(pool.splits.names),
        )
    return [
        (f"{prefix}_default_train", "train", known.train + known.remain),
        (f"{prefix}_default_dev", "validation", known.dev),
        (f"{prefix}_default_test", "test", known.test),
    ]


def add_mixture(
    name: str, tasks: Iterable[str], registered: Registered, split: str = "train"
) -> tuple[str, ...]:
    """Adds a SeqIO mixture of pool tasks, for example of a round's selection; replaces one of its name.

    Of a pool that is registered by selections it becomes one SeqIO task of that name.

    Args:
      name: of the mixture.
      tasks: names of pool tasks.
      registered: what `register` returned for their pool.
      split: a task's rate is its number of instances in this split; tasks that have none
        are left out.

    Returns:
      the SeqIO tasks in it; none, and no mixture, if none has an instance in `split`.

    Raises:
      UserError: a task that was not registered.
    """
    import seqio

    tasks = tuple(tasks)
    if registered.maker is not None:
        return _add_selection(name, tasks, registered.maker, split)
    rates = []
    for task in tasks:
        if task not in registered.task_names:
            raise UserError(
                f"mixture {name!r}: task {task!r} is not registered."
                + nearest(task, registered.task_names)
            )
        member = seqio.TaskRegistry.get(registered.task_names[task])
        if split in member.splits and member.num_input_examples(split):
            rates.append((member.name, member.num_input_examples(split)))
    if rates:
        _remove(name)
        seqio.MixtureRegistry.add(name, rates)
    return tuple(member for member, _ in rates)


def _add_selection(
    name: str, tasks: Sequence[str], maker: TaskMaker, split: str
) -> tuple[str, ...]:
    known, unknown = maker.pool.drop_missing(tasks)
    if unknown:
        raise UserError(
            f"mixture {name!r}: task {unknown[0]!r} is not registered."
            + nearest(unknown[0], maker.pool)
        )
    if not any(maker.splits.positions(maker.pool[task], maker.seed).get(split) for task in known):
        return ()
    _remove(name)
    maker.add(name, known)
    return (name,)


def _vocabulary(vocabulary: Any) -> Vocabulary:
    if isinstance(vocabulary, (str, os.PathLike)) and os.fspath(vocabulary):
        vocabulary = vocabulary_at(os.fspath(vocabulary))
    elif hasattr(vocabulary, "sentencepiece_model_file"):
        vocabulary = Vocabulary(vocabulary.sentencepiece_model_file, vocabulary.extra_ids)
    if not isinstance(vocabulary, (Vocabulary, TokenizersVocabulary)):
        raise UserError(
            "no vocabulary: give the path of a SentencePiece model or of a decoder-only model's "
            "tokenizer (gin name VOCABULARY_PATH, or the "
            f"environment variable {VOCABULARY_VARIABLE})."
        )
    # A bad file is an error now, by name, not inside a data pipeline later.
    vocabulary.encode("")
    return vocabulary


def register_pool(
    mixture: str,
    load_pool: Callable[[], TaskPool],
    vocabulary: Any = None,
    prefix: str = "mini",
    encoding: Encoding = TkInstructEncoding(),
    splits: InstanceSplits = InstanceSplits(),
    seed: int = 0,
    max_seqio_tasks: int = MAX_SEQIO_TASKS,
) -> str:
    """Registers a pool, once for the same arguments, and returns `mixture`: for use in gin files.

    Args:
      mixture: the SeqIO mixture or task wanted; must be one that the pool has.
      load_pool: makes the pool.
      vocabulary: as for `register`; else the variable AIT_JAX_VOCABULARY_PATH.
      prefix: of all names.
      encoding, splits, seed, max_seqio_tasks: as for `register`.

    Raises:
      UserError: no vocabulary, or an unknown `mixture` (with the nearest).
    """
    vocabulary = _vocabulary(vocabulary or os.environ.get(VOCABULARY_VARIABLE))
    options = {
        "encoding": encoding, "splits": splits, "seed": seed, "max_seqio_tasks": max_seqio_tasks,
    }  # fmt: skip
    key = (load_pool, vocabulary.identity, *options.values())
    if _pool_arguments.get(prefix) != key:
        register(load_pool(), prefix, vocabulary=vocabulary, **options)
        _pool_arguments[prefix] = key
    return _known_mixture(mixture, prefix)


def _known_mixture(mixture: str, prefix: str) -> str:
    registered = _registered[prefix]
    known = [*registered.mixtures, *registered.task_names.values()]
    if mixture not in known:
        raise UserError(
            f"{prefix} has no SeqIO mixture or task {mixture!r}." + nearest(mixture, known)
        )
    return mixture


def register_niv2(
    mixture: str = "niv2_default_train",
    data_dir: Any = None,
    source: Any = None,
    vocabulary: Any = None,
    encoding: Encoding = TkInstructEncoding(),
    splits: InstanceSplits = InstanceSplits(),
    seed: int = 0,
) -> str:
    """Registers NIV2, once for the same arguments, and returns `mixture`: for use in gin files.

    Args:
      mixture: the SeqIO mixture or task wanted; must be one that NIV2 has.
      data_dir: where NIV2 is prepared; else the variable AIT_JAX_DATA_DIR.
      source: a clone, prepared first if need be; else the variable AIT_JAX_NIV2_DIR.
      vocabulary: as for `register`; else the variable AIT_JAX_VOCABULARY_PATH.
      encoding, splits, seed: as for `register`.

    Raises:
      UserError: NIV2 is not prepared and there is no clone, no vocabulary, or an unknown
        `mixture` (with the nearest).
    """
    from ait_jax.tasks import niv2

    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    source = source or os.environ.get(NIV2_DIR_VARIABLE)
    vocabulary = _vocabulary(vocabulary or os.environ.get(VOCABULARY_VARIABLE))
    if not data_dir:
        raise UserError(
            "no data_dir for NIV2: set registry.register_niv2.data_dir or the environment variable "
            f"{DATA_DIR_VARIABLE} (and NIV2_DIR or {NIV2_DIR_VARIABLE} if it is not prepared there yet)."
        )
    key = (str(data_dir), str(source), vocabulary.identity, encoding, splits, seed)
    if _niv2_arguments != [key]:
        pool = niv2.load_pool(data_dir, source)
        register(pool, "niv2", vocabulary=vocabulary, encoding=encoding, splits=splits, seed=seed)
        _niv2_arguments[:] = [key]
    return _known_mixture(mixture, "niv2")


if os.environ.get(DATA_DIR_VARIABLE) and os.environ.get(VOCABULARY_VARIABLE):
    register_niv2()
