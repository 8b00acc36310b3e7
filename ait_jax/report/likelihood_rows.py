"""The rows of some tasks in likelihoods.parquet, read without the others."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ait_jax.runtime import files
from ait_jax.scorer.likelihoods import check_columns, errors_of, typed

_COLUMNS = ("task", "instance_id", "prompt", "answer", "num_prompt_tokens", "log_likelihood")
_TEXTS = ("task", "instance_id", "answer")


@dataclass
class ScoredInstance:
    """A task's instance as it was scored.

    Attributes:
      answer: the model's own, or the gold one.
      log_likelihood: prompt j -> of the answer; a race skips some.
      prompt_tokens: prompt j -> tokens of the whole prompt.
    """

    answer: str
    log_likelihood: dict[int, float] = field(default_factory=dict)
    prompt_tokens: dict[int, int] = field(default_factory=dict)


class LikelihoodRows:
    """An open likelihoods.parquet, made by `opened`, and its `tasks` in the order of the file."""

    def __init__(self, path: Any, file: Any) -> None:
        self._path, self._file = path, file
        # Task -> the row groups with its rows: a race writes them in several waves.
        self._groups: dict[str, list[int]] = {}
        for group in range(file.num_row_groups):
            names = typed(path, file.read_row_group(group, ["task"]))["task"]
            for name in names.unique().to_pylist():
                self._groups.setdefault(name, []).append(group)
        self.tasks = tuple(self._groups)

    def read(self, tasks: Collection[str]) -> Any:
        """Returns a table of the rows of those of `tasks` that have any, a few bytes each.

        Raises:
          UserError: the file is damaged.
        """
        import pyarrow as pa

        wanted = {name for name in tasks if name in self._groups}
        groups = sorted({group for name in wanted for group in self._groups[name]})
        columns = list(_COLUMNS)
        with errors_of(self._path):
            # Of no group if there is no such task: an empty table.
            found = [_only(self._file.read_row_groups([], columns), wanted)]
            rows = (typed(self._path, self._file.read_row_group(g, columns)) for g in groups)
            found += [_only(each, wanted) for each in rows]
        return pa.concat_tables(found).unify_dictionaries().combine_chunks()


def scored_instances(table: Any, tasks: Collection[str]) -> dict[str, dict[str, ScoredInstance]]:
    """Returns {task: {instance id: how it was scored}} for those of `tasks` in the `table`."""
    found: dict[str, dict[str, ScoredInstance]] = {}
    rows = _only(table, tasks)
    columns = [rows[name].to_pylist() for name in _COLUMNS]
    for task, instance, j, answer, tokens, value in zip(*columns, strict=True):
        scored = found.setdefault(task, {}).setdefault(instance, ScoredInstance(answer))
        scored.log_likelihood[j] = value
        scored.prompt_tokens[j] = tokens
    return found


def _only(table: Any, tasks: Collection[str]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.field("task").isin(pa.array(sorted(tasks), pa.string())))


@contextmanager
def opened(path: Any) -> Iterator[LikelihoodRows]:
    """Yields the rows of a table. Raises UserError: it cannot be read."""
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        with errors_of(path):
            local = stack.enter_context(files.local_copy(path))
            check_columns(path, pq.read_schema(local).names, _COLUMNS)
            file = stack.enter_context(pq.ParquetFile(local, read_dictionary=list(_TEXTS)))
            rows = LikelihoodRows(path, file)
        yield rows
