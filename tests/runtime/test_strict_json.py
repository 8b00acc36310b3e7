"""JSON from outside: bounds, one kind of error, typed values."""

import json
import math
from typing import NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ait_jax.errors import UserError
from ait_jax.runtime import files, strict_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"a": 1,\n "a": 2}', "a.json: the key 'a' is given twice in one object."),
        ("[" * 65 + "]" * 65, "a.json: nested more than 64 deep."),
        ("[" * 100_000, "a.json: nested more than 64 deep."),
        ('{"a":' * 65 + "1" + "}" * 65, "a.json: nested more than 64 deep."),
        ("1" * 5000, "a.json: an integer of 5000 digits."),
        ("-" + "1" * 21, "a.json: an integer of 21 digits."),
        ("1" * 21, "a.json: an integer of 21 digits."),
        (f"[{2**64}]", "a.json: 18446744073709551616 is beyond what 64 bits hold."),
        (str(-(2**63) - 1), "a.json: -9223372036854775809 is beyond what 64 bits hold."),
        ("[1e999]", "a.json: '1e999' is beyond what a float holds."),
        ("[NaN]", "a.json: NaN is no JSON number; write null where there is no value."),
        ("-Infinity", "a.json: -Infinity is no JSON number; write null where there is no value."),
        ('{"\\udc00": 1}', r"a.json: half a surrogate pair in '\udc00'."),
        ('["\\ud83d\\ude00", ["x\\uD800"]]', r"a.json: half a surrogate pair in 'x\ud800'."),
        ('{"a":\n 1,\n}', "a.json, line 3, column 1: malformed JSON: "),
        ("", "a.json, line 1, column 1: malformed JSON: Expecting value."),
        ("[1] 2", "a.json, line 1, column 5: malformed JSON: Extra data."),
        (b'{"a":\n "\xe9"}', "a.json, line 2: not UTF-8 text."),
        ("[1]".encode("utf-16"), "a.json, line 1: not UTF-8 text (UTF-16, by its first bytes)."),
        ("\udc80", "a.json, line 1: not UTF-8 text."),
    ],
)
def test_what_is_refused(text, problem):
    with pytest.raises(UserError) as error:
        strict_json.loads(text, "a.json")
    # Python words the error of a trailing comma differently in each version.
    assert str(error.value).startswith(problem)


@pytest.mark.parametrize(
    "text, value",
    [
        ("\ufeff[1]", [1]),
        (b"\xef\xbb\xbf{}", {}),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        (str(2**64 - 1), 2**64 - 1),
        ("[" * 64 + "]" * 64, None),
        ('{"a": "' + "[{" * 100 + '"}', {"a": "[{" * 100}),
        ("1e-400", 0.0),
    ],
)
def test_what_is_read(text, value):
    read = strict_json.loads(text, "a.json")
    assert value is None or read == value


def test_a_key_given_twice_among_very_many_is_found():
    keys = [f'"k{number}": 0' for number in range(200_000)]
    # Comparing all with all would take hours.
    with pytest.raises(UserError, match=r"the key 'k199999' is given twice"):
        strict_json.loads("{" + ", ".join([*keys, keys[-1]]) + "}", "a.json")


def test_halves_that_become_one_key_are_refused():
    with pytest.raises(UserError, match="is given twice"):
        strict_json.loads('{"\\ud800": 1, "\\udfff": 2}', "a.json", lenient=True)
    assert strict_json.loads('{"\\ud800": 1}', "a.json", lenient=True) == {"\ufffd": 1}


def test_a_line_of_a_file():
    with pytest.raises(UserError, match=r"^rows.jsonl, line 7, column 4: malformed JSON"):
        strict_json.loads("[1,", "rows.jsonl", line=7)
    with pytest.raises(UserError, match=r"^a reply: 11 bytes, more than the 10 that are read"):
        strict_json.loads("[" + " " * 9 + "]", "a reply", most_bytes=10)


@given(JSON)
def test_what_json_holds_comes_back(value):
    def same(a, b):
        return math.isclose(a, b) if isinstance(a, float) else a == b

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
        assert same(strict_json.loads(text, "x"), value)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ud8e+-019.ntfalsNIy \n', max_size=60))
