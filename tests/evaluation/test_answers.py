"""Files of answers: read strictly, matched by instruction and input, what does not fit is named."""

import json

import pytest

from ait_jax.errors import UserError
from ait_jax.evaluation import answers
from ait_jax.evaluation.answers import Question
from ait_jax.pool.columns import columns_of


def line(instruction, response, input_text="", target="t", **more):
    value = {"prompt": "p", "instruction": instruction, "input": input_text,
             "response": response, "target": target, **more}  # fmt: skip
    return json.dumps(value)


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="a.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
        return path

    return write


def read(write, *lines):
    return answers.read_answers(write(*lines))


def test_answers_are_matched_without_white_space_at_the_ends(write):
    found = read(write, line("do it\n", " yes", " x "), "", line("do it", "no", "y", target=None))
    assert found[Question("do it", "x")][0].text == " yes"
    assert found[Question("do it", "x")][0].references == ("t",)
    assert found[Question("do it", "y")][0].references == ()


def test_half_a_surrogate_pair_becomes_a_replacement_character(write):
    found = read(write, line("a \ud83d", "b \udc00"))
    assert found[Question("a \ufffd", "")][0].text == "b \ufffd"


def test_predictions_of_a_run_are_read(write):
    inputs = {"inputs_pretokenized": "Definition: x", "targets_pretokenized": "y", "task": "t",
              "id": "1", "references": ["y", "z"]}  # fmt: skip
    found = read(write, json.dumps({"inputs": inputs, "prediction": "w"}))
    assert found == {Question("Definition: x", ""): [answers.RecordedAnswer("w", ("y", "z"))]}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([b"\xff"], "line 1: save the file as UTF-8"),
        ([line("a", "b"), "{"], "line 2: Expecting property name"),
        (["[1]"], "line 1: a row is an object, found a number"),
        ([line("a", 5)], "'output' is a number, not a string"),
        ([line(None, "b")], "field 'instruction' is empty"),
        ([line("a", {"choices": []})], "'output' is an object, not a string"),
        ([line("a", "b", target=5)], "'target' is a number, not a string"),
        (['{"instruction": "a"}'], "the columns are 'instruction'; give --columns=instruction="),
        (["[" * 100_000], "line 1: nested more than 64 deep"),
        ([""], "has no answers"),
    ],
)
def test_a_bad_file_is_named_with_its_line(write, lines, text):
    with pytest.raises(UserError) as error:
        read(write, *lines)
    assert text in str(error.value) and "a.jsonl" in str(error.value)


def test_a_file_that_is_not_there(write, tmp_path):
    with pytest.raises(UserError, match="cannot read the file: No such file"):
        answers.read_answers(tmp_path / "x")
    with pytest.raises(UserError, match="cannot read the file: Not a directory"):
        answers.read_answers(write(line("a", "b")) / "b.jsonl")


def task(instruction, *instances):
    return json.dumps(
        {"instruction": instruction, "instances": [{"input": i, "output": o} for i, o in instances]}
    )


def test_instructions(write):
    found = answers.read_instructions(write(task("a", ("x", "1"), ("", "2"))))
    assert found == {Question("a", "x"): ("1",), Question("a", ""): ("2",)}
    for bad, text in (
        ([task("a", ("x", "1")), task("a", ("x ", "2"))], "line 2: 'a x' is there twice"),
        (['{"instruction": "a"}'], "line 1: the columns are 'instruction'"),
        ([""], "no instructions"),
    ):
        with pytest.raises(UserError, match=text):
            answers.read_instructions(write(*bad))


def test_other_kinds_of_rows(write):
    """Dolly's columns, a JSON list, named columns: the same questions and answers."""
    wanted = {Question("a", "x"): [answers.RecordedAnswer("b")]}
    dolly = {"instruction": "a", "context": "x", "response": "b"}
    assert read(write, json.dumps(dolly)) == wanted
    assert answers.read_answers(write(json.dumps([dolly], indent=1))) == wanted
    named = write(json.dumps({"q": "a", "about": "x", "a": "b"}))
    columns = columns_of("instruction=q,input=about,output=a")
    assert answers.read_answers(named, columns) == wanted
    assert answers.read_instructions(named, columns) == {Question("a", "x"): ("b",)}


def match(a, b, instructions=None, intersect=False):
    return answers.match(a, b, instructions, ("A", "B"), intersect)


def test_files_that_fit(write):
    a = read(write, line("one", "1a"), line("two", "2a"))
    b = read(write, line("two", "2b"), line("one", "1b"), line("one", "1b"))  # twice alike
    pairs, problems = match(a, b)
    assert [(p.question.instruction, p.a, p.b, p.references) for p in pairs] == [
        ("one", "1a", "1b", ("t",)),
        ("two", "2a", "2b", ("t",)),
    ]
    assert problems == {}


def test_what_does_not_fit_is_counted_named_and_refused_or_left_out(write):
    a = read(write, *(line(f"only a {i}", "x") for i in range(5)), line("both", "x"))
    b = read(write, line("both", "y"), line("twice", "y"), line("twice", "z"), line("only b", "y"))
    with pytest.raises(UserError) as error:
        match(a, b)
    text = str(error.value)
    assert "5 missing in B ('only a 0', 'only a 1', 'only a 2', ...)" in text
    assert "2 missing in A ('twice', 'only b')" in text
    assert "1 answered differently twice in B ('twice')" in text
    assert "--on_mismatch=intersect to compare the 1 that match" in text
    pairs, problems = match(a, b, intersect=True)
    assert [pair.question.instruction for pair in pairs] == ["both"]
    assert len(problems["missing in B"]) == 5


def test_the_instructions_say_what_is_asked_and_hold_the_references(write):
    a = read(write, line("one", "1a"), line("two", "2a"))
    b = read(write, line("one", "1b", target="other"))
    wanted = {Question("one", ""): ("reference",)}
    pairs, problems = match(a, b, wanted, intersect=True)
    assert [pair.references for pair in pairs] == [("reference",)]
    assert problems == {"only in A, not in the instructions": ["'two'"]}
    with pytest.raises(UserError, match="1 only in A, not in the instructions"):
        match(a, b, wanted)


def test_different_targets_are_no_match(write):
    a, b = read(write, line("one", "x")), read(write, line("one", "x", target="other"))
    with pytest.raises(UserError, match="1 with different targets"):
        match(a, b)


def test_nothing_in_common(write):
    with pytest.raises(UserError, match="no instruction in common"):
        match(read(write, line("a", "x")), read(write, line("b", "x")), intersect=True)
