"""`--from`, and the files of Dynosaur's authors."""

import json
import os

import pytest
from ait_jax.tasks.grow.dataset import Tally
from ait_jax.tasks.grow.sources import DatasetLines, read_instructions, source
from shared_data import SHARED, needs_shared
from tiny_datasets import instruction, reviews, write_card, write_lines

from ait_jax.errors import UserError


def test_lines_become_datasets(tmp_path):
    path = write_lines(tmp_path / "data.jsonl", [reviews(), b"", reviews("other", 300)])
    tally = Tally()
    first, second = DatasetLines(path).read(tally)
    assert first.name == "shop_reviews" and first.license == "mit" and len(first.rows) == 40
    assert first.description == "Reviews of kettles from a shop." and first.languages == ()
    assert first.field_names == ("review", "label", "product_id")
    assert len(second.rows) == 100, "the first 100 rows"
    assert tally.counts("metadata lines") == {"read": 2}


def test_random_access_by_name(tmp_path):
    lines = DatasetLines(write_lines(tmp_path / "data.jsonl", [reviews("a", 3), reviews("b", 5)]))
    assert len(lines.get("b").rows) == 5 and len(lines.get("a").rows) == 3
    assert lines.get("c") is None


def test_bad_lines_are_counted_and_passed_over(tmp_path):
    bad = [
        b'{"task_name": "cut',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"3",
        reviews(task_name=None),
        reviews(selected_data="x"),
        reviews(selected_data=[]),
        reviews(selected_data=[3]),
        reviews("good"),
        reviews("good"),
    ]
    tally = Tally()
    (dataset,) = DatasetLines(write_lines(tmp_path / "data.jsonl", bad)).read(tally)
    assert dataset.name == "good"
    assert tally.counts("metadata lines") == {
        "unreadable: malformed JSON": 2,
        "unreadable: not UTF-8": 1,
        "unreadable: not an object": 1,
        "unreadable: no task_name": 1,
        "unreadable: selected_data is not a list": 1,
        "unreadable: selected_data has no rows": 2,
        "read": 1,
        "duplicate: name of an earlier line": 1,
    }


def test_multilinguality(tmp_path):
    said = ["english", "translation", ["multilingual", "fi"], "fi", None]
    path = write_lines(
        tmp_path / "d.jsonl", [reviews(str(i), multilinguality=m) for i, m in enumerate(said)]
    )
    languages = [dataset.languages for dataset in DatasetLines(path).read(Tally())]
    assert languages == [(), ("several", "languages"), ("several", "languages"), ("fi",), ()]


def test_instructions_with_bad_entries(tmp_path):
    path = tmp_path / "instructions.json"
    entries = [instruction(), 3, {}, instruction(instruction=7), instruction(input_fields={"a": 1})]
    path.write_text(json.dumps(entries))
    assert source(path).kind == "instructions"
    tally = Tally()
    (proposal,) = read_instructions(path, tally)
    assert proposal.generator == "released" and proposal.input_fields == ("review",)
    assert tally.counts("released instructions") == {
        "read": 1,
        "unreadable: no task_name": 2,
        "unreadable: no instruction": 1,
        "unreadable: input or output fields are not a list of names": 1,
    }


@pytest.mark.parametrize(
    "data,message",
    [(b'[{"a": 1},]', "line 1, column 11"), (b'["\xff"]', "not UTF-8"), (b"{}", "list")],
)
def test_files_that_are_no_instructions(tmp_path, data, message):
    path = tmp_path / "instructions.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_instructions(path, Tally())
    with pytest.raises(UserError, match="No such file"):
        DatasetLines(tmp_path / "nothing")


@needs_shared
def test_the_released_instructions():
    tally = Tally()
    proposals = read_instructions(SHARED / "data/dynosaur/instructions-full.json", tally)
    assert tally.counts("released instructions") == {"read": 5740}
    assert len({proposal.key for proposal in proposals}) == 5740
    assert len({proposal.dataset for proposal in proposals}) == 2061
    assert sum("Answers must be one of" in p.instruction for p in proposals) == 1231
    assert sum(bool(p.context) for p in proposals) == 2


def test_every_kind_is_recognised(tmp_path):
    lines = write_lines(tmp_path / "data.jsonl", [reviews()])
    released = tmp_path / "instructions.json"
    released.write_text(f"\ufeff \n{json.dumps([instruction()])}")
    write_card(tmp_path / "cards")
    kinds = {
        "tfds": "tfds",
        "tfds:glue,squad": "tfds",
        lines: "lines",
        released: "instructions",
        tmp_path / "cards": "cards",
    }
    assert {given: source(given).kind for given in kinds} == kinds
    assert [d.name for d in source(lines).datasets(Tally())] == ["shop_reviews"]
    assert [d.name for d in source(tmp_path / "cards").datasets(Tally())] == ["lakes"]
    assert len(source(released).proposals(Tally())) == 1
    assert source(lines).proposals(Tally()) == () and not list(source(released).datasets(Tally()))


def test_what_is_not_there():
    with pytest.raises(UserError, match="--from=tdfs: no such file.*tfds, tfds:NAME"):
        source("tdfs")


def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="cannot read the file: not a regular file"):
            DatasetLines(path)
        with pytest.raises(UserError, match="no such file or folder"):
            source(path)
