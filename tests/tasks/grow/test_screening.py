"""Dynosaur's rules on license, language and fields."""

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.screening import DROPPED_LICENSES, Screening, license_id

from ait_jax.errors import UserError

FIELDS = (Field("text", "text"), Field("label", "label", ("a", "b")))


def rejected(screening=None, **values):
    given = {"name": "d", "source": "cards", "license": "mit", "fields": FIELDS, **values}
    return (screening or Screening()).rejection(Dataset(**given))


def test_the_authors_licenses():
    assert rejected() == ""
    for license in DROPPED_LICENSES:
        assert rejected(license=license) == f"license: {license}"
    assert rejected(license="") == "license: none recorded"
    assert rejected(license="cc-by-nc-nd-3.0") == "license: cc-by-nc-nd-3.0"
    assert rejected(license="Do as our lawyer says, see our page.") == "license: other"


def test_datasets_without_a_license_may_be_kept():
    assert rejected(license="", source="tfds 4.9") == ""
    assert rejected(Screening(unlicensed="drop"), license="", source="tfds 4.9") != ""
    assert rejected(Screening(unlicensed="keep"), license="") == ""


@pytest.mark.parametrize(
    "text,short",
    [
        ("CC BY-SA 3.0", "cc-by-sa-3.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "cc-by-nc-nd-4.0"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported License", "cc-by-sa-3.0"),
        ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0", "cc-by-nc-nd-4.0"),
        ("Creative Commons Zero v1", "cc0-1.0"),
        ("The MIT License", "mit"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("  ", ""),
        ("openrail", "openrail"),
        ("For research only", "other"),
    ],
)
def test_wordings_of_licenses(text, short):
    assert license_id(text) == short


def test_languages():
    assert rejected(languages=("en",)) == rejected(languages=("code",)) == ""
    assert rejected(languages=("fi",)) == "language: not English"
    assert rejected(languages=("en", "fi")) == "language: several, or a translation"
    assert rejected(Screening(languages="any"), languages=("en", "fi")) == ""
    with pytest.raises(UserError, match="--languages=em is not one of en, any"):
        Screening(languages="em")


def test_fields():
    text, nested = Field("text", "text"), Field("extra", "nested")
    assert rejected(fields=(text, nested)) == "fields: at most one of text, label, number"
    assert rejected(fields=(*FIELDS, Field("image", "media"))) == "fields: image, audio or video"
    numbers = (Field("a", "number"), Field("b", "number"))
    assert rejected(fields=numbers) == "fields: no text"
