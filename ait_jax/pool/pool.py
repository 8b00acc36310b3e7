"""The pool: tasks by name, with their CLS/GEN labels and a fingerprint of their content."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ait_jax.errors import UserError, nearest, shown
from ait_jax.pool.cls_gen import is_classification
from ait_jax.pool.splits import Splits
from ait_jax.pool.task import Task
from ait_jax.runtime.files import check_name


class TaskPool(Mapping[str, Task]):
    """Tasks by name, in the order given, with their CLS/GEN labels.

    A pool does not change after it is made.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        cls_labels: Mapping[str, bool] | None = None,
        name: str = "",
        splits: Splits | None = None,
        fingerprint: str = "",
        digests: Mapping[str, bytes] | None = None,
        reopen: "Callable[[], TaskPool] | None" = None,
    ) -> None:
        """Creates a pool.

        Args:
          tasks: at least one; names are distinct and safe.
          cls_labels: task name -> True for classification, False for generation. Other tasks are
            labeled by `cls_gen.is_classification`, when asked for. Names that the pool lacks are
            ignored (one label file serves many pools).
          name: of the pool, for messages and reports.
          splits: the pool's own default splits.
          fingerprint: a hash of the content, if it is known; otherwise `fingerprint()` reads every
            instance.
          digests: likewise, `task_digest` of every task by name.
          reopen: reads the pool again from disk, where it may have been extended.

        Raises:
          UserError: there is no task, two have one name, or a name is unsafe.
        """
        self.name = name
        self.splits = splits
        self._tasks: dict[str, Task] = {}
        for task in tasks:
            check_name(task.name, "task name")
            if task.name in self._tasks:
                raise UserError(
                    f"{self._called} has two tasks named {shown(task.name)}; rename or remove one."
                )
            self._tasks[task.name] = task
        if not self._tasks:
            raise UserError(f"{self._called} is empty; set POOL to one with at least one task.")
        self._given_labels = dict(cls_labels or {})
        self._derived_labels: dict[str, bool] = {}
        self._fingerprint = fingerprint
        self._digests = dict(digests) if digests is not None else None
        self._reopen = reopen

    @property
    def _called(self) -> str:
        return f"the pool {shown(self.name)}" if self.name else "the pool"

    def __getitem__(self, name: str) -> Task:
        try:
            return self._tasks[name]
        except KeyError:
            raise UserError(
                f"{self._called} has no task {shown(name)} among its {len(self)}."
                + nearest(str(name), self._tasks)
            ) from None

    # Mapping's own versions catch KeyError, but `__getitem__` raises UserError.
    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a task, or `default`."""
        return self._tasks.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"TaskPool({self.name!r}, {len(self)} tasks)"

    def is_cls(self, name: str) -> bool:
        """Returns whether a task is classification, by the given label, else the derived one."""
        task = self[name]
        if name in self._given_labels:
            return self._given_labels[name]
        if name not in self._derived_labels:
            self._derived_labels[name] = is_classification(task)
        return self._derived_labels[name]

    @property
    def given_labels(self) -> Mapping[str, bool]:
        """The given labels: task name -> True for classification."""
        return {name: label for name, label in self._given_labels.items() if name in self}

    def fingerprint(self) -> str:
        """Returns a SHA-256 (hex) of the content: names, instructions, instances.

        Labels, splits, metadata and the order of tasks do not count. Unless the pool was given a
        fingerprint, the first call reads every instance; later ones are free.
        """
        if not self._fingerprint:
            self._fingerprint = fingerprint_of(self.digests())
        return self._fingerprint

    def digests(self) -> Mapping[str, bytes]:
        """Returns `task_digest` of every task by name, at the cost of `fingerprint`."""
        if self._digests is None:
            self._digests = {name: task_digest(task) for name, task in self._tasks.items()}
        return self._digests

    def reopened(self) -> "TaskPool":
        """Returns the pool as it is on disk now, or itself if it is not on disk."""
        return self._reopen() if self._reopen else self


def fingerprint_of(digests: Mapping[str, bytes]) -> str:
    """Returns a pool's fingerprint from its tasks' digests by name, in any order."""
    import hashlib  # imported late, here and below: loads OpenSSL

    whole = hashlib.sha256()
    for name in sorted(digests):
        whole.update(digests[name])
    return whole.hexdigest()


def task_digest(task: Task) -> bytes:
    """Returns 32 bytes that depend on a task's name, instruction and instances."""
    import hashlib

    digest = hashlib.sha256()

    def add(*texts: str) -> None:
        # Lengths go first, so that moving a character to the next field changes the digest.
        digest.update(len(texts).to_bytes(8, "big"))
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)

    instruction = task.instruction
    add(task.name, instruction.definition)
    for examples in (instruction.positive_examples, instruction.negative_examples):
        add(str(len(examples)))
        for example in examples:
            add(example.input, example.output, example.explanation)
    add(str(len(task.instances)))
    for instance in task.instances:
        add(instance.id, instance.input, *instance.outputs)
    return digest.digest()