def test_any_bytes_are_read_as_python_does_or_refused(data):
    try:
        value = strict_json.loads(data, "x")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    if isinstance(data, bytes):
        data = data.decode("utf-8-sig")
    assert json.loads(data.removeprefix("\ufeff")) == value
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


class Stage(TypedDict):
    seconds: float
    steps: NotRequired[int]
    best: NotRequired[dict[str, float | None]]


def test_typed_values():
    assert strict_json.typed({"seconds": 1, "more": []}, Stage, "a") == {
        "seconds": 1,
        "more": [],
    }
    for value, problem in [
        ({}, "object missing required field seconds"),
        ([], "expected object, got array"),
        ({"seconds": 1, "steps": 1.5}, "run.json: steps: expected int, got float"),
        ({"seconds": True}, "seconds: expected float, got bool"),
        ({"seconds": 1, "best": {"x": "y"}}, "best[...]: expected float | null, got str"),
    ]:
        with pytest.raises(UserError, match=r"^run\.json.*; delete it\.$") as error:
            strict_json.typed(value, Stage, "run.json", "delete it")
        assert problem in str(error.value)
    assert strict_json.typed({"a": [1]}, dict[str, list[int]], "a") == {"a": [1]}


def test_lines_of_a_file_that_grows():
    whole = b'{"seconds": 1}\n{"seconds": 2, "steps": 3}\n'
    for data in (whole, whole + b'{"seco', whole + b'{"seconds": 4, "st\n\xff\n', b'{"a"' + whole):
        found = list(strict_json.lines(data, Stage, "t.jsonl"))
        assert found == [{"seconds": 1}, {"seconds": 2, "steps": 3}][data.startswith(b'{"a"') :]
    with pytest.raises(UserError, match=r"^t\.jsonl, line 2: steps: expected int, got str; del\.$"):
        list(
            strict_json.lines(
                b'{"seconds": 1}\n{"seconds": 2, "steps": "3"}', Stage, "t.jsonl", "del"
            )
        )


def test_given_files(tmp_path):
    with pytest.raises(UserError, match=r"a\.json: cannot read the task: No such file"):
        files.read_given_json(tmp_path / "a.json", "the task")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_given_json(tmp_path / "a.json", "the task") == [1]
    with pytest.raises(UserError, match=r"cannot read the task: has more than 5 bytes"):
        files.read_given_json(tmp_path / "a.json", "the task", most=5)
    (tmp_path / "a.json").write_bytes("ü".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.json, line 1: not UTF-8 text; save the list as"):
        files.read_given_text(tmp_path / "a.json", "the list")


def test_pipes_and_devices_do_not_hang(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match=r"cannot read the task: not a regular file"):
            files.read_given_json(path, "the task")
    with pytest.raises(UserError, match=r"cannot read the task"):
        files.read_given_json(tmp_path, "the task")


def test_data_sets_are_read_leniently():
    text = '{"a": NaN, "b": ["\\ud83d", "\\ud83d\\ude00", -Infinity], "c\\udc00": "\\\\ud800"}'
    value = strict_json.loads(text, "a.json", lenient=True)
    assert math.isnan(value.pop("a"))
    assert value == {"b": ["\ufffd", "😀", -math.inf], "c\ufffd": "\\ud800"}
    with pytest.raises(UserError, match="nested more than 64 deep"):
        strict_json.loads('["\\ud800",' * 65 + "1" + "]" * 65, "a.json", lenient=True)


def test_values_one_after_the_other():
    text = ' {"a": 1}\n[2] 3'
    assert strict_json.scan(text, 1) == ({"a": 1}, 9)
    assert strict_json.scan(text, 10) == ([2], 13)
    with pytest.raises(strict_json.Unfit) as error:
        strict_json.scan(text, 13)
    assert (error.value.line, error.value.column) == (2, 4)


def test_no_limit_as_transformers_writes_it():
    assert strict_json.loads(b'{"model_max_length": 1000000000000000019884624838656}', "x") == {
        "model_max_length": int(1e30)
    }
