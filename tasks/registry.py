"""SeqIO tasks and mixtures of a pool, for T5X and other readers of SeqIO.

`register` makes one SeqIO task per pool task and the mixtures `<prefix>_default_train`, `_test`
and, if the pool has dev tasks, `_dev`. In a pool of more than 2,000 tasks each mixture is one SeqIO
task that reads all instances of its pool tasks: SeqIO opens a pipeline for each task of a mixture,
and 50,000 are too many. For NIV2 from plain T5X, either in a gin file

    from ait_jax.tasks import registry
    MIXTURE_OR_TASK_NAME = @registry.register_niv2()
    registry.register_niv2.mixture = "niv2_default_train"
    registry.register_niv2.data_dir = "..."
    registry.register_niv2.vocabulary = "..."

or by environment variables and an import of this module (`import ait_jax.tasks` after
`import seqio` will do): AIT_JAX_DATA_DIR (where NIV2 is, or is to be, prepared),
AIT_JAX_NIV2_DIR (a clone, if it is not prepared yet), AIT_JAX_VOCABULARY_PATH.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ait_jax.tasks.task_names import word_names

from ait_jax import randomness
from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool import Task, TaskPool
from ait_jax.prompts.prompts import Encoding, TkInstructEncoding, check_whole_numbers
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary, vocabulary_at
from ait_jax.prompts.vocabulary import Vocabulary

DATA_DIR_VARIABLE = "AIT_JAX_DATA_DIR"
NIV2_DIR_VARIABLE = "AIT_JAX_NIV2_DIR"
VOCABULARY_VARIABLE = "AIT_JAX_VOCABULARY_PATH"
# More pool tasks than NIV2's 1,616 are registered by selections.
MAX_SEQIO_TASKS = 2000

_registered: dict[str, "Registered"] = {}
# Prefix -> the arguments of the last `register_pool` or `register_niv2`.
_arguments: dict[str, tuple[Any, ...]] = {}


@dataclass(frozen=True)
class InstanceSplits:
    """Which instances of a task are in which SeqIO split; as in Tk-Instruct, "train" has all.

    Attributes:
      first_train_instance: where "train" begins; 100 keeps a test task's official test instances
        out of it.
      max_train_instances: at most this many in "train", drawn by (seed, task); None for all.
      num_test_instances: this many, from the first on, in "test" and in "validation".
    """

    first_train_instance: int = 0
    max_train_instances: int | None = None
    num_test_instances: int = 100

    def __post_init__(self) -> None:
        check_whole_numbers(self, first_train_instance=0, num_test_instances=1)
        if self.max_train_instances is not None:
            check_whole_numbers(self, max_train_instances=1)

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


_ENCODING: Any = TkInstructEncoding()
_SPLITS = InstanceSplits()


@dataclass(frozen=True)
class Registered:
    """What `register` made.

    Attributes:
      task_names: pool task -> SeqIO task; empty if only selections are SeqIO tasks.
      mixtures: names of the mixtures, or of the SeqIO tasks that take their place.
      maker: makes the SeqIO task of a selection, if pool tasks have none of their own.
    """

    task_names: Mapping[str, str]
    mixtures: tuple[str, ...]
    maker: "TaskMaker | None" = None


@dataclass(frozen=True)
class TaskMaker:
    """Registers SeqIO tasks of one or many pool tasks; fields as in `register`."""

    pool: TaskPool
    vocabulary: Vocabulary | TokenizersVocabulary
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
        source: Any = seqio_tasks.PoolSource(members, self._places(members), self.seed)
        seqio.TaskRegistry.add(
            name,
            source=source,
            preprocessors=[seqio_tasks.make_preprocessor(members, self.encoding, self.vocabulary)],
            output_features={"inputs": feature, "targets": feature},
            postprocess_fn=seqio_tasks.all_references,
            metric_fns=[seqio_tasks.rouge_l, seqio_tasks.exact_match],
            # The source shuffles all places; a buffer of tokens would only take memory.
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
    encoding: Encoding = _ENCODING,
    splits: InstanceSplits = _SPLITS,
    seed: int = 0,
    max_seqio_tasks: int = MAX_SEQIO_TASKS,
) -> Registered:
    """Registers a pool with SeqIO; a pool registered before under this prefix is replaced.

    Tasks are named `<prefix>_<task>`, with underscores for characters that SeqIO does not allow
    (see `Registered.task_names`). In a mixture a task's rate is its number of instances, so that
    all instances are equally likely. If the pool's splits name tasks that it lacks, the mixtures
    leave them out and the log says how many.

    Args:
      pool: e.g. `niv2.load_pool(...)`.
      prefix: of all names.
      vocabulary: path of a SentencePiece model (100 sentinels are added) or of a tokenizer, or a
        vocabulary, also SeqIO's.
      encoding: of the prompts.
      splits: of the instances.
      seed: for training targets and `max_train_instances`.
      max_seqio_tasks: in a larger pool each selection is one SeqIO task.

    Raises:
      UserError: there is no vocabulary, or it cannot be used.
    """
    from ait_jax.tasks import seqio_tasks

    seqio_tasks.hide_accelerators()
    _arguments.pop(prefix, None)
    maker = TaskMaker(pool, _vocabulary(vocabulary), encoding, splits, seed)
    if prefix in _registered:
        for name in (*_registered[prefix].task_names.values(), *_registered[prefix].mixtures):
            _remove(name)
    if len(pool) > max_seqio_tasks:
        registered = Registered({}, (), maker)
    else:
        names = {task: f"{prefix}_{word}" for task, word in word_names(pool).items()}
        for task, name in names.items():
            maker.add(name, [task])
        registered = Registered(names, ())
    mixtures = tuple(
        mixture
        for mixture, split, tasks in _default_mixtures(pool, prefix)
        if add_mixture(mixture, tasks, registered, split=split)
    )
    _registered[prefix] = replace(registered, mixtures=mixtures)
    return _registered[prefix]


def _remove(name: str) -> None:
    import seqio

    seqio.MixtureRegistry.remove(name)
    seqio.TaskRegistry.remove(name)


def _default_mixtures(pool: TaskPool, prefix: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns (mixture, split whose size gives the rates, tasks) for the pool's own splits."""
    if pool.splits is None:
        return [(f"{prefix}_default_train", "train", tuple(pool))]
    known = pool.splits.only(pool)
    missing = len(pool.splits.names) - len(known.names)
    if missing:
        logging.warning(
            "%s: %d of the %d tasks in the splits are not in the pool; mixtures leave them out.",
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
    """Adds a SeqIO mixture of pool tasks, e.g. a round's selection; replaces one of that name.

    If the pool is registered by selections, it becomes one SeqIO task of that name.

    Args:
      name: of the mixture.
      tasks: names of pool tasks.
      registered: what `register` returned for their pool.
      split: whose number of instances is a task's rate; tasks without any are left out.

    Returns:
      its SeqIO tasks; empty, and no mixture is added, if none has an instance in `split`.

    Raises:
      UserError: a task was not registered.
    """
    import seqio

    tasks, maker = tuple(tasks), registered.maker
    known = registered.task_names if maker is None else maker.pool
    for task in tasks:
        if task not in known:
            raise UserError(
                f"mixture {shown(name)}: task {shown(task)} is not registered."
                + nearest(task, known)
            )
    if maker is not None:
        positions = (maker.splits.positions(maker.pool[task], maker.seed) for task in tasks)
        if not any(of_task.get(split) for of_task in positions):
            return ()
        _remove(name)
        maker.add(name, tasks)
        return (name,)
    members = [seqio.TaskRegistry.get(registered.task_names[task]) for task in tasks]
    sizes = [(m.name, m.num_input_examples(split) if split in m.splits else 0) for m in members]
    rates = [(member, size) for member, size in sizes if size]
    if rates:
        _remove(name)
        seqio.MixtureRegistry.add(name, rates)
    return tuple(member for member, _ in rates)


def _vocabulary(given: Any) -> Vocabulary | TokenizersVocabulary:
    vocabulary = given
    if isinstance(given, (str, os.PathLike)):
        vocabulary = vocabulary_at(os.fspath(given)) if os.fspath(given) else None
    elif hasattr(given, "sentencepiece_model_file"):
        vocabulary = Vocabulary(given.sentencepiece_model_file, given.extra_ids)
    if not isinstance(vocabulary, (Vocabulary, TokenizersVocabulary)):
        raise UserError(
            "no vocabulary: give the path of a SentencePiece model or of a decoder-only model's "
            "tokenizer (gin name VOCABULARY_PATH, or the environment variable "
            f"{VOCABULARY_VARIABLE})."
        )
    # A bad file is an error now, by name, not inside a data pipeline later.
    vocabulary.encode("")
    return vocabulary


def register_pool(
    mixture: str,
    load_pool: Callable[[], TaskPool],
    vocabulary: Any = None,
    prefix: str = "mini",
    encoding: Encoding = _ENCODING,
    splits: InstanceSplits = _SPLITS,
    seed: int = 0,
    max_seqio_tasks: int = MAX_SEQIO_TASKS,
) -> str:
    """Registers a pool, once for the same arguments, and returns `mixture`: for use in gin files.

    Args:
      mixture: a SeqIO mixture or task of the pool.
      load_pool: makes the pool.
      vocabulary: by default the variable AIT_JAX_VOCABULARY_PATH; this and the others as for
        `register`.

    Raises:
      UserError: there is no vocabulary, or no such mixture.
    """
    options = {
        "encoding": encoding, "splits": splits, "seed": seed, "max_seqio_tasks": max_seqio_tasks,
    }  # fmt: skip
    return _register_once(mixture, prefix, vocabulary, load_pool, load_pool, **options)


def _register_once(
    mixture: str, prefix: str, vocabulary: Any, source: Any, load_pool: Any, **options: Any
) -> str:
    """Registers the pool from `source`, unless its arguments are those of the last time."""
    vocabulary = _vocabulary(vocabulary or os.environ.get(VOCABULARY_VARIABLE))
    key = (source, vocabulary.identity, *options.values())
    if _arguments.get(prefix) != key:
        register(load_pool(), prefix, vocabulary=vocabulary, **options)
        _arguments[prefix] = key
    registered = _registered[prefix]
    known = [*registered.mixtures, *registered.task_names.values()]
    if mixture not in known:
        raise UserError(
            f"{prefix} has no SeqIO mixture or task {shown(mixture)}." + nearest(mixture, known)
        )
    return mixture


def register_niv2(
    mixture: str = "niv2_default_train",
    data_dir: Any = None,
    source: Any = None,
    vocabulary: Any = None,
    encoding: Encoding = _ENCODING,
    splits: InstanceSplits = _SPLITS,
    seed: int = 0,
) -> str:
    """Registers NIV2, once for the same arguments, and returns `mixture`: for use in gin files.

    Args:
      data_dir: where NIV2 is prepared; by default the variable AIT_JAX_DATA_DIR.
      source: a clone, prepared first if need be; by default the variable AIT_JAX_NIV2_DIR.
      mixture, vocabulary, encoding, splits, seed: as for `register_pool`.

    Raises:
      UserError: NIV2 is not prepared and there is no clone, or as `register_pool`.
    """
    from ait_jax.tasks import niv2

    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    source = source or os.environ.get(NIV2_DIR_VARIABLE)
    if not data_dir:
        raise UserError(
            "no data_dir for NIV2: set registry.register_niv2.data_dir or the environment variable "
            f"{DATA_DIR_VARIABLE} (and NIV2_DIR or {NIV2_DIR_VARIABLE} if it is not prepared yet)."
        )
    options = {"encoding": encoding, "splits": splits, "seed": seed}
    place = (str(data_dir), str(source))
    load_pool = functools.partial(niv2.load_pool, data_dir, source)
    return _register_once(mixture, "niv2", vocabulary, place, load_pool, **options)


if os.environ.get(DATA_DIR_VARIABLE) and os.environ.get(VOCABULARY_VARIABLE):
    register_niv2()
