"""Columns and conversations of people's rows -> instruction, input and answer."""

import pytest

from ait_jax.errors import UserError
from ait_jax.pool.columns import Columns, columns_of
from ait_jax.pool.instruction_rows import BadRow, Findings, read_row

NAN = float("nan")


def read(value, columns=None, needs_answer=True, findings=None):
    """Returns (instruction, input, outputs) of a row of one instance."""
    findings = findings if findings is not None else Findings()
    row = read_row(value, "f, line 1", findings, columns_of(columns), needs_answer)
    ((text, outputs),) = row.instances
    return row.instruction, text, outputs


def turns(*texts, role="role", content="content", names=("user", "assistant")):
    return [{role: names[n % 2], content: text} for n, text in enumerate(texts)]


SHAREGPT = {"role": "from", "content": "value", "names": ("human", "gpt")}


@pytest.mark.parametrize(
    "value, wanted",
    [
        ({"instruction": "I", "input": "x", "output": "o"}, ("I", "x", ("o",))),
        ({"instruction": "I", "context": "x", "response": "o"}, ("I", "x", ("o",))),
        ({"instruction": "I", "context": "", "response": "o", "category": "qa"}, ("I", "", ("o",))),
        ({"instruction": "I", "input": NAN, "output": "o"}, ("I", "", ("o",))),
        ({"instruction": "I", "input": None, "output": ["o", "p"]}, ("I", "", ("o", "p"))),
        ({"prompt": "I", "completion": "o"}, ("I", "", ("o",))),
        ({"prompt": "I", "response": "o"}, ("I", "", ("o",))),
        ({"prompt": turns("I"), "completion": [turns("-", "o")[1]]}, ("I", "", ("o",))),
        ({"messages": turns("I", "o")}, ("I", "", ("o",))),
        ({"conversations": turns("I", "o", **SHAREGPT)}, ("I", "", ("o",))),
        ({"conversations": turns("I", "o", **SHAREGPT), "system": "S"}, ("S\n\nI", "", ("o",))),
        (
            {"messages": [{"role": "system", "content": "S"}, *turns("I", "o")]},
            ("S\n\nI", "", ("o",)),
        ),
        (
            {"messages": turns("a", "b", "I", "o")},
            ("I", "User: a\n\nAssistant: b", ("o",)),
        ),
        (
            {"messages": turns("I", "o", content="content")[:1]},
            ("I", "", ()),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "I"}]}]},
            ("I", "", ()),
        ),
        (
            {"instruction": "I", "input": "x", "output": "o", "system": "S",
             "history": [["a", "b"]]},
            ("S\n\nI", "User: a\n\nAssistant: b\n\nx", ("o",)),
        ),
        (
            {"instruction": "I", "input": "", "output": "o", "system": "", "history": []},
            ("I", "", ("o",)),
        ),
        (
            {"system_prompt": "S", "instruction": "I", "response": "o", "history": None},
            ("S\n\nI", "", ("o",)),
        ),
    ],
)  # fmt: skip
def test_usual_rows(value, wanted):
    assert read(value) == wanted


def test_named_columns():
    row = {"q": "I", "about": "x", "a": "o", "sys": "S", "input": "not this"}
    findings = Findings()
    assert read(row, "instruction=q, input=about,output=a,system=sys", findings=findings) == (
        "S\n\nI", "x", ("o",),
    )  # fmt: skip
    assert "'input'" in findings.noted["fields that are not used"]["first"]
    assert read(row, {"instruction": "q", "output": "a"}) == ("I", "", ("o",))
    assert read({"turns": turns("I", "o")}, "messages=turns") == ("I", "", ("o",))
    assert columns_of(None) == columns_of("") == Columns()


@pytest.mark.parametrize(
    "given, problem",
    [
        ("question", "'question' is no PART=COLUMN"),
        ("instruktion=q", "Did you mean 'instruction'"),
        ("instruction=", "is no column's name"),
        ("instruction=a,instruction=b", "given twice"),
        ("input=a,output=b", "without an instruction"),
        ({"instruction": 3}, "is no column's name"),
    ],
)
def test_columns_that_cannot_be(given, problem):
    with pytest.raises(UserError, match=problem):
        columns_of(given)


@pytest.mark.parametrize(
    "value, advice",
    [
        ({"instruction": "I", "answer": "o"}, "instruction=instruction,output=answer"),
        ({"instruction": "I", "the_answer": "o"}, "instruction=instruction,output=the_answer"),
        (
            {"Instruction": "I", "Input": "", "Output": "o"},
            "instruction=Instruction,input=Input,output=Output",
        ),
        ({"question": "I", "answer": "o"}, "instruction=question,output=answer"),
        ({"inputs": "I", "targets": "o"}, "instruction=inputs,output=targets"),
        ({"instruction": "I", "x": 1}, "instruction=instruction,output=COLUMN"),
    ],
)
def test_rows_without_a_column_that_is_needed(value, advice):
    with pytest.raises(BadRow) as error:
        read(value)
    listed = ", ".join(map(repr, value))
    assert error.value.detail.endswith(
        f"the columns are {listed}; give --columns={advice} (gin name COLUMNS)"
    )


def test_a_test_row_needs_no_answer_unless_a_column_may_hold_one():
    assert read({"instruction": "I", "topic": "t"}, needs_answer=False) == ("I", "", ())
    with pytest.raises(BadRow) as error:
        read({"instruction": "I", "answer": "o"}, needs_answer=False)
    assert "output=answer" in error.value.detail


@pytest.mark.parametrize(
    "messages, problem",
    [
        ([], "no turn of a user"),
        (turns("I", "o")[1:], "no turn of a user"),
        ([{"role": "tool", "content": "x"}], "message 1 is of the role 'tool'"),
        ([{"role": "user"}], "message 1 has no text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part that is no text"),
        (["I"], "message 1 is no object"),
    ],
)
def test_conversations_that_are_not_read(messages, problem):
    with pytest.raises(BadRow) as error:
        read({"messages": messages})
    assert problem in error.value.detail


def test_empty_cells_and_earlier_turns_are_counted():
    findings = Findings()
    read({"instruction": "I", "input": NAN, "output": "o"}, findings=findings)
    read({"messages": turns("a", "b", "I", "o")}, findings=findings)
    assert findings.noted["empty cells (NaN) read as no text"]["count"] == 1
    assert any(reason.startswith("conversations of several turns") for reason in findings.noted)
