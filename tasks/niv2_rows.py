"""NIV2's schema as TFDS features, and rows read back from disk without TensorFlow."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ait_jax.tasks.prepared_folder import damaged, local_copies

from ait_jax.errors import UserError, shown
from ait_jax.pool import Example, Instance, Instruction, Task
from ait_jax.runtime import buckets, strict_json
from ait_jax.runtime.files import as_path

VERSION = "1.0.0"
# Files kept open; a pool has more tasks than a process may have open files.
_MAX_OPEN_TASKS = 128

# Columns -> fields of `Task`.
_KINDS = ("input", "output", "instruction")
_LANGUAGES = {f"{kind}_language": f"{kind}_languages" for kind in _KINDS}
# Metadata fields that every NIV2 file has -> their columns; others are in `other_fields`.
_METADATA = ("Contributors", "Source", "URL", "Reasoning", "Domains", "Instance License")
_METADATA_COLUMNS = {field: field.lower().replace(" ", "_") for field in _METADATA}


def instance_features() -> tfds.features.FeaturesDict:
    """One row per instance; `outputs` are all its references."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "input": tfds.features.Text(),
            "outputs": tfds.features.Sequence(tfds.features.Text()),
        }
    )


def task_features() -> tfds.features.FeaturesDict:
    """One row per task: all of its JSON file except the instances.

    `split` is the TFDS split of the configuration `instances` that holds the instances,
    `metadata_fields` the names of the file's metadata fields, in its order (an absent field and
    an empty one differ), `other_fields` the JSON of those without a column.
    """
    texts = tfds.features.Sequence(tfds.features.Text())
    examples = tfds.features.Sequence(
        {key: tfds.features.Text() for key in ("input", "output", "explanation")}
    )
    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "split": tfds.features.Text(),
            "num_instances": tfds.features.Scalar(dtype=np.int64),
            "definition": texts,
            "positive_examples": examples,
            "negative_examples": examples,
            "categories": texts,
            **{column: texts for column in (*_LANGUAGES, *_METADATA_COLUMNS.values())},
            "metadata_fields": texts,
            "other_fields": tfds.features.Text(),
        }
    )


def task_to_row(task: Task, split: str) -> dict[str, Any]:
    """Returns the row of `task` for `task_features()`; its instances go to `split`."""
    metadata = task.metadata
    other = {key: list(values) for key, values in metadata.items() if key not in _METADATA_COLUMNS}
    return {
        "name": task.name,
        "split": split,
        "num_instances": len(task.instances),
        "definition": [task.instruction.definition, *task.further_definitions],
        "positive_examples": [vars(example) for example in task.instruction.positive_examples],
        "negative_examples": [vars(example) for example in task.instruction.negative_examples],
        "categories": list(task.categories),
        **{column: list(getattr(task, field)) for column, field in _LANGUAGES.items()},
        **{column: list(metadata.get(key, ())) for key, column in _METADATA_COLUMNS.items()},
        "metadata_fields": list(metadata),
        "other_fields": json.dumps(other, ensure_ascii=False),
    }


def task_from_row(row: Mapping[str, Any], instances: Sequence[Instance]) -> Task:
    """Returns the task that `task_to_row` made into `row`, with the instances given."""
    definitions = _texts(row["definition"])
    other = strict_json.loads(
        row["other_fields"], f"the prepared task {shown(row['name'].decode())}"
    )
    return Task(
        name=row["name"].decode(),
        instruction=Instruction(
            definition=definitions[0],
            positive_examples=_examples(row["positive_examples"]),
            negative_examples=_examples(row["negative_examples"]),
        ),
        instances=instances,
        categories=_texts(row["categories"]),
        metadata={
            key: tuple(other[key]) if key in other else _texts(row[_METADATA_COLUMNS[key]])
            for key in _texts(row["metadata_fields"])
        },
        further_definitions=definitions[1:],
        **{field: _texts(row[column]) for column, field in _LANGUAGES.items()},
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)


def _examples(columns: Mapping[str, Any]) -> tuple[Example, ...]:
    return tuple(
        Example(input=i.decode(), output=o.decode(), explanation=e.decode())
        for i, o, e in zip(columns["input"], columns["output"], columns["explanation"], strict=True)
    )


# The fingerprint is part of both keys: a pool that was replaced is opened again.
@functools.lru_cache(maxsize=4)
def _open_builder(directory: str, fingerprint: str, config: str) -> Any:
    folder = as_path(directory) / config / VERSION
    if not buckets.is_local(folder):
        folder = local_copies(folder, fingerprint, [p.name for p in folder.glob("*.json")])
    return tfds.builder_from_directory(folder)


@functools.lru_cache(maxsize=_MAX_OPEN_TASKS)
def _open_split(
    directory: str, fingerprint: str, config: str, split: str
) -> Sequence[Mapping[str, Any]]:
    builder = _open_builder(directory, fingerprint, config)
    folder = as_path(directory) / config / VERSION
    # ArrayRecord reads only local files. A task's file is fetched when the task is first read.
    local_copies(folder, fingerprint, sorted(builder.info.splits[split].filenames))
    return builder.as_data_source(split=split)


def close_all() -> None:
    """Forgets what is open: files may have been replaced under the same fingerprint."""
    _open_builder.cache_clear()
    _open_split.cache_clear()


def read_rows(
    directory: str,
    fingerprint: str,
    config: str,
    split: str,
    positions: Sequence[int] | None = None,
) -> Sequence[Mapping[str, Any]]:
    """Returns rows of a split, all or those at `positions`, as TFDS decodes them (bytes, arrays).

    Args:
      directory: of the prepared pool, `<data_dir>/niv2`.
      fingerprint: of its source.
      config: "instances" or "tasks".
      split: of that configuration.
      positions: in the split.

    Raises:
      UserError: the files are damaged.
    """
    try:
        rows = _open_split(directory, fingerprint, config, split)
        # Not rows.__getitems__: it starts threads, which costs more than reading a few rows.
        return [rows[i] for i in (range(len(rows)) if positions is None else positions)]
    except UserError:
        raise
    except Exception as error:  # TFDS, ArrayRecord and protobuf have no class in common
        remedy = "prepare NIV2 again with overwrite"
        raise damaged(as_path(directory) / config, error, remedy) from error


def read_instances(
    positions: Sequence[int], directory: str, fingerprint: str, split: str
) -> tuple[Instance, ...]:
    """Returns instances of the task whose split is given; arguments as of `read_rows`."""
    rows = read_rows(directory, fingerprint, "instances", split, positions)
    return tuple(
        Instance(row["id"].decode(), row["input"].decode(), _texts(row["outputs"])) for row in rows
    )
