"""Hugging Face dataset cards: README.md files with a YAML header, in a folder of them."""

import dataclasses
import errno
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ait_jax.tasks.grow.dataset import Dataset, Field, Tally, class_field, is_media

from ait_jax.errors import UserError, shown
from ait_jax.runtime import disk
from ait_jax.runtime.files import read_bytes, text_name

_GROUP = "cards"
_MAX_CARD_BYTES = 5_000_000
# Blocks of the header that are read; others (tables of checksums, of results) can be huge.
_KEYS = (
    "license", "licence", "language", "languages", "task_categories", "task_ids", "dataset_info",
)  # fmt: skip
_MAX_BLOCK = 500_000
_MAX_NODES, _MAX_DEPTH = 50_000, 20
# Patterns here must not go back over what they have read: a card may be one line of 5 MB.
_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
_LABEL = re.compile(r"(?<![\w-])([a-z][\w-]*) \((\d{1,9})\)")
_SUMMARY, _FIELDS = "dataset summary", "data fields"
_MISSING = "more information needed"


def read_cards(folder: Any, tally: Tally) -> Iterator[Dataset]:
    """Yields a dataset for every configuration of every card below `folder`.

    A card is `<owner>/<name>/README.md`, `<name>/README.md` or `<name>.md`; its path without
    these endings is the dataset's name. The header gives license, languages and task
    categories, and the columns if it has `dataset_info`; from the text the section "Dataset
    Summary" and, if the header has no columns, those of "Data Fields".

    `tally` counts all cards, the unreadable ones by reason.

    Raises:
      UserError: there is no card.
    """
    folder = disk.local_path(folder)
    paths = sorted(
        path
        for path in folder.rglob("*.md")
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise UserError(f"{shown(str(folder))} has no dataset cards (NAME/README.md or NAME.md).")
    for path in paths:
        name = text_name(Path(_name(path.relative_to(folder))))
        read = _read(path)
        if isinstance(read, str):
            tally.add(_GROUP, f"unreadable: {read}", name)
        else:
            tally.add(_GROUP, "read", name)
            yield from _datasets(name, str(folder), *read)


def _name(path: Path) -> str:
    if path.name.lower() == "readme.md":
        return path.parent.as_posix() if path.parent.parts else "card"
    return path.with_suffix("").as_posix()


def _read(path: Path) -> tuple[dict[str, Any], str] | str:
    """Returns the header's values and the text of a card, or what is wrong with it."""
    try:
        text = read_bytes(path, _MAX_CARD_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return "not UTF-8"
    except OSError as error:
        return "larger than 5 MB" if error.errno == errno.EFBIG else error.strerror or str(error)
    match = re.match(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", text, re.DOTALL)
    if not match:
        return "no YAML header"
    values = _header_values(match.group(1))
    return values if isinstance(values, str) else (values, text[match.end() :])


def _header_values(header: str) -> dict[str, Any] | str:
    """Returns the values of the blocks in _KEYS, or what is wrong with the header."""
    values: dict[str, Any] = {}
    for block in re.split(r"^(?=[A-Za-z_])", header, flags=re.MULTILINE):
        key = block.partition(":")[0].strip()
        if key not in _KEYS:
            continue
        if len(block) > _MAX_BLOCK:
            return f"{key} is too long"
        try:
            parsed = _load(block)
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
            return "malformed YAML"
        if isinstance(parsed, dict):
            values.update(parsed)
    return values


def _load(block: str) -> Any:
    # Aliases can expand a small text without limit; no card needs them.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for count, event in enumerate(yaml.parse(block, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or count > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError("aliases, too many values, or nested too deeply")
    return yaml.load(block, Loader=loader)


def _datasets(name: str, source: str, values: Mapping[str, Any], body: str) -> Iterator[Dataset]:
    sections = _sections(body)
    summary = sections.get(_SUMMARY, "")
    about = Dataset(
        name,
        source,
        description="" if _MISSING in summary.lower() else " ".join(summary.split()),
        license=" and ".join(_texts(values.get("license", values.get("licence")))),
        languages=_texts(values.get("language", values.get("languages"))),
        website=f"https://huggingface.co/datasets/{name}",
        task_categories=_texts(values.get("task_categories")) + _texts(values.get("task_ids")),
        family=name,
    )
    infos = values.get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos]
    infos = [info for info in infos if info and isinstance(info, dict)]
    if not infos:
        yield dataclasses.replace(about, fields=_data_fields(sections))
    for info in infos:
        config = info.get("config_name")
        named = f"{name}-{config}" if isinstance(config, str) and config != "default" else name
        yield dataclasses.replace(about, name=named, fields=_features(info.get("features")))


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict):  # by configuration
        values = [text for part in value.values() for text in _texts(part)]
    # YAML reads the language code "no" as false.
    texts = ("no" if item is False else item for item in values)
    return tuple(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text))


