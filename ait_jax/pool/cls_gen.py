"""Classification (CLS) or generation (GEN): labels from a file or by a rule, and quotas of both.

The paper reports and selects CLS and GEN tasks separately. Its labels come from a metadata field,
`DefHasLabel == "ExactMentioned"`, whose rule was not released; the rule here is this project's
reading of that name.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool.task import Task
from ait_jax.runtime.files import read_given_json

# The largest closed label space seen is 73 topics (task900_freebase_qa_category_classification).
MAX_LABELS = 100
_VALUES = {"CLS": True, "GEN": False}
_DIGEST = re.compile(r"sha256-[0-9a-f]{10}")


def is_classification(task: Task) -> bool:
    """Returns True if the task's label space is closed and spelled out in its definition.

    The rule: the reference outputs of all instances are between 2 and 100 distinct strings, and
    each appears literally in the definition, as whole words and in any case. One output that the
    definition does not name makes the task GEN; reading stops there.

    Against the labels recovered from the authors' released splits, 122 of 122 training tasks of a
    part of NIV2 agree. Only 4 of these are CLS, so this mostly shows that generation tasks are not
    mistaken for classification. Expect less on all of NIV2: among tasks read by hand, task724 (A to
    D) and task1205 (Yes, No) name their labels and are GEN in the released labels. For the paper's
    own division, give its label file (`labels_from_file`).
    """
    definition = task.instruction.definition.casefold()
    labels: set[str] = set()
    for instance in task.instances:
        for output in instance.outputs:
            label = output.strip().casefold()
            if label in labels:
                continue
            labels.add(label)
            if len(labels) > MAX_LABELS or not _stands_in(label, definition):
                return False
    return len(labels) >= 2


def _stands_in(label: str, text: str) -> bool:
    # Plain search first: in a pool of 52,000 tasks most labels are new, and patterns are costly.
    if not label or label not in text:
        return False
    # Not \b: labels may begin or end with a non-word character ("PRP$").
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None


def labels_from_file(path: Any, names: Iterable[str] = ()) -> dict[str, bool]:
    """Reads labels from a JSON object {task name: "CLS" or "GEN"}.

    Args:
      path: the file; it may have `name_digest`s in place of names.
      names: of the tasks that digests may stand for.

    Returns:
      task name -> True for CLS, False for GEN, as `TaskPool` takes it, in the file's order; a
      digest of no task stays as it is.

    Raises:
      UserError: the file cannot be read, is malformed JSON (with line and column), or has another
        value (with the task's name).
    """
    data = read_given_json(path, "the CLS/GEN labels")
    if not isinstance(data, dict):
        raise UserError(
            f'{path}: CLS/GEN labels are a JSON object {{"task name": "CLS" or "GEN"}}.'
        )
    for name, value in data.items():
        if not isinstance(value, str) or value not in _VALUES:
            raise UserError(
                f'{path}: the label of task {shown(name)} is {shown(value)}; it must be "CLS" or '
                '"GEN".' + nearest(str(value).upper(), _VALUES)
            )
    name_of: dict[str, str] = {}
    if any(map(_DIGEST.match, data)):
        name_of = {name_digest(name): name for name in names}
    return {name_of.get(name) or name: _VALUES[value] for name, value in data.items()}


def name_digest(name: str) -> str:
    """Returns what stands for a task's name in a file that does not list names itself."""
    import hashlib  # imported late: loads OpenSSL

    return f"sha256-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


class Group(NamedTuple):
    """Tasks that are ranked among themselves.

    Attributes:
      name: "all", or "cls" or "gen".
      tasks: their names.
      quota: how many of them are taken.
    """

    name: str
    tasks: tuple[str, ...]
    quota: int


@dataclass(frozen=True)
class Quotas:
    """How many tasks are taken, with a ratio CLS and GEN separately.

    A ratio asks for int(num_tasks * cls_ratio) CLS tasks: 0.356 of 68 gives 24 CLS and 44 GEN
    (`--fix_cls_gen_ratio` of the authors' code). If one group runs short, the other fills the gap.

    Args:
      num_tasks: of both groups together.
      cls_ratio: share of CLS tasks in [0, 1]; None ranks all tasks together.
    """

    num_tasks: int
    cls_ratio: float | None = None

    def groups(self, tasks: Iterable[str], is_cls: Callable[[str], bool]) -> tuple[Group, ...]:
        """Returns the groups of `tasks`, CLS before GEN; `is_cls` is asked only with a ratio."""
        tasks = tuple(tasks)
        if self.cls_ratio is None:
            return (Group("all", tasks, min(self.num_tasks, len(tasks))),)
        cls = tuple(task for task in tasks if is_cls(task))
        gen = tuple(task for task in tasks if not is_cls(task))
        # The small addend keeps 100 * 0.29 = 28.999... from counting as 28.
        num_cls = min(int(self.num_tasks * self.cls_ratio + 1e-9), len(cls))
        num_gen = min(self.num_tasks - num_cls, len(gen))
        return (
            Group("cls", cls, min(self.num_tasks - num_gen, len(cls))),
            Group("gen", gen, num_gen),
        )
