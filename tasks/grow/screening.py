"""Which datasets may become tasks: Dynosaur's rules on license, language and fields."""

import re
from dataclasses import dataclass

from ait_jax.tasks.grow.dataset import Dataset

from ait_jax.errors import UserError, nearest

# The authors' download_data.py drops these, and datasets without a license.
DROPPED_LICENSES = (
    "other", "unknown", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "ofl",
)  # fmt: skip
# Real tables have fewer columns; patterns look at each many times.
MAX_FIELDS = 1000
NOT_RECORDED = "not recorded"
_USABLE = ("text", "texts", "label", "boolean", "number")
_ENGLISH = {"en", "eng", "english", "code"}
_WORDINGS = (
    (r"attribution|creative\s*commons|\bcc[\s-]by", ""),
    (r"\bcc[\s-]?0\b|public domain dedication|publicdomain/zero", "cc0-1.0"),
    (r"\bmit\b.{0,20}licen[cs]e|^mit$", "mit"),
    (r"apache.{0,20}2(\.0)?", "apache-2.0"),
    (r"\bgpl|gnu general public", "gpl"),
    (r"\bbsd\b", "bsd"),
    (r"public domain", "public domain"),
)


@dataclass(frozen=True)
class Screening:
    """The rules that a dataset must pass.

    Attributes:
      languages: "en" keeps datasets in one language, English or code, or that name none (the
        authors' rule); "any" keeps all.
      unlicensed: "drop" (the authors' rule) or "keep" datasets whose source records no license.
        None keeps those of the TFDS catalog, which records few licenses, and drops others.
    """

    languages: str = "en"
    unlicensed: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("languages", ("en", "any")), ("unlicensed", ("keep", "drop", None))):
            value = getattr(self, name)
            if value not in known:
                words = [word for word in known if word]
                raise UserError(
                    f"--{name}={value} is not one of {', '.join(words)}." + nearest(value, words)
                )

    def rejection(self, dataset: Dataset) -> str:
        """Returns why `dataset` is left out, or ""."""
        license = license_id(dataset.license)
        if license in DROPPED_LICENSES:
            return f"license: {license}"
        if not license and not self._keeps_unlicensed(dataset):
            return "license: none recorded"
        if self.languages == "en" and len(dataset.languages) > 1:
            return "language: several, or a translation"
        if self.languages == "en" and not _ENGLISH.issuperset(map(str.lower, dataset.languages)):
            return "language: not English"
        if len(dataset.fields) > MAX_FIELDS:
            return f"fields: more than {MAX_FIELDS:,}"
        if any(field.kind == "media" for field in dataset.fields):
            return "fields: image, audio or video"
        usable = [field.kind for field in dataset.fields if field.kind in _USABLE]
        if len(usable) <= 1:
            return "fields: at most one of text, label, number"
        return "" if "text" in usable or "texts" in usable else "fields: no text"

    def _keeps_unlicensed(self, dataset: Dataset) -> bool:
        if self.unlicensed is None:
            return dataset.source.startswith("tfds")
        return self.unlicensed == "keep"


def license_id(text: str) -> str:
    """Returns Hugging Face's short form of a license ("cc-by-sa-3.0"), "" if there is none.

    Wordings and URLs of Creative Commons, MIT, Apache, BSD, GPL and the public domain are
    recognized. What looks like a short form stays as it is; any other wording is "other", which
    the authors' rule drops, because nobody has read it.
    """
    text = " ".join(text.split())
    lower = text.lower()
    if not lower:
        return ""
    if re.fullmatch(r"[a-z0-9.+-]{2,40}", lower):
        return lower
    for pattern, short in _WORDINGS:
        if re.search(pattern, lower):
            return short or _creative_commons(lower)
    return "other"


def _creative_commons(text: str) -> str:
    if re.search(r"zero|\bcc[\s-]?0\b", text):
        return "cc0-1.0"
    parts = ["cc-by"]
    for pattern, part in (
        (r"non-?commercial|\bby-nc|-nc\b|\bnc\b", "nc"),
        (r"no-?derivat|-nd\b|\bnd\b", "nd"),
        (r"share-?alike|-sa\b|\bsa\b", "sa"),
    ):
        if re.search(pattern, text):
            parts.append(part)
    return "-".join(parts + re.findall(r"\b([1-4]\.0)\b", text)[:1])
