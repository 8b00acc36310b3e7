"""Rows -> instances, and Dynosaur's label-space rule."""

from collections import Counter

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.instances import LabelSpace, instances, label_space
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
    assert made(row, "a", "choices", "list") == ("a is 'one'.  A. 'p', B. 'q'.'x', 'y'. "), (
        "lists are not named, and follow each other without a space"
    )
    assert made(row, "choices", "a") == " A. 'p', B. 'q'.a is 'one'. "
    assert made({"a": " one\n", "b": "two "}, "a", "b") == "a is 'one'. b is 'two'. "
    assert made({"a": " one\n"}, "a") == "one"
    assert made({"Choices": ["p"]}, "Choices") == "'p'. ", "by the word as it is written"
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


def test_the_authors_filters_keep_and_stop_where_their_code_does():
    rows = [
        {"a": "one", "b": "two"},
        {"a": "one", "b": "two"},
        {"a": "three", "b": " "},
        {"a": "", "b": "no input"},
        {"a": "four", "b": None},
        {"a": "five", "b": "never reached"},
    ]
    found = instances(Proposal("d", "", ("a",), ("b",)), rows, filters="authors")
    texts = [(instance.input, instance.outputs) for instance in found]
    assert texts == [("one", ("two",)), ("one", ("two",)), ("three", ("",))]
    own = instances(Proposal("d", "", ("a",), ("b",)), rows)
    assert [instance.input for instance in own] == ["one", "five"]


TEXT = Field("out", "text")


def space(values=(), field=TEXT, filters="own"):
    rows = [{"out": value} for value in values]
    return label_space(
        Proposal("d", "", ("a",), ("out",)), Dataset("d", "s", "", (field,), rows=rows), filters
    )


@pytest.mark.parametrize(
    "counts,rejection",
    [
        ({"yes": 70, "no": 30}, ""),
        ({"yes": 71, "no": 29}, "labels: out of balance"),
        ({"a": 50, "b": 49, "c": 1}, ""),
        ({"a": 51, "b": 48, "c": 1}, "labels: out of balance"),
        ({"yes": 100}, "labels: only one"),
    ],
)
def test_absolute_counts(counts, rejection):
    values = [label for label, count in counts.items() for _ in range(count)]
    assert space(values).rejection == rejection


def test_labels_are_told_if_they_are_short():
    told = space(["no ", "yes", "no", "yes"] * 3)
    assert told.suffix == " Answers must be one of no, yes." and told.is_cls
    assert space(["x" * 16, "yes"] * 6) == LabelSpace()
    assert space(["x" * 15, "yes"] * 6).is_cls
    assert space([True, False, 2.5] * 4).suffix.endswith("2.5, False, True.")


def test_more_than_ten_are_no_labels():
    assert space([*"abcdefghijk"] + ["a"] * 80) == LabelSpace()
    assert space([*"abcdefghij"] * 2).is_cls
    assert space([*"abcdefghij"]).unknown == "balance unknown: fewer than 11 rows"


def test_only_the_first_hundred_rows_count():
    assert space(["a"] * 60 + ["b"] * 40 + ["a"] * 900).rejection == ""


def test_outputs_that_are_not_scalars():
    assert space(["a", ["b"]] * 6).rejection.startswith("output: neither")
    assert space([None] * 12).rejection == "output: empty in all rows"


def test_the_authors_filters_drop_nulls_and_judge_few_rows():
    assert not space([None, *"abcdefghijkl"]).rejection
    assert space([None, *"abcdefghijkl"], filters="authors").rejection.startswith("output: neither")
    assert space(["yes", "no"], filters="authors").suffix == " Answers must be one of no, yes."
    assert space(["yes", "yes"], filters="authors").rejection == "labels: only one"


def test_without_rows_by_the_names_of_classes():
    unknown = LabelSpace(unknown="balance unknown: no rows")
    labels = space(field=Field("out", "label", ("no", "yes")))
    assert labels.suffix == " Answers must be one of no, yes." and labels.unknown == unknown.unknown
    assert space(field=Field("out", "boolean")).suffix.endswith("True, False.")
    assert space(field=TEXT) == unknown
    assert space(field=Field("out", "label", tuple("abcdefghijk"))) == unknown


def test_released_instructions_keep_the_labels_they_name():
    told = Proposal(
        "d", "Rate it. Answers must be one of a, b.", ("a",), ("out",), generator="released"
    )
    assert label_space(told, Dataset("d", "s")) == LabelSpace(is_cls=True)
