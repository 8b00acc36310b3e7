"""likelihoods.parquet and task_scores.parquet: written whole, read with clear errors.

Paths are local or `etils.epath`'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ait_jax.errors import UserError, first_line, shown, shown_path
from ait_jax.runtime import files
from ait_jax.selection.likelihood_table import Encoded, LikelihoodTable
from ait_jax.selection.uncertainty import TaskScores

# One row per (instance, prompt); prompt 0 is the original instruction. Of a decoded answer, its row
# has the log-likelihood of the very tokens that were decoded; other rows have none.
GENERATED = "generated_log_likelihood"
COLUMNS = (
    "task",
    "instance_id",
    "prompt",
    "answer",
    "num_answer_tokens",
    "num_prompt_tokens",
    "num_tokens_cut",
    "log_likelihood",
)
_ALL_COLUMNS = (*COLUMNS, GENERATED)
_TEXT_COLUMNS = ("task", "instance_id", "answer")
_MOST_ROWS = 500_000_000
_SCORE_AGAIN = "delete it to score again"
# (task, instance id) -> (answer, its log-likelihood under the original prompt)
KnownAnswers = dict[tuple[str, str], tuple[str, float]]


def schema() -> Any:
    """Returns the table's Arrow schema: text, int32, and float32 log-likelihoods."""
    import pyarrow as pa

    kinds: dict[str, Any] = dict.fromkeys(_TEXT_COLUMNS, pa.string())
    kinds |= dict.fromkeys(("log_likelihood", GENERATED), pa.float32())
    return pa.schema([(name, kinds.get(name, pa.int32())) for name in _ALL_COLUMNS])


