"""What the columns of a dataset are."""

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.roles import (
    LANGUAGES,
    is_bookkeeping,
    language_name,
    noun,
    roles_of,
    words,
)


def roles(*names, **kinds):
    fields = [Field(name, kinds.get(name, "text")) for name in names]
    return roles_of(Dataset("d", "s", fields=tuple(fields)))


@pytest.mark.parametrize(
    "name,said",
    [
        ("emailBody", "email body"),
        ("email_body", "email body"),
        ("sentence1", "sentence 1"),
        ("answer-text ", "answer text"),
        ("_", ""),
    ],
)
def test_words(name, said):
    assert words(name) == said


def test_bookkeeping():
    for name in ("id", "doc_id", "URL", "filename", "created_date", "_", ""):
        assert is_bookkeeping(name), name
    for name in ("idea", "text", "question", "guide"):
        assert not is_bookkeeping(name), name


def test_roles_by_name_in_order_of_surety():
    found = roles("story", "question", "short_answer", "answer", "id", "final_summary")
    by_role = {role: field.name for role, field in found.by_role.items()}
    assert by_role["passage"] == "story" and by_role["question"] == "question"
    assert by_role["answer"] == "short_answer" and by_role["summary"] == "final_summary"
    assert "id" not in [field.name for field in found.texts]


def test_pairs_and_languages():
    assert [f.name for f in roles("sentence1", "sentence2", "x").pair] == ["sentence1", "sentence2"]
    assert [f.name for f in roles("s_good", "s_bad").pair] == ["s_good", "s_bad"]
    assert roles("option1", "option2", "option3").pair == ()
    assert roles("en", "pt_BR").languages == {"en": "English", "pt_BR": "Portuguese"}
    assert roles("en", "az_tr").languages == {}, "two languages together"
    assert roles("is", "text").languages == {}, "one code alone is a word"


def test_nouns():
    assert (
        noun(Field("content", "text")) == "text" and noun(Field("sentence1", "text")) == "sentence"
    )


def test_languages_have_codes_of_two_letters():
    assert len(LANGUAGES) > 180 and all(len(code) == 2 for code in LANGUAGES)
    assert language_name("EN") == "English" and language_name("zh-cn") == "Chinese"
    assert language_name("text") == ""
