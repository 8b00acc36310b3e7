"""`--from`: which source a word or a path stands for."""

import json

import pytest
from ait_jax.tasks.grow.sources import source
from ait_jax.tasks.grow.tally import Tally
from tiny_datasets import instruction, reviews, write_card, write_lines

from ait_jax.errors import UserError


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