def write_rows(path: Any, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes one table of `COLUMNS`; nothing was decoded if there is no column `GENERATED`."""
    import pyarrow as pa

    columns = {GENERATED: [None] * len(columns["task"]), **columns}
    _write(path, pa.table({name: columns[name] for name in _ALL_COLUMNS}, schema=schema()))


def read_rows(path: Any) -> dict[str, list[Any]]:
    """Returns the `COLUMNS` of a table.

    Raises:
      UserError: the file is truncated or has another layout.
    """
    table = _read(path, COLUMNS)
    return {name: table[name].to_pylist() for name in COLUMNS}


def has_rows(path: Any, planned: Sequence[tuple[str, int]]) -> bool:
    """Says whether a table has rows of these tasks and prompts; UserError as `read_rows`."""
    table = _read(path, _ALL_COLUMNS)
    rows = (table[name].to_pylist() for name in ("task", "prompt"))
    return list(zip(*rows, strict=True)) == planned


def read_answers(path: Any) -> KnownAnswers:
    """Returns the answers of a table that has the original prompts' rows."""
    names = ("task", "instance_id", "answer", "log_likelihood")
    table = _read(path, (*names, "prompt"), filters=[("prompt", "==", 0)])
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {(task, instance): (answer, value) for task, instance, answer, value in rows}


def count_cut(path: Any) -> tuple[int, int]:
    """Returns how many prompts a table has, and how many of them were cut."""
    cut = _read(path, ["num_tokens_cut"])["num_tokens_cut"].to_numpy()
    return len(cut), int(np.count_nonzero(cut))


def concatenate(parts: Sequence[Any], path: Any) -> None:
    """Writes the rows of `parts`, in that order, as one table; holds one row group at a time."""
    import pyarrow.parquet as pq

    with files.replace_with(path) as temporary, pq.ParquetWriter(temporary, schema()) as writer:
        for part in parts:
            for rows in _row_groups(part):
                writer.write_table(rows)


def _row_groups(path: Any) -> Iterator[Any]:
    import pyarrow.parquet as pq

    wanted = schema()
    with errors_of(path), files.local_copy(path) as local, pq.ParquetFile(local) as file:
        check_columns(path, file.schema_arrow.names, _ALL_COLUMNS)
        for group in range(file.num_row_groups):
            columns = list(_ALL_COLUMNS)
            yield file.read_row_group(group, columns).select(columns).cast(wanted)


def read_likelihoods(path: Any) -> LikelihoodTable:
    """Returns the table that `uncertainty.task_scores` takes."""
    names = ("task", "instance_id", "prompt", "log_likelihood")
    options = {"optional": (GENERATED,), "read_dictionary": ["task", "instance_id"]}
    table = _read(path, names, **options).unify_dictionaries()
    texts = [table[name].combine_chunks() for name in names[:2]]
    task, instance = (Encoded(t.indices.to_numpy(), t.dictionary.to_pylist()) for t in texts)
    prompt, value = (table[name].to_numpy() for name in names[2:])
    generated = table[GENERATED].to_numpy() if GENERATED in table.column_names else None
    return LikelihoodTable.from_columns(
        task, instance, prompt, value, generated=generated, file=str(path)
    )


def write_task_scores(path: Any, scores: TaskScores) -> None:
    """Writes task_scores.parquet, one row per task."""
    import pyarrow as pa

    _write(path, pa.table(scores.columns()))


def read_task_scores(path: Any) -> TaskScores:
    """Reads task_scores.parquet; UserError if it is damaged or lacks a column."""
    import pyarrow as pa

    counts = {name: pa.int64() for name in TaskScores.column_names() if name.startswith("num_")}
    types = dict.fromkeys(TaskScores.column_names(), pa.float64()) | counts | {"task": pa.string()}
    return TaskScores.from_columns(_read(path, types=types).to_pydict())


def _write(path: Any, table: Any) -> None:
    import pyarrow.parquet as pq

    with files.replace_with(path) as temporary:
        pq.write_table(table, temporary)


def _read(
    path: Any,
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    types: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Returns a table, with only `columns` if they are given.

    Args:
      optional: further columns, which tables of earlier versions lack.
      types: of columns; by default those of `schema`.

    Raises:
      UserError: it is damaged, lacks a column, or one has another type or nulls.
    """
    import pyarrow.parquet as pq

    with errors_of(path), files.local_copy(path) as local:
        names = pq.read_schema(local).names
        check_columns(path, names, columns or ())
        if (count := pq.read_metadata(local).num_rows) > _MOST_ROWS:
            raise UserError(f"{shown_path(path)} says that it has {count:,} rows; {_SCORE_AGAIN}.")
        if columns is not None:
            names = [*columns, *(name for name in optional if name in names)]
        return typed(path, pq.read_table(local, columns=names, **options), types)


def typed(path: Any, table: Any, types: Mapping[str, Any] | None = None) -> Any:
    """Returns a table with `types` (column -> Arrow type) where they are given.

    Args:
      types: of columns; by default those of `schema`.

    Raises:
      UserError: a column has nulls.
      pyarrow.ArrowException: a column has another type, or texts that are not UTF-8.
    """
    import pyarrow as pa

    table.validate(full=True)
    if types is None:
        types = {field.name: field.type for field in schema()}
    for place, field in enumerate(table.schema):
        column = table.column(place)
        wanted = types.get(field.name, field.type)
        if column.null_count and field.name != GENERATED:
            raise UserError(
                f"{shown_path(path)} lacks values in the column {shown(field.name)}; "
                f"{_SCORE_AGAIN}."
            )
        if not pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, column.cast(wanted))
        elif field.type.value_type != wanted:
            raise pa.ArrowInvalid(f"{field.name} has the type {field.type.value_type}")
    return table


def check_columns(path: Any, names: Sequence[str], needed: Sequence[str]) -> None:
    """Refuses a table with the columns `names` that lacks one of those `needed`."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"{shown_path(path)} lacks the column(s) {', '.join(missing)}; {_SCORE_AGAIN}."
        )


@contextmanager
def errors_of(path: Any) -> Iterator[None]:
    """Turns pyarrow's complaints about a file into a UserError that names it."""
    import pyarrow as pa

    try:
        yield
    # ValueError: pyarrow decodes texts late.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{shown_path(path)} cannot be read as parquet ({first_line(error)}); "
            "delete it and run the same command to make it again."
        ) from error
