"""likelihoods.parquet and task_scores.parquet: written whole, read with clear errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ait_jax import files
from ait_jax.errors import UserError
from ait_jax.uncertainty import LikelihoodTable, TaskScores

# One row per (instance, prompt); prompt 0 is the original instruction.
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


def _schema():
    import pyarrow as pa

    text = {"task", "instance_id", "answer"}
    return pa.schema(
        [
            (name, pa.string() if name in text else pa.int32())
            for name in COLUMNS
            if name != "log_likelihood"
        ]
        + [("log_likelihood", pa.float32())]
    )


def write_rows(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes one table of `COLUMNS`."""
    import pyarrow as pa

    _write(path, pa.table({name: columns[name] for name in COLUMNS}, schema=_schema()))


def read_rows(path: Path) -> dict[str, list[Any]]:
    """Returns the columns of a table; UserError if it is truncated or of another layout."""
    table = _read(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}; delete it to score again.")
    return {name: table[name].to_pylist() for name in COLUMNS}


def concatenate(parts: Sequence[Path], path: Path) -> None:
    """Writes the rows of `parts`, in that order, as one table."""
    import pyarrow as pa

    _write(path, pa.concat_tables([_read(part) for part in parts]).combine_chunks())


def read_likelihoods(path: Path) -> LikelihoodTable:
    """Returns what `uncertainty.task_scores` takes."""
    columns = read_rows(path)
    names = ("task", "instance_id", "prompt", "log_likelihood")
    return LikelihoodTable.from_columns(*(columns[name] for name in names), source=str(path))


def write_task_scores(path: Path, scores: TaskScores) -> None:
    import pyarrow as pa

    _write(path, pa.table(scores.columns()))


def read_task_scores(path: Path) -> TaskScores:
    return TaskScores.from_columns(_read(path).to_pydict())


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with files.replace_with(path) as temporary:
        pq.write_table(table, temporary)


def _read(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} cannot be read as parquet ({str(error).splitlines()[0]}); "
            "delete it and run the same command to make it again."
        ) from error
