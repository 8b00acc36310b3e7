"""The TFDS builder of Natural Instructions v2 (layout: `ait_jax.tasks.niv2`), and its source."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from ait_jax.tasks import niv2_rows
from ait_jax.tasks.source_files import SourceFiles
from ait_jax.tasks.stored_rows import instance_to_row
from ait_jax.tasks.task_names import word_names

from ait_jax.errors import UserError, shown
from ait_jax.pool import Task, read_task
from ait_jax.pool.splits import read_names
from ait_jax.runtime import disk
from ait_jax.runtime.files import text_name

NAME = "niv2"
TASKS_SPLIT = "tasks"

ReadTask = Callable[[Path], Task | None]


class Clone:
    """A folder (gin name NIV2_DIR) like NIV2's: tasks/*.json and splits/<name>/*_tasks.txt.

    Args:
      directory: the folder.
      skips_unreadable: as of `SourceFiles`.

    Raises:
      UserError: the folder does not exist or has no tasks.
    """

    def __init__(self, directory: Any, skips_unreadable: bool = False) -> None:
        self.directory = disk.local_path(directory)
        label = f"NIV2_DIR = {shown(str(self.directory))}"
        if not self.directory.is_dir():
            raise UserError(
                f"{label} is not a folder; give a clone of Natural Instructions (with tasks/*.json "
                "and splits/)."
            )
        # Hidden files are not tasks: archives made on macOS are full of `._task001.json`.
        self.task_paths = sorted(
            p for p in (self.directory / "tasks").glob("*.json") if not p.name.startswith(".")
        )
        if not self.task_paths:
            raise UserError(f"{label} has no tasks/*.json; give a clone of Natural Instructions.")
        self._split_paths = sorted(self.directory.glob("splits/*/*_tasks.txt"))
        paths = [*self.task_paths, *self._split_paths]
        named = {text_name(path.relative_to(self.directory)): path for path in paths}
        self.files = SourceFiles(label, named, skips_unreadable)

    def read_splits(self) -> dict[str, dict[str, list[str]]]:
        """Returns {"default": {"train_tasks": [names], ...}}. Raises UserError on a bad name."""
        splits: dict[str, dict[str, list[str]]] = {}
        for path in self._split_paths:
            splits.setdefault(path.parent.name, {})[path.stem] = list(read_names(path))
        return splits


class Niv2(tfds.core.GeneratorBasedBuilder):
    """NIV2 with its full schema; see `ait_jax.tasks.niv2` for the layout.

    `tfds.load("niv2", ...)` finds it once `ait_jax.tasks.niv2` is imported. The clone is TFDS's
    manual directory; `niv2.prepare` adds what TFDS lacks: the record of the source, skipping of
    bad files, both configurations at once or neither.

    ArrayRecord is read by `tfds.data_source`, and by `tfds.load` through `_as_dataset` below. Asked
    for a version by name, TFDS reads the files without this class and can do only the former:
    `seqio.TfdsDataSource("niv2/instances:1.0.0", ...)` therefore needs a keyword for this class, as
    in `tfds_builder_kwargs={"task_paths": None}`.

    Args:
      task_paths: the task files, if not all of the clone's.
      read: path -> the task, or None to leave it out.
      **builder: as for every TFDS builder.
    """

    name = NAME
    VERSION = tfds.core.Version(niv2_rows.VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {niv2_rows.VERSION: "Full schema, ArrayRecord."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="instances", description="One split per task: its instances."),
        tfds.core.BuilderConfig(name="tasks", description="One row per task, without instances."),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "instances"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "A clone of https://github.com/allenai/natural-instructions, with tasks/ and splits/ "
        "(tfds.download.DownloadConfig(manual_dir=CLONE))."
    )
    # Where TFDS looks for a dataset's description; it cannot infer the folder of a mapped package.
    pkg_dir_path = tfds.core.Path(__file__).parent
    # Nothing is downloaded. By default TFDS 4.9.10 looks for checksums with a library that it
    # does not depend on (importlib_resources).
    url_infos: ClassVar[dict[str, Any]] = {}

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

    @property
    def _is_tasks(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "tasks"

    def _info(self) -> tfds.core.DatasetInfo:
        is_tasks = self._is_tasks
        return tfds.core.DatasetInfo(
            builder=self,
            description="Super-NaturalInstructions (Natural Instructions v2) with every field.",
            homepage="https://instructions.apps.allenai.org",
            features=niv2_rows.task_features() if is_tasks else niv2_rows.instance_features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        paths = self._task_paths
        if paths is None:
            paths = Clone(dl_manager.manual_dir).task_paths
        if self._is_tasks:
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
                yield index, niv2_rows.task_to_row(task, splits[path.name])
        if not found:
            raise UserError(
                f"none of its {len(paths)} task files can be read; on_bad_task='error' says why "
                f"{shown(str(paths[0]))} cannot."
            )

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        task = self._read(path)
        for index, instance in enumerate(task.instances if task else ()):
            yield index, instance_to_row(instance)

    def _as_dataset(
        self,
        split: Any,
        decoders: Any = None,
        read_config: Any = None,
        shuffle_files: bool = False,
    ) -> Any:
        # TFDS reads ArrayRecord only without TensorFlow; this makes `tfds.load` and
        # `seqio.TfdsDataSource` work, too.
        import tensorflow as tf

        read: Any = self.as_data_source
        source, features = read(split=split, decoders=decoders), self.info.features
        assert features is not None
        signature: Any = features.get_tensor_spec()
        dataset = tf.data.Dataset.from_generator(lambda: iter(source), output_signature=signature)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(source)))
        context = read_config and read_config.input_context
        if context and context.num_input_pipelines > 1:
            dataset = dataset.shard(context.num_input_pipelines, context.input_pipeline_id)
        return dataset

    # TFDS would print to standard output, where only the command's lines belong.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def split_names(paths: Sequence[Path]) -> dict[str, str]:
    """Returns the TFDS split for the name of each task file."""
    words = word_names(path.name.removesuffix(".json") for path in paths)
    return {path.name: words[path.name.removesuffix(".json")] for path in paths}
