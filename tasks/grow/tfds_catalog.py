"""The catalog of datasets that the installed TensorFlow Datasets carries, as metadata.

Descriptions, features, tags and licenses are in TFDS's builders: no network, no download. Builders
that keep their features elsewhere (robotics data behind gs://), or that need a library that is not
installed, are counted by reason.
"""

import functools
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ait_jax.tasks.grow.dataset import Dataset, Field, Tally, class_field, is_media
from ait_jax.tasks.grow.roles import language_name

from ait_jax.errors import UserError, nearest
from ait_jax.runtime.terminal import quiet_stderr

_GROUP = "TFDS catalog"
# Configurations are named by language if they name at least this many languages.
_NAMED_BY_LANGUAGE = 3
_LANGUAGE_ATTRIBUTES = ("language", "lang", "languages", "language_pair", "target_language")
# Builders that read even their features from gs:// buckets: by base class, or by name.
_ROBOTICS_BASE = "DatasetImporterBuilder"
_REMOTE = ("aloha_mobile", "asimov_", "rlu_rwrl")
# Kind of a NumPy type -> kind of a field.
_SCALARS = dict.fromkeys("OSU", "text") | dict.fromkeys("iuf", "number") | {"b": "boolean"}


def read_catalog(tally: Tally, names: Sequence[str] = ()) -> Iterator[Dataset]:
    """Yields a dataset for every configuration of every builder, without rows.

    `tally` counts builders and configurations, the unreadable ones by reason; without `names` of
    builders all are read.

    Raises:
      UserError: TFDS has no builder of that name.
    """
    known = tfds.list_builders(with_community_datasets=False)
    for name in names:
        if name not in known:
            raise UserError(
                f"--from=tfds:{name}: TFDS {tfds.__version__} has no dataset of that name."
                + nearest(name, known)
            )
    logging.getLogger("absl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as empty:
        for name in names or known:
            yield from _builder_datasets(name, empty, tally)


def _builder_datasets(name: str, data_dir: str, tally: Tally) -> Iterator[Dataset]:
    builder_class = _quietly(tfds.builder_cls, name)
    if isinstance(builder_class, Exception):
        tally.add(_GROUP, f"builder does not import: {_reason(builder_class)}", name)
        return
    is_robotics = any(base.__name__ == _ROBOTICS_BASE for base in builder_class.__mro__)
    if is_robotics or name.startswith(_REMOTE):
        tally.add(_GROUP, "builder keeps its features in a bucket, not in the package", name)
        return
    configs = [config.name for config in builder_class.BUILDER_CONFIGS] or [None]
    codes = {code for config in configs if config and (code := _language_code(config))}
    by_language = len(codes) >= _NAMED_BY_LANGUAGE
    tally.add(_GROUP, "builders read", name)
    for config in configs:
        called = f"{name}-{config}" if config else name
        dataset = _quietly(_dataset, builder_class, data_dir, config, by_language)
        if isinstance(dataset, Exception):
            tally.add(_GROUP, f"no features offline: {_reason(dataset)}", called)
            continue
        tally.add(_GROUP, "configurations read", called)
        yield dataset


def _quietly(make: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `make` returns or raises: builders may raise anything."""
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


def _dataset(builder_class: Any, data_dir: str, config: str | None, by_language: bool) -> Dataset:
    # Not tfds.builder, which would look for prepared data of that name.
    builder = builder_class(data_dir=data_dir, **({"config": config} if config else {}))
    info, settings = builder.info, builder.builder_config
    tags = set(builder.get_metadata().tags) | set(info.tags if hasattr(info, "tags") else ())
    said = (getattr(settings, "description", None) or "", info.description or "")
    tasks = sorted(tag.removeprefix("ml.task.") for tag in tags if tag.startswith("ml.task."))
    return Dataset(
        name=f"{builder.name}-{config}" if config else builder.name,
        source=f"tfds {tfds.__version__}",
        description="\n\n".join(text.strip() for text in said if text.strip()),
        fields=_fields(info.features),
        license=(info.redistribution_info and info.redistribution_info.license) or "",
        languages=_languages(info.features, settings, tags, by_language),
        website=info.homepage or "",
        task_categories=tuple(tasks),
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
        # Not int2str, which would read names from files on the network.
        return class_field(name, tuple(getattr(feature, "_int2str", None) or ()))
    if isinstance(feature, tfds.features.Sequence):
        inner = _field(name, feature.feature)
        return Field(name, "texts" if inner.kind == "text" else _of_many(inner.kind))
    if isinstance(feature, (tfds.features.FeaturesDict, tfds.features.Dataset)):
        is_dict = isinstance(feature, tfds.features.FeaturesDict)
        inner = feature.values() if is_dict else [feature.feature]
        return Field(name, _of_many(*(_field(name, f).kind for f in inner)))
    is_scalar = feature.shape == ()
    return Field(
        name, _SCALARS.get(np.dtype(feature.np_dtype).kind, "other") if is_scalar else "other"
    )


def _of_many(*kinds: str) -> str:
    return "media" if "media" in kinds else "nested"


def _languages(features: Any, config: Any, tags: set[str], by_language: bool) -> tuple[str, ...]:
    """Returns a configuration's languages, by the most reliable evidence there is."""
    if isinstance(features, tfds.features.TranslationVariableLanguages):
        return ("several", "languages")
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    if is_dict and features and all(language_name(name) for name in features):
        return tuple(features)
    for attribute in _LANGUAGE_ATTRIBUTES:
        value = getattr(config, attribute, None)
        codes = (value,) if isinstance(value, str) else tuple(value or ())
        if codes and all(isinstance(code, str) for code in codes):
            return tuple(code.lower() for code in codes)
    if by_language and (code := _language_code(config.name)):
        return (code,)
    said = sorted(tag for tag in tags if re.fullmatch(r"content\.language\.\w+", tag))
    if not said and "content.multilingual" in tags:
        return ("several", "languages")
    return tuple(tag.rpartition(".")[2] for tag in said)


@functools.cache
def _language_code(name: str) -> str:
    """Returns the language code that a configuration's name ends or begins with, or ""."""
    parts = re.split(r"[._-]", name.lower())
    return next((part for part in (parts[-1], parts[0]) if language_name(part)), "")
