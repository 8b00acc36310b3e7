"""Selections that another run made, from its lists: the authors' `--no_update_task_list`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.pool.splits import read_names
from ait_jax.runtime.files import as_path
from ait_jax.selection.selection import SelectionContext, Strategy
from ait_jax.selection.uncertainty import TaskScores

ROUND = "{round}"
_MISSING = ("error", "drop")


@dataclass(frozen=True)
class Released(Strategy):
    """Selects what released lists train on next, in their order; nothing is scored.

    Round 0 must begin as theirs did: with the paper's splits, SPLIT_SEED = 10 for the folder
    TLAL_Exp0_all_10.

    Attributes:
      lists: the folder of each round's train_tasks.txt, with `{round}` for its number
        (RELEASED_LISTS): "TLAL_Exp0_all_10/Random_{round}", "runs/mini/round_00{round}".
      missing_tasks: "error" refuses listed tasks that the pool lacks, "drop" leaves them out.

    Raises:
      UserError: `lists` has no `{round}`, or another word for `missing_tasks`.
    """

    needs_scores: ClassVar[bool] = False
    lists: str
    missing_tasks: str = "error"

    def __post_init__(self) -> None:
        if not isinstance(self.lists, str) or ROUND not in self.lists:
            raise UserError(
                f"RELEASED_LISTS is {shown(self.lists)}; write {ROUND} for the round's number, as "
                "in 'TLAL_Exp0_all_10/Random_{round}'."
            )
        if self.missing_tasks not in _MISSING:
            raise UserError(
                f"Released.missing_tasks is {shown(self.missing_tasks)}; it must be 'error' or "
                "'drop'." + nearest(str(self.missing_tasks), _MISSING)
            )

    def rank(self, scores: TaskScores, context: SelectionContext) -> list[str]:
        """Returns the listed tasks, then the others by name.

        Raises:
          UserError: there is no list, it names tasks that the pool lacks, or it does not select as
            many as are asked for.
        """
        path = as_path(self.lists.replace(ROUND, str(context.key.round_index + 1)))
        path = path / "train_tasks.txt"
        remaining = set(context.scores.tasks)
        listed = [name for name in read_names(path) if self._is_known(name, context, path)]
        listed = [name for name in listed if name in remaining]
        _check_numbers(path, listed, context)
        own = set(scores.tasks)
        return [name for name in listed if name in own] + sorted(own.difference(listed))

    def _is_known(self, name: str, context: SelectionContext, path: object) -> bool:
        if name in context.pool:
            return True
        if self.missing_tasks == "error":
            raise UserError(
                f"{shown_path(path)}: the pool lacks the task {shown(name)}."
                f"{nearest(name, context.pool)} --gin.released.Released.missing_tasks=drop goes on "
                "without it."
            )
        return False


def _check_numbers(path: object, listed: Iterable[str], context: SelectionContext) -> None:
    chosen = set(listed)
    for group in context.quotas.groups(context.scores.tasks, context.pool.is_cls):
        found = len(chosen.intersection(group.tasks))
        if found != group.quota:
            which = "" if group.name == "all" else f"{group.name.upper()} "
            raise UserError(
                f"{shown_path(path)} has {found} {which}tasks that remain to be selected, and "
                f"{group.quota} are asked for. Begin with the lists' own splits (SPLIT_SEED, or "
                "pools/split_files.gin), set TASKS_PER_ROUND to the numbers of the lists, and "
                "CLS_RATIO to theirs or None."
            )
