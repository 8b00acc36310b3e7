"""What a model is asked."""

import json

import pytest
from ait_jax.tasks.grow import dictionaries
from ait_jax.tasks.grow.conversation import STYLES, SYSTEM, conversation
from ait_jax.tasks.grow.dataset import Dataset, Field, fields_from_rows
from ait_jax.tasks.grow.proposal import Proposal, proposal_from_json


def dataset(rows=(), **more):
    given = {"name": "lakes", "source": "s", "description": "Lakes of Finland.", **more}
    return Dataset(rows=rows, fields=given.pop("fields", fields_from_rows(rows)), **given)


ROW = {"question": "q", "answer": "a", "doc_id": "7", "nested": {"x": 1}, "none": None}


def shown(messages):
    """Returns the last dictionary shown, which is the dataset's, and the fields named after it."""
    text = messages[1]["content"].rpartition("Dictionary: ")[2]
    about, _, rest = text.partition("\n\n")
    return json.loads(about), rest


def test_the_authors_form():
    system, user = conversation(dataset([ROW]), "description-aware")
    assert system == {"role": "system", "content": SYSTEM} and user["role"] == "user"
    text = user["content"]
    assert text.startswith("Given a dictionary containing a dataset description and a few examples")
    assert "design up to three different tasks" in text and text.endswith("\n\nTasks:")
    about, rest = shown((system, user))
    assert about == {
        "task_name": "lakes",
        "selected_data": [{"question": "q", "answer": "a"}],
        "summary": "Lakes of Finland.",
    }
    assert 'appear in ["question", "answer"]' in rest
    assert text.count("Dictionary: ") == 3, "two demonstrations"


def test_unaware_of_the_description():
    messages = conversation(dataset([ROW]), "description-unaware")
    assert messages[1]["content"].startswith("Given a few examples of a dataset")
    assert "summary" not in messages[1]["content"] and "Finland" not in messages[1]["content"]
    assert conversation(dataset([ROW], description=" "), "description-aware") == "no description"
    assert not isinstance(conversation(dataset([ROW], description=""), STYLES[1]), str)


def test_limits():
    row = {"text": "t" * 5000, "list": ["l" * 600] * 3, "other": 1}
    messages = conversation(dataset([row] * 5, description="d" * 5000), "description-aware")
    about, _ = shown(messages)
    assert len(about["selected_data"]) == 2 and len(about["summary"]) == 1000
    assert len(about["selected_data"][0]["text"]) == 1000
    assert [len(text) for text in about["selected_data"][0]["list"]] == [600, 400]
    few = conversation(dataset([{"text": "t", "id": 1, "valid": 2}]), STYLES[1])
    assert few == "at most one field left"


def test_types_stand_for_rows_where_there_are_none():
    fields = (
        Field("text", "text"),
        Field("label", "label", ("no", "yes")),
        Field("tokens", "texts"),
        Field("n", "number"),
        Field("flag", "boolean"),
        Field("box", "nested"),
    )
    about, _ = shown(conversation(dataset(fields=fields), "description-unaware"))
    assert about["selected_data"] == [
        {
            "text": "(a text)",
            "label": "(one of: no, yes)",
            "tokens": ["(a text)", "(another text)"],
            "n": "(a number)",
            "flag": "(True or False)",
        }
    ]


@pytest.mark.parametrize("style", STYLES)
def test_the_demonstrations_answer_as_they_ask(style):
    """What is shown must itself pass the parser and use only fields that are shown."""
    parts = conversation(dataset([ROW]), style)[1]["content"].split("Dictionary: ")[1:3]
    for part in parts:
        about = json.loads(part.partition("\n\n")[0])
        found, reasons = dictionaries.parse(part.partition("Tasks:")[2])
        assert 2 <= len(found) <= 3 and not reasons
        assert ("summary" in about) == (style == "description-aware")
        for data in found:
            proposal = proposal_from_json(data, "d")
            assert isinstance(proposal, Proposal)
            names = {*proposal.input_fields, *proposal.output_field}
            assert names <= set(about["selected_data"][0])
            assert len(names) == len(proposal.input_fields) + 1
