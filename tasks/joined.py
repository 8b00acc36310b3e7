"""Several pools as one: Self-Instruct's instructions beside grown tasks, for example."""

import hashlib
from collections.abc import Sequence

from ait_jax.errors import UserError
from ait_jax.pool.pool import TaskPool
from ait_jax.pool.splits import SPLIT_NAMES, Splits


def load_pool(pools: Sequence[TaskPool], name: str = "joined") -> TaskPool:
    """Joins pools, in their order, with their labels and splits.

    A pool without splits gives all its tasks to select from. Tasks without instances are in the
    pool and in none of its splits: a run can neither train on them nor score them.

    Args:
      pools: with distinct task names.
      name: of the whole.

    Raises:
      UserError: no pool, or a task of the same name in two of them.
    """
    if not pools:
        raise UserError("joined.load_pool.pools is empty; give at least one pool.")
    owners: dict[str, str] = {}
    for pool in pools:
        for task in pool:
            if owners.setdefault(task, pool.name) != pool.name:
                raise UserError(
                    f"the pools {owners[task]!r} and {pool.name!r} both have a task {task!r}; rename "
                    "or remove one."
                )
    return TaskPool(
        (task for pool in pools for task in pool.values()),
        {task: label for pool in pools for task, label in pool.given_labels.items()},
        name=name,
        splits=_splits(pools),
        fingerprint=_fingerprint(pools),
    )


def _splits(pools: Sequence[TaskPool]) -> Splits:
    named: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}
    for pool in pools:
        own = pool.splits or Splits(remain=tuple(pool))
        for split, names in named.items():
            # Names that the pool lacks stay: whoever draws from the splits refuses or drops them.
            names += [n for n in getattr(own, split) if n not in pool or len(pool[n].instances)]
    return Splits(**{split: tuple(names) for split, names in named.items()})


def _fingerprint(pools: Sequence[TaskPool]) -> str:
    digest = hashlib.sha256()
    for pool in pools:
        digest.update(f"{pool.name}\0{pool.fingerprint()}\n".encode())
    return digest.hexdigest()
