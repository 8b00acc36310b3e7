"""Answers of models: prose, broken JSON, and worse. Nothing of it is ever evaluated."""

import json

import pytest
from ait_jax.tasks.grow import dictionaries

TASK = {"instruction": "Do it.", "input_fields": ["a"], "output_field": ["b"]}
JSON = '{"instruction": "Do it.", "input_fields": ["a"], "output_field": ["b"]}'


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        str(TASK),
        f"1. {JSON}",
        f"Here you are:\n```json\n{JSON}\n```\nAnything else?",
        f"[{JSON}]",
        f'{{"tasks": [{JSON}]}}',
        str({"task1": TASK}),
        f'{{"tasks": {{"task1": {JSON}}}}}',
        f'{{"note": "one task", "first": {JSON}, "more": []}}',
        JSON.replace(" ", "\n"),
        "{'instruction': \"Do it.\", 'input_fields': ['a'], 'output_field': ['b'],}",
    ],
)
def test_dictionaries_are_found(text):
    found, reasons = dictionaries.parse(text)
    assert found == [{**TASK, "instruction": found[0]["instruction"]}] and reasons == []
    assert found[0]["instruction"].split() == ["Do", "it."]


def test_the_authors_form_of_several_tasks():
    tasks = {f"task{n}": TASK | {"instruction": f"Do {n}."} for n in (1, 2, 3)}
    for text in (str(tasks), json.dumps(tasks), f"Tasks:\n{tasks}\n", str({"tasks": tasks})):
        assert dictionaries.parse(text) == (list(tasks.values()), [])


def test_an_answer_cut_at_its_longest_gives_what_is_whole():
    tasks = {f"task{n}": TASK | {"instruction": f"Do {n}."} for n in (1, 2, 3)}
    for text in (str(tasks), str({"tasks": tasks})):
        found, reasons = dictionaries.parse(text[: text.index("Do 3.")])
        assert found == [tasks["task1"], tasks["task2"]] and reasons == [dictionaries.BROKEN]
    apostrophe = str(tasks).replace("Do 2.", "Do the user's 2.")
    found, reasons = dictionaries.parse(apostrophe)
    assert found == [tasks["task1"], tasks["task3"]] and reasons == [dictionaries.BROKEN]


def test_several_and_braces_within_texts():
    odd = '{"instruction": "Use } and {.", "input_fields": ["a"], "output_field": ["b"]}'
    found, reasons = dictionaries.parse(f"{JSON}\n{odd}")
    assert found[1]["instruction"] == "Use } and {." and len(found) == 2 and reasons == []


def test_a_broken_one_leaves_the_others():
    found, reasons = dictionaries.parse(f'{JSON}\n{{"instruction": "Do\n')
    assert len(found) == 1 and reasons == [dictionaries.BROKEN]
    apostrophe = "{'instruction': 'Find the user's name', 'input_fields': ['a']}"
    found, reasons = dictionaries.parse(f"{apostrophe}\n{JSON}")
    assert found == [TASK] and reasons == [dictionaries.BROKEN]


@pytest.mark.parametrize(
    "text,reason",
    [
        ("", dictionaries.EMPTY),
        ("I cannot help with that.", dictionaries.PROSE),
        ("{" * 300, dictionaries.TOO_DEEP),
        ('{"a": ' + "[" * 3000 + "]" * 3000 + "}", dictionaries.TOO_DEEP),
        ("{" * 3000 + "}" * 3000, dictionaries.TOO_DEEP),
        ("{'a': " + "-" * 15000 + "1}", dictionaries.BROKEN),
        ("{'a': " + "+ " * 9000 + "1}", dictionaries.BROKEN),
        ("{'a': " + "1+" * 9000 + "1}", dictionaries.BROKEN),
        ("{'a': " + "not " * 4000 + "1}", dictionaries.BROKEN),
        ("{'a': " + "9" * 15000 + "}", dictionaries.BROKEN),
        ("{" + "x" * dictionaries.MAX_ANSWER + "}", dictionaries.TOO_LONG),
        ('{"a": \x00}', dictionaries.BROKEN),
        ("{set()}", dictionaries.BROKEN),
        ("{'a', 'b'}", dictionaries.BROKEN),
        ("{[]: 1}", dictionaries.BROKEN),
    ],
)
def test_what_cannot_be_read_is_said(text, reason):
    assert dictionaries.parse(text) == ([], [reason])


def test_nothing_is_evaluated(tmp_path):
    there = tmp_path / "there"
    text = f"{{'instruction': __import__('pathlib').Path({str(there)!r}).touch()}}"
    assert dictionaries.parse(text) == ([], [dictionaries.BROKEN]) and not there.exists()
