import json

import pytest
from shared_data import NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool.task import (
    Example,
    Instance,
    Instruction,
    Task,
    read_task,
    task_from_json,
    task_to_json,
)

NIV2_JSON = {
    "Contributors": ["A", "B"],
    "Source": ["s"],
    "URL": ["u"],
    "Categories": ["Question Answering", "Other"],
    "Reasoning": [],
    "Definition": ["First.", "Second."],
    "Input_language": ["English"],
    "Output_language": ["French"],
    "Instruction_language": ["English"],
    "Domains": ["News"],
    "Positive Examples": [
        {"input": "p1", "output": "o1", "explanation": "e1"},
        {"input": "p2", "output": "o2", "explanation": ""},
    ],
    "Negative Examples": [{"input": "n1", "output": "m1", "explanation": "x1"}],
    "Instances": [
        {"id": "t-1", "input": "i1", "output": ["r1", "r2"]},
        {"id": "t-2", "input": "i2", "output": ["r3"]},
    ],
    "Instance License": ["Unknown"],
}


def test_every_field_is_read():
    read = task_from_json(NIV2_JSON, "t", "t.json")
    assert read == Task(
        name="t",
        instruction=Instruction(
            "First.", (Example("p1", "o1", "e1"), Example("p2", "o2")), (Example("n1", "m1", "x1"),)
        ),
        instances=(Instance("t-1", "i1", ("r1", "r2")), Instance("t-2", "i2", ("r3",))),
        categories=("Question Answering", "Other"),
        output_languages=("French",),
        metadata={
            "Contributors": ("A", "B"),
            "Source": ("s",),
            "URL": ("u",),
            "Reasoning": (),
            "Domains": ("News",),
            "Instance License": ("Unknown",),
        },
        further_definitions=("Second.",),
    )
    assert read.category == "Question Answering"


def test_round_trip_of_every_field():
    assert task_to_json(task_from_json(NIV2_JSON, "t", "t.json")) == NIV2_JSON


@needs_shared
def test_round_trip_of_real_files():
    paths = sorted((NIV2 / "tasks").glob("*.json"))[::12]
    assert len(paths) >= 10
    for path in paths:
        assert task_to_json(read_task(path)) == json.loads(path.read_text())


def test_lenient_forms():
    data = {
        "Definition": "Only.",
        "Positive Examples": [{"input": "a", "output": "b"}],
        "Instances": [
            {"input": "x", "output": "plain"},
            {"id": "same", "input": "y", "output": ["1", "2"]},
            {"id": "same", "input": "z \ud83d", "output": ["😀"]},
        ],
        "URL": [float("nan"), None, 3],
        "CLS_GEN": "CLS",
    }
    read = task_from_json(data, "t", "t.json")
    assert read.instruction == Instruction("Only.", (Example("a", "b"),))
    assert [(i.id, i.outputs) for i in read.instances] == [
        ("t-0", ("plain",)),
        ("same", ("1", "2")),
        ("same-2", ("😀",)),
    ]
    assert read.instances[2].input == "z \ufffd"
    assert read.metadata == {"URL": ("", "", "3"), "CLS_GEN": ("CLS",)}
    assert read.category == "Uncategorized" and read.input_languages == ("English",)
    assert task_from_json(task_to_json(read), "t", "again") == read


def change(**fields):
    data = {**NIV2_JSON, **fields}
    return {key: value for key, value in data.items() if value is not ...}


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "JSON object, found a list"),
        (change(Definition=...), "field 'Definition' is missing"),
        (
            {**change(Definition=...), "definition": "x"},
            "'Definition' is missing. Did you mean 'definition'?",
        ),
        (change(Definition=[]), "'Definition' is empty"),
        (change(Definition=[3]), r"Definition\[0\] must be a string, found a number"),
        (change(Instances=[]), "'Instances' is empty"),
        (change(Instances={}), "Instances must be a list of objects, found an object"),
        (change(Instances=["x"]), r"Instances\[0\] must be an object, found a string"),
        (change(Instances=[{"id": "1", "input": "x"}]), r"Instances\[0\]\.output is missing"),
        (
            change(Instances=[{"id": "1", "input": "x", "output": []}]),
            r"Instances\[0\]\.output is empty",
        ),
        (
            change(Instances=[{"id": "1", "input": None, "output": "y"}]),
            r"Instances\[0\]\.input must be .* null",
        ),
        (
            change(Instances=[{"id": 1, "input": "x", "output": "y"}]),
            r"Instances\[0\]\.id must be a string",
        ),
        (change(**{"Positive Examples": ...}), "'Positive Examples' is missing"),
        (
            change(**{"Positive Examples": [{"input": "x"}]}),
            r"Positive Examples\[0\]\.output is missing",
        ),
        (
            change(**{"Negative Examples": [{"input": "x", "output": True}]}),
            "must be a string, found a boolean",
        ),
        (change(Categories=[["x"]]), r"Categories\[0\] must be a string, found a list"),
        (change(Domains={"a": 1}), r"Domains\[0\] must be a string, found an object"),
    ],
)
def test_bad_tasks_name_file_and_field(data, message):
    with pytest.raises(UserError, match=message) as raised:
        task_from_json(data, "t", "dir/t.json")
    assert str(raised.value).startswith("dir/t.json")


def test_unsafe_task_name():
    with pytest.raises(UserError, match="x.json: task name '../t' contains a path separator"):
        task_from_json(NIV2_JSON, "../t", "x.json")


def test_read_task(tmp_path):
    path = tmp_path / "task001_x.json"
    path.write_text(json.dumps(NIV2_JSON), encoding="utf-8-sig")
    assert read_task(path) == read_task(str(path)) == task_from_json(NIV2_JSON, "task001_x", "")


def test_malformed_files_name_line_and_column(tmp_path):
    path = tmp_path / "bad.json"
    for data, message in [
        (
            b'{\n "Definition": ["a"],\n "Instances": [}\n',
            r"bad\.json, line 3, column 16: malformed JSON",
        ),
        (b"", r"bad\.json, line 1, column 1"),
        (b'{\n "a": "\xff"}', r"bad\.json, line 2: not UTF-8"),
        (b"[" * 200000, r"bad\.json: nested more than 64 deep"),
    ]:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            read_task(path)
    with pytest.raises(UserError, match=r"none\.json: cannot read the task"):
        read_task(tmp_path / "none.json")
