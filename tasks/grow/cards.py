"""Hugging Face dataset cards: README.md files with a YAML header, in a folder of them."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ait_jax.tasks.grow.dataset import Dataset, Field, class_field, is_media
from ait_jax.tasks.grow.tally import Tally

from ait_jax.errors import UserError

STAGE = "cards"
_MAX_CARD_BYTES = 5_000_000
# Blocks of the header that matter; others (tables of checksums, of results) can be huge.
_KEYS = ("license", "licence", "language", "languages", "task_categories", "task_ids")
_MAX_BLOCK = 500_000
_MAX_NODES, _MAX_DEPTH = 50_000, 20
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$", re.MULTILINE)
_MISSING = "more information needed"


def read_cards(folder: Any, tally: Tally) -> Iterator[Dataset]:
    """Yields a dataset for every configuration of every card below `folder`.

    A card is `<owner>/<name>/README.md`, `<name>/README.md` or `<name>.md`; its path without
    these endings is the dataset's name. From the header come licence, languages and task
    categories, and the columns where it has `dataset_info`; from the text the section "Dataset
    Summary", the page, and, where the header has none, the columns of "Data Fields".

    Args:
      folder: of cards.
      tally: counts cards read and, by reason, those that cannot be.

    Raises:
      UserError: there is no such folder, or no card in it.
    """
    folder = Path(folder).expanduser()
    paths = sorted(
        path
        for path in (p for p in folder.rglob("*.md") if p.is_file())
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise UserError(f"{str(folder)!r} has no dataset cards (NAME/README.md or NAME.md).")
    for path in paths:
        name = _name(path.relative_to(folder))
        text = _read(path, tally)
        if text is None:
            continue
        header, body = _split(text)
        if header is None:
            tally.add(STAGE, "unreadable: no YAML header", name)
            continue
        values = _header_values(header)
        if isinstance(values, str):
            tally.add(STAGE, f"unreadable: {values}", name)
            continue
        tally.add(STAGE, "read", name)
        yield from _datasets(name, str(folder), values, body)


def _name(path: Path) -> str:
    if path.name.lower() == "readme.md":
        return path.parent.as_posix() if path.parent.parts else "card"
    return path.with_suffix("").as_posix()


def _read(path: Path, tally: Tally) -> str | None:
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            tally.add(STAGE, "unreadable: larger than 5 MB", os.fspath(path))
            return None
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        tally.add(STAGE, "unreadable: not UTF-8", os.fsencode(path).decode("utf-8", "replace"))
    except OSError as error:
        tally.add(STAGE, f"unreadable: {error.strerror or error}", os.fspath(path))
    return None


def _split(text: str) -> tuple[str | None, str]:
    match = re.match(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", text, re.DOTALL)
    return (match.group(1), text[match.end() :]) if match else (None, text)


def _header_values(header: str) -> dict[str, Any] | str:
    """Returns the values of the blocks that matter, or what is wrong with the header."""
    values: dict[str, Any] = {}
    for block in re.split(r"^(?=[A-Za-z_])", header, flags=re.MULTILINE):
        key = block.partition(":")[0].strip()
        if key not in (*_KEYS, "dataset_info"):
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
    # Aliases let a small text stand for an endless one; no card needs them.
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
    licences = _texts(values.get("license", values.get("licence")))
    shared = dict(
        source=source,
        description=_summary(sections),
        licence=licences[0] if len(set(licences)) == 1 else " and ".join(licences),
        languages=_texts(values.get("language", values.get("languages"))),
        website=f"https://huggingface.co/datasets/{name}",
        task_categories=_texts(values.get("task_categories")) + _texts(values.get("task_ids")),
        family=name,
    )
    infos = values.get("dataset_info")
    infos = [info for info in (infos if isinstance(infos, list) else [infos]) if info]
    infos = [info for info in infos if isinstance(info, dict)]
    if not infos:
        yield Dataset(name, fields=_data_fields(sections), **shared)
    for info in infos:
        config = info.get("config_name")
        named = f"{name}-{config}" if isinstance(config, str) and config != "default" else name
        yield Dataset(named, fields=_features(info.get("features")), **shared)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict):  # by configuration
        values = [text for part in value.values() for text in _texts(part)]
    # YAML reads the language code "no" as false.
    texts = ("no" if item is False else item for item in values)
    return tuple(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text))


def _sections(body: str) -> dict[str, str]:
    """Returns heading, in lower case -> its text up to the next heading of its level or above."""
    headings = list(_HEADING.finditer(body))
    sections: dict[str, str] = {}
    for i, heading in enumerate(headings):
        level = len(heading.group(1))
        end = next((h.start() for h in headings[i + 1 :] if len(h.group(1)) <= level), len(body))
        sections.setdefault(heading.group(2).lower(), body[heading.end() : end].strip())
    return sections


def _summary(sections: Mapping[str, str]) -> str:
    text = sections.get("dataset summary", "")
    return "" if _MISSING in text.lower() else " ".join(text.split())


def _data_fields(sections: Mapping[str, str]) -> tuple[Field, ...]:
    """Reads lines like "- `question`: a string feature." of the section "Data Fields"."""
    fields: dict[str, Field] = {}
    for line in sections.get("data fields", "").splitlines():
        match = re.match(r"^[-*+]\s+\**`\**([^`]+?)\**`\**\s*(.*)$", line)
        if not match:
            continue
        name, said = match.group(1).strip(": "), match.group(2).lower().replace("`", "")
        fields.setdefault(name, _described(name, said))
    return tuple(fields.values())


def _described(name: str, said: str) -> Field:
    if is_media(name) or re.search(r"\b(image|audio|video)\b", said):
        return Field(name, "media")
    if "dictionary" in said or "nested" in said:
        return Field(name, "nested")
    if re.search(r"list of .{0,20}string|sequence of .{0,20}string", said):
        return Field(name, "texts")
    labels = re.findall(r"([a-z][\w-]*) \((\d+)\)", said)
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
    fields = []
    for feature in features if isinstance(features, list) else ():
        if isinstance(feature, dict) and isinstance(feature.get("name"), str):
            fields.append(_feature(feature["name"], feature))
    return tuple(fields)


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
