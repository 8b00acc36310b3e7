"""The TFDS builder of Natural Instructions v2; `ait_jax.tasks.niv2` says how the data lies."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from ait_jax.tasks import niv2_schema
from ait_jax.tasks.niv2_source import Clone
from ait_jax.tasks.task_names import word_names

from ait_jax.errors import UserError
from ait_jax.pool.pool import Task, read_task

NAME = "niv2"
TASKS_SPLIT = "tasks"

ReadTask = Callable[[Path], Task | None]


class Niv2(tfds.core.GeneratorBasedBuilder):
    """NIV2 with its full schema; see `ait_jax.tasks.niv2` for the layout.

    `tfds.load("niv2", ...)` finds it once `ait_jax.tasks.niv2` is imported. The clone is TFDS's
    manual directory; `prepare` adds what TFDS has not: the record of the source,
    skipping of bad files, both configurations at once or neither.

    ArrayRecord is read by `tfds.data_source`, and by `tfds.load` through `_as_dataset` below. Where a
    version is asked for by name TFDS uses the files without this class and can only do the former:
    `seqio.TfdsDataSource("niv2/instances:1.0.0", ...)` therefore needs a keyword for this class, as in
    `tfds_builder_kwargs={"task_paths": None}`. `ait_jax.tasks.registry` needs none of that.

    Args:
      task_paths: the task files, if not all of the clone's.
      read: path -> the task, or None to leave it out (only in the configuration `tasks`).
      **builder: as for every TFDS builder (`config`, `data_dir`, ...).
    """

    name = NAME
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Full schema, ArrayRecord."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="instances", description="One split per task: its instances."),
        tfds.core.BuilderConfig(
            name="tasks", description="One row per task: all but its instances."
        ),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "instances"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "A clone of https://github.com/allenai/natural-instructions, with tasks/ and splits/ "
        "(tfds.download.DownloadConfig(manual_dir=CLONE))."
    )
    # Where TFDS looks for a data set's description; it cannot infer the folder of a mapped package.
    pkg_dir_path = tfds.core.Path(__file__).parent
    # Nothing is downloaded. Left to itself TFDS 4.9.10 looks for checksums with a library that
    # it does not depend on (importlib_resources).
    url_infos = {}

    def __init__(
        self,
        *,
        task_paths: Sequence[Path] | None = None,
        read: ReadTask = read_task,
        **builder: Any,
    ) -> None:
        self._task_paths = task_paths
        self._read = read
        builder.setdefault("file_format", "array_record")
        super().__init__(**builder)

    def _info(self) -> tfds.core.DatasetInfo:
        is_tasks = self.builder_config.name == "tasks"
        return tfds.core.DatasetInfo(
            builder=self,
            description="Super-NaturalInstructions (Natural Instructions v2) with every field.",
            homepage="https://instructions.apps.allenai.org",
            features=niv2_schema.task_features() if is_tasks else niv2_schema.instance_features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        paths = self._task_paths
        if paths is None:
            paths = Clone(dl_manager.manual_dir).task_paths
        if self.builder_config.name == "tasks":
            return {TASKS_SPLIT: self._generate_tasks(paths)}
        splits = split_names(paths)
        return {splits[path.name]: self._generate_examples(path) for path in paths}

    def _generate_tasks(self, paths: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        splits = split_names(paths)
        found = False
        for index, path in enumerate(paths):
            task = self._read(path)
            if task is not None:
                found = True
                yield index, niv2_schema.task_to_row(task, splits[path.name])
        if not found:
            raise UserError(
                f"none of its {len(paths)} task files can be read; on_bad_task='error' says why for "
                f"{str(paths[0])!r}."
            )

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, instance in enumerate(self._read(path).instances):
            yield index, niv2_schema.instance_to_row(instance)

    def _as_dataset(self, split, decoders=None, read_config=None, shuffle_files=False):
        # TFDS reads ArrayRecord without TensorFlow only; this makes `tfds.load` and
        # `seqio.TfdsDataSource` work as well.
        import tensorflow as tf

        source = self.as_data_source(split=split, decoders=decoders)
        dataset = tf.data.Dataset.from_generator(
            lambda: iter(source), output_signature=self.info.features.get_tensor_spec()
        )
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(source)))
        context = read_config and read_config.input_context
        if context and context.num_input_pipelines > 1:
            dataset = dataset.shard(context.num_input_pipelines, context.input_pipeline_id)
        return dataset

    # TFDS would print to standard output, which belongs to the command.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def split_names(paths: Sequence[Path]) -> dict[str, str]:
    """Returns the TFDS split for the name of each task file."""
    words = word_names(path.name.removesuffix(".json") for path in paths)
    return {path.name: words[path.name.removesuffix(".json")] for path in paths}
