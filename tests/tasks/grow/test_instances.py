"""Rows -> inputs and outputs."""

from collections import Counter

from ait_jax.tasks.grow.instances import instances
from ait_jax.tasks.grow.proposal import Proposal


def made(row, *inputs, output="out", **more):
    found = instances(Proposal("d", "Do it.", inputs, (output,), **more), [{"out": "o", **row}])
    return found[0].input if found else None


def test_the_authors_forms():
    row = {"a": "one", "b": 2, "list": ["x", "y"], "choices": ["p", "q"]}
    assert made(row, "a") == "one"
    assert made(row, "b") == "2"
    assert made(row, "a", "b") == "a is 'one'. b is '2'. "
    assert made(row, "list") == "'x', 'y'. "
    assert made(row, "choices") == " A. 'p', B. 'q'."
    assert made(row, "a", "choices", "list") == (
        "a is 'one'. choices is A. 'p', B. 'q'. list is 'x', 'y'. "
    )
    assert made(row, "a", context="where is 'here'. ") == "where is 'here'. a is 'one'. "


def test_the_first_output_field_alone_counts():
    proposal = Proposal("d", "Do it.", ("a",), ("x", "y"))
    (instance,) = instances(proposal, [{"a": "i", "x": True, "y": "never"}])
    assert instance.outputs == ("True",) and instance.id == "0"


def test_texts_are_cut():
    (instance,) = instances(Proposal("d", "", ("a",), ("b",)), [{"a": "x" * 9000, "b": "y" * 9000}])
    assert (len(instance.input), len(instance.outputs[0])) == (2000, 2000)


def test_rows_left_out_are_counted():
    rows = [
        {"a": "one", "b": "two"},
        {"a": "one", "b": "two"},
        {"a": "one", "b": " "},
        {"a": " ", "b": "two"},
        {"a": None, "b": "two"},
        {"a": {"x": 1}, "b": "two"},
        {"a": [1], "b": "two"},
        {"a": "one", "b": ["two"]},
        {"a": "one"},
        {"a": "one", "b": float("nan")},
        {"a": "one \ud800", "b": "two"},
    ]
    counts = Counter()
    found = instances(Proposal("d", "", ("a",), ("b",)), rows, lambda why: counts.update([why]))
    assert [instance.input for instance in found] == ["one", "one \ufffd"]
    assert counts == {
        "kept": 2,
        "duplicate": 1,
        "output empty": 1,
        "input empty": 1,
        "input missing or of another type": 3,
        "output missing or of another type": 3,
    }
