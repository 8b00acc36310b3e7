"""Tasks as generators propose them, and the authors' filters."""

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.proposal import (
    MAX_INSTRUCTION,
    Proposal,
    ProposalFilter,
    proposal_from_json,
)

FIELDS = tuple(Field(name, "text") for name in ("a", "b", "c"))
ROWS = Dataset("d", "s", fields=FIELDS, rows=[{"a": "", "b": "", "c": ""}], family="d")


def proposal(instruction="Do it.", inputs=("a",), output=("b",), dataset="d", **more):
    return Proposal(dataset, instruction, inputs, output, **more)


@pytest.mark.parametrize(
    "data",
    [
        {"instruction": "Do it.", "input_fields": ["a"], "output_field": ["b"]},
        {"Instruction": " Do it. ", "input fields": "a", "Output-Field": "b"},
        {"instruction": "Do it.", "inputs": ["a", "a"], "output_fields": ("b",)},
    ],
)
def test_keys_as_models_write_them(data):
    assert proposal_from_json(data, "d") == proposal()


@pytest.mark.parametrize(
    "data,reason",
    [
        (["instruction"], "not a dictionary"),
        ({"input_fields": ["a"]}, "no instruction"),
        ({"instruction": "  "}, "no instruction"),
        ({"instruction": ["Do it."]}, "no instruction"),
        ({"instruction": "x" * (MAX_INSTRUCTION + 1)}, "longer than 2000"),
        ({"instruction": "Do it.", "input_fields": [1]}, "not a list of names"),
        ({"instruction": "Do it.", "input_fields": ["a"], "output_field": {"b": 1}}, "not a list"),
    ],
)
def test_what_is_wrong_is_said(data, reason):
    assert reason in proposal_from_json(data, "d")


def test_text_that_no_file_can_hold_is_mended():
    data = {"instruction": "Do \ud800 it.", "input_fields": ["a\udc00"], "output_field": ["b"]}
    made = proposal_from_json(data, "d")
    assert made.instruction == "Do \ufffd it." and made.input_fields == ("a\ufffd",)


@pytest.mark.parametrize(
    "given,reason",
    [
        ({"output": ()}, "output field: none"),
        ({"inputs": ()}, "input fields: none"),
        ({"inputs": ("a", "z")}, "fields: not in the dataset"),
        ({"output": ("z",)}, "fields: not in the dataset"),
        ({"inputs": ("a", "b")}, "fields: both input and output"),
    ],
)
def test_the_authors_filters(given, reason):
    assert ProposalFilter().rejection(proposal(**given), ROWS) == reason


def test_duplicates():
    seen = ProposalFilter()
    assert seen.rejection(proposal(), ROWS) == ""
    assert seen.rejection(proposal(), ROWS) == "duplicate: the very same task"
    again = "duplicate: instruction given before for this dataset"
    assert seen.rejection(proposal(output=("c",)), ROWS) == again
    assert seen.rejection(proposal("Do that."), ROWS) == ""
    released = proposal(output=("c",), generator="released")
    assert seen.rejection(released, ROWS) == "", "released instructions stand as they are"


def test_an_instruction_once_in_an_answer_as_in_the_authors_code():
    for per_answer in (False, True):
        seen = ProposalFilter(per_answer)
        aware = {"generator": "description-aware"}
        assert seen.rejection(proposal(**aware), ROWS) == ""
        assert seen.rejection(proposal(output=("c",), **aware), ROWS)
        other = proposal(output=("c",), generator="description-unaware")
        assert bool(seen.rejection(other, ROWS)) != per_answer
        assert seen.rejection(proposal(), ROWS) == "duplicate: the very same task"


def test_configurations_without_rows_cannot_be_told_apart():
    seen = ProposalFilter()
    one, other = (Dataset(n, "tfds", fields=FIELDS, family="f") for n in ("d-1", "d-2"))
    assert seen.rejection(proposal(dataset="d-1"), one) == ""
    assert "no rows" in seen.rejection(proposal(dataset="d-2"), other)
    labelled = Dataset(
        "d-3", "tfds", fields=(FIELDS[0], Field("b", "label", ("x", "y"))), family="f"
    )
    assert seen.rejection(proposal(dataset="d-3"), labelled) == ""


def test_fields_are_not_checked_where_none_are_known():
    assert ProposalFilter().rejection(proposal(inputs=("z",)), Dataset("d", "s")) == ""
