"""The catalogue of data sets that the installed TensorFlow Datasets carries, as metadata.

Descriptions, features, tags and licences stand in TFDS's builders and need no network; no
data is downloaded. Builders that keep their features elsewhere (robotics data behind gs://),
or that need a library which is not installed, are counted by reason.
"""

import functools
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ait_jax.tasks.grow.dataset import Dataset, Field, class_field, is_media
from ait_jax.tasks.grow.languages import language_name
from ait_jax.tasks.grow.tally import Tally

from ait_jax.errors import UserError, nearest
from ait_jax.runtime.terminal import quiet_stderr

STAGE = "TFDS catalogue"
# Most of a collection's configurations are named by language if so many of them are.
_NAMED_BY_LANGUAGE = 3
_LANGUAGE_ATTRIBUTES = ("language", "lang", "languages", "language_pair", "target_language")
# Builders that read even their features from gs:// buckets: by base class, or by name.
_ROBOTICS_BASE = "DatasetImporterBuilder"
_REMOTE = ("aloha_mobile", "asimov_", "rlu_rwrl")


def read_catalogue(tally: Tally, names: Sequence[str] = ()) -> Iterator[Dataset]:
    """Yields a dataset for every configuration of every builder, without rows.

    Args:
      tally: counts configurations read, and builders and configurations that cannot be.
      names: of builders; all when empty.

    Raises:
      UserError: TFDS has no builder of a name given (with the nearest).
    """
    known = tfds.list_builders(with_community_datasets=False)
    for name in names:
        if name not in known:
            raise UserError(
                f"--from=tfds:{name}: TFDS {tfds.__version__} has no data set of that name."
                + nearest(name, known)
            )
    logging.getLogger("absl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as empty:
        for name in names or known:
            yield from _builder_datasets(name, empty, tally)


def _builder_datasets(name: str, data_dir: str, tally: Tally) -> Iterator[Dataset]:
    builder_class = _quietly(tfds.builder_cls, name)
    if isinstance(builder_class, Exception):
        tally.add(STAGE, f"builder does not import: {_reason(builder_class)}", name)
        return
    is_robotics = any(base.__name__ == _ROBOTICS_BASE for base in builder_class.__mro__)
    if is_robotics or name.startswith(_REMOTE):
        tally.add(STAGE, "builder keeps its features in a bucket, not in the package", name)
        return
    configs = [config.name for config in builder_class.BUILDER_CONFIGS] or [None]
    by_language = _named_by_language([config for config in configs if config])
    tally.add(STAGE, "builders read", name)
    for config in configs:
        called = f"{name}-{config}" if config else name

        def make() -> Dataset:
            # Not tfds.builder, which would look for prepared data of that name.
            builder = builder_class(data_dir=data_dir, **({"config": config} if config else {}))
            return _dataset(builder, called, by_language)

        dataset = _quietly(make)
        if isinstance(dataset, Exception):
            tally.add(STAGE, f"no features offline: {_reason(dataset)}", called)
            continue
        tally.add(STAGE, "configurations read", called)
        yield dataset


def _quietly(make: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `make` returns or raises: builders' modules may do anything at all."""
    with quiet_stderr():
        try:
            return make(*arguments)
        except Exception as error:
            return error


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"needs {error.name}" if error.name else "needs a library that is not installed"
    if isinstance(error, FileNotFoundError):
        return "a file of the package is missing"
    if "gs://" in str(error) or "curl" in str(error) or "HTTP" in str(error):
        return "needs the network"
    return " ".join(str(error).split())[:60] or type(error).__name__


def _dataset(builder: Any, name: str, by_language: bool) -> Dataset:
    info, config = builder.info, builder.builder_config
    tags = set(builder.get_metadata().tags) | set(info.tags if hasattr(info, "tags") else ())
    said = (getattr(config, "description", None) or "").strip()
    licence = info.redistribution_info.license if info.redistribution_info else ""
    return Dataset(
        name=name,
        source=f"tfds {tfds.__version__}",
        description="\n\n".join(text for text in (said, (info.description or "").strip()) if text),
        fields=_fields(info.features),
        licence=licence or "",
        languages=_languages(info.features, config, tags, by_language),
        website=info.homepage or "",
        task_categories=tuple(
            sorted(tag.removeprefix("ml.task.") for tag in tags if tag.startswith("ml.task."))
        ),
        family=f"{builder.name} (tfds)",
    )


def _fields(features: Any) -> tuple[Field, ...]:
    if not isinstance(features, tfds.features.FeaturesDict):
        return ()
    return tuple(_field(name, feature) for name, feature in features.items())


def _field(name: str, feature: Any) -> Field:
    media = (tfds.features.Image, tfds.features.Audio, tfds.features.Video)
    if isinstance(feature, media) or is_media(name):
        return Field(name, "media")
    if isinstance(feature, tfds.features.ClassLabel):
        # Names that lie in files on the network are not read; int2str would.
        return class_field(name, tuple(getattr(feature, "_int2str", None) or ()))
    if isinstance(feature, tfds.features.Sequence):
        inner = _field(name, feature.feature)
        return Field(name, "texts" if inner.kind == "text" else _of_many(inner.kind))
    if isinstance(feature, (tfds.features.FeaturesDict, tfds.features.Dataset)):
        return Field(name, _of_many(*(_field(name, f).kind for f in _inner(feature))))
    return Field(name, _scalar_kind(feature.np_dtype) if feature.shape == () else "other")


def _scalar_kind(dtype: Any) -> str:
    kind = np.dtype(dtype).kind
    return {"b": "boolean", "O": "text", "S": "text", "U": "text"}.get(
        kind, "number" if kind in "iuf" else "other"
    )


def _inner(feature: Any) -> Sequence[Any]:
    return list(feature.values()) if hasattr(feature, "values") else [feature.feature]


def _of_many(*kinds: str) -> str:
    return "media" if "media" in kinds else "nested"


def _languages(features: Any, config: Any, tags: set[str], by_language: bool) -> tuple[str, ...]:
    """Returns a configuration's languages, the surest source first."""
    if isinstance(features, tfds.features.TranslationVariableLanguages):
        return ("several", "languages")
    if isinstance(features, tfds.features.FeaturesDict) and features:
        if all(language_name(name) for name in features):
            return tuple(features)
    for attribute in _LANGUAGE_ATTRIBUTES:
        value = getattr(config, attribute, None)
        codes = (value,) if isinstance(value, str) else tuple(value or ())
        if codes and all(isinstance(code, str) for code in codes):
            return tuple(code.lower() for code in codes)
    if by_language and (code := _last_code(config.name)):
        return (code,)
    said = sorted(tag for tag in tags if re.fullmatch(r"content\.language\.\w+", tag))
    if not said and "content.multilingual" in tags:
        return ("several", "languages")
    return tuple(tag.rpartition(".")[2] for tag in said)


def _named_by_language(configs: Sequence[str]) -> bool:
    return len({code for config in configs if (code := _last_code(config))}) >= _NAMED_BY_LANGUAGE


@functools.cache
def _last_code(name: str) -> str:
    """Returns the language code that a configuration's name begins or ends with, or ""."""
    parts = re.split(r"[._-]", name.lower())
    for part in (parts[-1], parts[0]):
        if language_name(part):
            return part
    return ""
