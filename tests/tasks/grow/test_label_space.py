"""Dynosaur's label-space rule."""

import pytest
from ait_jax.tasks.grow import label_space
from ait_jax.tasks.grow.dataset import Field


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
    assert label_space.from_rows(values).rejection == rejection


def test_labels_are_told_if_they_are_short():
    told = label_space.from_rows(["no ", "yes", "no", "yes"])
    assert told.suffix == " Answers must be one of no, yes." and told.is_cls
    long = label_space.from_rows(["x" * 16, "yes"])
    assert (long.suffix, long.is_cls, long.rejection) == ("", False, "")
    assert label_space.from_rows(["x" * 15, "yes"]).is_cls
    assert label_space.from_rows([True, False, 2.5]).suffix.endswith("2.5, False, True.")


def test_more_than_ten_are_no_labels():
    assert label_space.from_rows([*"abcdefghijk"] + ["a"] * 80) == label_space.LabelSpace()
    assert label_space.from_rows([*"abcdefghij"]).is_cls


def test_only_the_first_hundred_rows_count():
    assert label_space.from_rows(["a"] * 60 + ["b"] * 40 + ["a"] * 900).rejection == ""


def test_outputs_that_are_no_scalars():
    assert label_space.from_rows(["a", ["b"]]).rejection.startswith("output: neither")


def test_without_rows_by_the_names_of_classes():
    field = Field("label", "label", ("no", "yes"))
    assert label_space.from_field(field).suffix == " Answers must be one of no, yes."
    assert label_space.from_field(Field("flag", "boolean")).suffix.endswith("True, False.")
    assert label_space.from_field(Field("a", "text")) == label_space.LabelSpace()
    many = Field("label", "label", tuple("abcdefghijk"))
    assert label_space.from_field(many) == label_space.LabelSpace()
