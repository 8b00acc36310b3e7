"""What a model is asked."""

import ast
import re

import pytest
from ait_jax.tasks.grow import dictionaries
from ait_jax.tasks.grow.conversation import STYLES, SYSTEM, conversation
from ait_jax.tasks.grow.dataset import Dataset, Field, fields_from_rows
from ait_jax.tasks.grow.proposal import Proposal, proposal_from_json


def dataset(rows=(), **more):
    given = {"name": "lakes", "source": "s", "description": "Lakes of Finland.", **more}
    return Dataset(rows=rows, fields=given.pop("fields", fields_from_rows(rows)), **given)


ROW = {"question": "q", "answer": "a", "doc_id": "7", "ID": 9, "nested": {"x": 1}, "none": None}


def shown(messages):
    """Returns the last input, which is the dataset, and what follows it."""
    text = messages[1]["content"].rpartition("\n\nInput:\n")[2]
    about, _, rest = text.partition("\n\n")
    return ast.literal_eval(about), rest


def test_the_authors_frame():
    given = {"license": "mit", "website": "https://example.org"}
    system, user = conversation(dataset([ROW], **given), "description-aware")
    assert system == {"role": "system", "content": SYSTEM} and user["role"] == "user"
    text = user["content"]
    # generate_tasks_with_description.py: the same marks in the same order, no others.
    marks = r"^(Example \d|Input|Tasks):"
    assert re.findall(marks, text, re.MULTILINE) == [
        "Example 1", "Input", "Tasks", "Example 2", "Input", "Tasks", "Input", "Tasks",
    ]  # fmt: skip
    assert text.endswith("\n\nTasks:")
    about, rest = shown((system, user))
    assert list(about.items()) == [
        ("task_name", "lakes"),
        ("selected_data", [{"question": "q", "answer": "a", "ID": "9", "nested": {"x": 1}}]),
        ("summary", "Lakes of Finland."),
        ("license", "mit"),
        ("website", "https://example.org"),
    ]
    assert "['question', 'answer', 'ID', 'nested']" in rest


def test_unaware_of_the_description():
    messages = conversation(dataset([ROW]), "description-unaware")
    assert "'summary'" not in messages[1]["content"] and "Finland" not in messages[1]["content"]
    assert conversation(dataset([ROW], description=" "), "description-aware") == "no description"
    assert not isinstance(conversation(dataset([ROW], description=""), STYLES[1]), str)


def test_values_as_the_authors_show_them():
    row = {
        "text": " " + "t" * 5000, "list": ["l" * 600] * 3, "other": 1, "flag": True,
        "empty": [], "mixed": ["a", 1], "deep": {"x": {}}, "map": {"a": "m" * 600, "b": "m" * 600},
    }  # fmt: skip
    messages = conversation(dataset([row] * 5, description="d" * 5000), "description-aware")
    about, _ = shown(messages)
    assert len(about["selected_data"]) == 2 and len(about["summary"]) == 1000
    assert about["selected_data"][0] == {
        "text": "t" * 1000, "list": ["l" * 600], "other": "1", "flag": "True", "empty": [],
        "map": {"a": "m" * 600},
    }  # fmt: skip
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
    parts = conversation(dataset([ROW]), style)[1]["content"].split("\nInput:\n")[1:3]
    for part in parts:
        about = ast.literal_eval(part.partition("\n\n")[0])
        answer = part.partition("Tasks:\n")[2].partition("\n\n")[0]
        assert (
            list(ast.literal_eval(answer)) == ["task1", "task2", "task3"][: answer.count("'task")]
        )
        found, reasons = dictionaries.parse(answer)
        assert 2 <= len(found) <= 3 and not reasons
        assert ("summary" in about) == (style == "description-aware")
        assert about["license"] and about["website"]
        for data in found:
            proposal = proposal_from_json(data, "d")
            assert isinstance(proposal, Proposal)
            names = {*proposal.input_fields, *proposal.output_field}
            assert names <= set(about["selected_data"][0])
            assert len(names) == len(proposal.input_fields) + 1
