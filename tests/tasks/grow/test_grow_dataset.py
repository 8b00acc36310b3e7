"""What is known of a dataset, and what can be read off its rows."""

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field, Tally, class_field, fields_from_rows


def test_kinds_are_read_off_the_rows():
    rows = [
        {"a": None, "b": 1, "c": ["x", "y"], "d": {"e": 1}, "f": True, "image_url": "u", "g": None},
        {"a": "text", "b": 2, "z": "not a column of the first row"},
    ]
    kinds = {field.name: field.kind for field in fields_from_rows(rows)}
    assert kinds == {
        "a": "text",
        "b": "number",
        "c": "texts",
        "d": "nested",
        "f": "boolean",
        "image_url": "media",
        "g": "nested",
    }
    assert fields_from_rows([]) == ()


def test_texts_that_come_again_and_again_are_classes():
    rows = [
        {"text": f"t {i}", "label": "yes no maybe".split()[i % 3], "n": "01"[i % 2]}
        for i in range(20)
    ]
    text, label, number = fields_from_rows(rows)
    assert (text.kind, label.kind, number.kind) == ("text", "label", "number")
    assert label.labels == ("maybe", "no", "yes")
    assert fields_from_rows(rows[:19])[1].kind == "text", "too few rows to tell"


def test_classes_without_names_are_numbers():
    assert class_field("label", ("no", "yes")).kind == "label"
    assert class_field("label", ("0", "1")).kind == "number"
    assert class_field("label", ("only",)).kind == "number"


def test_rows_come_from_elsewhere_and_fill_gaps_only():
    about = Dataset("d", "cards", description="own", fields=(Field("a", "text"),))
    rows = Dataset("d", "lines", description="other", license="mit", rows=[{"a": "x"}])
    both = about.with_rows(rows)
    assert (both.description, both.license, both.rows) == ("own", "mit", [{"a": "x"}])
    assert both.source == "cards"


def test_a_kind_is_one_of_those_known():
    with pytest.raises(ValueError, match="txt"):
        Field("a", "txt")


def test_counts_keep_their_order_and_a_few_examples():
    tally = Tally()
    for i in range(1200):
        tally.add("read", "kept", f"name {i}")
    tally.add("read", "broken", "x" * 500)
    tally.add("made", "tasks")
    assert tally.counts("read") == {"kept": 1200, "broken": 1} and tally.counts("other") == {}
    assert tally.table() == "read:\n  1,200  kept\n      1  broken\nmade:\n      1  tasks"
    report = tally.groups["read"]
    assert report["kept"] == {"count": 1200, "examples": ["name 0", "name 1", "name 2"]}
    assert len(report["broken"]["examples"][0]) == 120
    assert Tally().table() == ""