def _sections(body: str) -> dict[str, str]:
    """Returns the two sections that are read, each up to the next heading of its level or above."""
    headings = [(h, h.group(2).rstrip().rstrip("#").rstrip()) for h in _HEADING.finditer(body)]
    sections: dict[str, str] = {}
    for i, (heading, text) in enumerate(headings):
        title = text.lower()
        if title in sections or title not in (_SUMMARY, _FIELDS):
            continue
        level = len(heading.group(1))
        after = itertools.islice(headings, i + 1, None)
        end = next((h.start() for h, _ in after if len(h.group(1)) <= level), len(body))
        sections[title] = body[heading.end() : end].strip()
    return sections


def _data_fields(sections: Mapping[str, str]) -> tuple[Field, ...]:
    """Reads lines like "- `question`: a string feature." of the section "Data Fields"."""
    fields: dict[str, Field] = {}
    for line in sections.get(_FIELDS, "").splitlines():
        before, _, rest = line.partition("`")
        name, closing, said = rest.partition("`")
        name = name.strip("*").strip(": ")
        if before[:1] in ("-", "*", "+") and not before[1:].strip(" \t*") and name and closing:
            said = said.lstrip("*").lower().replace("`", "")
            fields.setdefault(name, _described(name, said))
    return tuple(fields.values())


def _described(name: str, said: str) -> Field:
    if is_media(name) or re.search(r"\b(image|audio|video)\b", said):
        return Field(name, "media")
    if "dictionary" in said or "nested" in said:
        return Field(name, "nested")
    if re.search(r"list of .{0,20}string|sequence of .{0,20}string", said):
        return Field(name, "texts")
    labels = _LABEL.findall(said)
    if "classification label" in said and len(labels) >= 2:
        by_value = sorted(labels, key=lambda label: int(label[1]))
        return Field(name, "label", tuple(label for label, _ in by_value))
    if re.search(r"\bbool", said):
        return Field(name, "boolean")
    if re.search(r"\b(u?int(8|16|32|64)?|integer|float(16|32|64)?|classification label)\b", said):
        return Field(name, "number")
    return Field(name, "text")


def _features(features: Any) -> tuple[Field, ...]:
    """Reads the columns of a header's `dataset_info`."""
    return tuple(
        _feature(feature["name"], feature)
        for feature in (features if isinstance(features, list) else ())
        if isinstance(feature, dict) and isinstance(feature.get("name"), str)
    )


def _feature(name: str, feature: Mapping[str, Any]) -> Field:
    dtype = feature.get("dtype")
    if is_media(name) or dtype in ("image", "audio", "video"):
        return Field(name, "media")
    if "sequence" in feature or "list" in feature:
        inner = feature.get("sequence", feature.get("list"))
        return Field(name, "texts" if inner in ("string", "large_string") else "nested")
    if isinstance(dtype, dict) and isinstance(dtype.get("class_label"), dict):
        names = dtype["class_label"].get("names")
        names = list(names.values()) if isinstance(names, dict) else names
        labels = tuple(map(str, names)) if isinstance(names, list) else ()
        return class_field(name, labels)
    if dtype in ("string", "large_string"):
        return Field(name, "text")
    if dtype == "bool":
        return Field(name, "boolean")
    if isinstance(dtype, str) and re.match(r"u?int|float", dtype):
        return Field(name, "number")
    return Field(name, "nested")
