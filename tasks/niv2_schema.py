"""NIV2's schema as TFDS features: rows of tasks, rows of instances, and back to `Task`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ait_jax.pool.pool import Example, Instance, Instruction, Task

# Metadata fields that every NIV2 file has, with their columns. A field that is in none of
# them, somebody's own, is kept in the column `other_fields`.
_METADATA_COLUMNS = {
    "Contributors": "contributors",
    "Source": "source",
    "URL": "url",
    "Reasoning": "reasoning",
    "Domains": "domains",
    "Instance License": "instance_license",
}


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
    """One row per task: everything of its JSON file but the instances.

    `split` is the TFDS split of the configuration `instances` that holds the instances,
    `metadata_fields` the names of the metadata fields that the file has, in its order
    (an absent field and an empty one differ), `other_fields` JSON of those without a column.
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
            "input_language": texts,
            "output_language": texts,
            "instruction_language": texts,
            **{column: texts for column in _METADATA_COLUMNS.values()},
            "metadata_fields": texts,
            "other_fields": tfds.features.Text(),
        }
    )


def instance_to_row(instance: Instance) -> dict[str, Any]:
    return {"id": instance.id, "input": instance.input, "outputs": list(instance.outputs)}


def instance_from_row(row: Mapping[str, Any]) -> Instance:
    return Instance(
        id=row["id"].decode(), input=row["input"].decode(), outputs=_texts(row["outputs"])
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
        "input_language": list(task.input_languages),
        "output_language": list(task.output_languages),
        "instruction_language": list(task.instruction_languages),
        **{column: list(metadata.get(key, ())) for key, column in _METADATA_COLUMNS.items()},
        "metadata_fields": list(metadata),
        "other_fields": json.dumps(other, ensure_ascii=False),
    }


def task_from_row(row: Mapping[str, Any], instances: Sequence[Instance]) -> Task:
    """Returns the task of which `task_to_row` made `row`, with the instances given."""
    definitions = _texts(row["definition"])
    other = json.loads(row["other_fields"].decode())
    return Task(
        name=row["name"].decode(),
        instruction=Instruction(
            definition=definitions[0],
            positive_examples=_examples(row["positive_examples"]),
            negative_examples=_examples(row["negative_examples"]),
        ),
        instances=instances,
        categories=_texts(row["categories"]),
        input_languages=_texts(row["input_language"]),
        output_languages=_texts(row["output_language"]),
        instruction_languages=_texts(row["instruction_language"]),
        metadata={
            key: _texts(row[_METADATA_COLUMNS[key]])
            if key in _METADATA_COLUMNS
            else tuple(other[key])
            for key in _texts(row["metadata_fields"])
        },
        further_definitions=definitions[1:],
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)


def _examples(columns: Mapping[str, Any]) -> tuple[Example, ...]:
    return tuple(
        Example(input=i.decode(), output=o.decode(), explanation=e.decode())
        for i, o, e in zip(columns["input"], columns["output"], columns["explanation"], strict=True)
    )
