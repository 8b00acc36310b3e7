"""Several pools as one: Self-Instruct's instructions beside grown tasks, for example."""

import hashlib
from collections.abc import Sequence

from ait_jax.errors import UserError, shown
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import SPLIT_NAMES, Splits


def load_pool(pools: Sequence[TaskPool], name: str = "joined") -> TaskPool:
    """Joins pools, in their order, with their labels and splits.

    All tasks of a pool without splits remain to be chosen from. Tasks without instances are in the
    pool but in none of its splits: a run can neither train on them nor score them.

    Args:
      pools: with distinct task names.
      name: of the joined pool.

    Raises:
      UserError: no pool is given, or two of them have a task of the same name.
    """
    if not pools:
        raise UserError("joined.load_pool.pools is empty; give at least one pool.")
    owners: dict[str, str] = {}
    for pool in pools:
        for task in pool:
            if owners.setdefault(task, pool.name) != pool.name:
                raise UserError(
                    f"the pools {shown(owners[task])} and {shown(pool.name)} both have a task "
                    f"{shown(task)}; rename or remove one."
                )
    digest = hashlib.sha256()
    for pool in pools:
        digest.update(f"{pool.name}\0{pool.fingerprint()}\n".encode())
    return TaskPool(
        (task for pool in pools for task in pool.values()),
        {task: label for pool in pools for task, label in pool.given_labels.items()},
        name=name,
        splits=_splits(pools),
        fingerprint=digest.hexdigest(),
    )


def _splits(pools: Sequence[TaskPool]) -> Splits:
    groups: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}
    for pool in pools:
        own = pool.splits or Splits(remain=tuple(pool))
        for split, names in groups.items():
            # Names that the pool lacks stay: whoever draws from the splits refuses or drops them.
            names += [n for n in getattr(own, split) if n not in pool or len(pool[n].instances)]
    return Splits(**{split: tuple(names) for split, names in groups.items()})
