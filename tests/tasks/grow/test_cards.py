"""Hugging Face dataset cards."""

import os
import time

import pytest
from ait_jax.tasks.grow.cards import read_cards
from ait_jax.tasks.grow.dataset import Tally
from tiny_datasets import CARD, write_card

from ait_jax.errors import UserError


def read(folder):
    tally = Tally()
    return list(read_cards(folder, tally)), tally


def test_header_and_summary(tmp_path):
    write_card(tmp_path, "owner/lakes")
    (dataset,), tally = read(tmp_path)
    assert dataset.name == "owner/lakes" and dataset.license == "cc-by-4.0"
    assert dataset.languages == ("en",) and dataset.task_categories == ("question-answering",)
    assert dataset.description == "Questions about lakes, and their answers."
    assert dataset.website == "https://huggingface.co/datasets/owner/lakes"
    assert dataset.field_names == ("context", "question", "answer", "kind")
    assert dataset.field("kind").labels == ("place", "person")
    assert tally.counts("cards") == {"read": 1}


def test_columns_of_the_text_where_the_header_has_none(tmp_path):
    text = """---
license: [mit, cc-by-4.0]
language: no
---
### Data Fields
- `sentence`: a `string` feature.
- `tokens`: a `list` of `string` features.
- `label`: a classification label, with possible values including `no` (0), `yes` (1).
- **`score`**: a `float32` feature.
* `spans`: a dictionary feature containing:
## Dataset Summary
[More Information Needed]
"""
    write_card(tmp_path, text=text)
    (dataset,), _ = read(tmp_path)
    kinds = [(field.name, field.kind) for field in dataset.fields]
    assert kinds == [
        ("sentence", "text"),
        ("tokens", "texts"),
        ("label", "label"),
        ("score", "number"),
        ("spans", "nested"),
    ]
    assert dataset.field("label").labels == ("no", "yes")
    assert dataset.languages == ("no",), "YAML reads Norwegian's code as false"
    assert dataset.license == "mit and cc-by-4.0" and dataset.description == ""


def test_each_configuration_is_a_dataset(tmp_path):
    text = """---
dataset_info:
- config_name: one
  features:
  - {name: a, dtype: string}
- config_name: default
  features:
  - {name: b, sequence: string}
  - {name: c, dtype: image}
  - {name: d, dtype: int64}
  - {name: e, dtype: bool}
---
"""
    write_card(tmp_path, text=text)
    datasets, _ = read(tmp_path)
    assert [dataset.name for dataset in datasets] == ["lakes-one", "lakes"]
    assert [field.kind for field in datasets[1].fields] == ["texts", "media", "number", "boolean"]


def test_cards_that_cannot_be_read_are_counted(tmp_path):
    write_card(tmp_path, "good")
    write_card(tmp_path, "no_header", "# Only text\n")
    write_card(tmp_path, "latin", "---\nlicense: mit\n---\nfa\xe7ade".encode("latin-1"))
    write_card(tmp_path, "broken", "---\nlicense: [mit\n---\n")
    write_card(tmp_path, "deep", f"---\nlicense: {'[' * 5000}{']' * 5000}\n---\n")
    bomb = "---\nlicense: [&a [x, x], *a, *a]\n---\n"
    write_card(tmp_path, "aliases", bomb)
    write_card(tmp_path, "tag", "---\nlicense: !!python/object/apply:os.system [ls]\n---\n")
    (dataset,), tally = read(tmp_path)
    assert dataset.name == "good"
    assert tally.counts("cards") == {
        "unreadable: malformed YAML": 4,
        "read": 1,
        "unreadable: not UTF-8": 1,
        "unreadable: no YAML header": 1,
    }


@pytest.mark.parametrize(
    "body",
    [
        "- `label`: a classification label, " + ", ".join(f"w{i} ({i})" for i in range(100_000)),
        "- `label`: a classification label, " + "a" * 1_000_000,
        "- `label`: a classification label, w (" + "1" * 5000 + ")",
        "- `" + "*" * 1_000_000,
        "# " + " " * 1_000_000 + "x",
        "## Data Fields\n" * 50_000,
    ],
)
def test_a_card_is_read_once(tmp_path, body):
    write_card(tmp_path, text=f"---\nlicense: mit\n---\n## Data Fields\n{body}\n")
    before = time.process_time()
    ((dataset,), _) = read(tmp_path)
    assert time.process_time() - before < 5, "the time grows as the card does"
    assert dataset.license == "mit"


def test_what_is_no_file_is_counted(tmp_path):
    write_card(tmp_path, "good")
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "endless.md").symlink_to("/dev/zero")
    write_card(tmp_path, os.fsdecode(b"caf\xe9"))
    datasets, tally = read(tmp_path)
    assert [dataset.name for dataset in datasets] == [r"caf\xe9", "good"]
    assert tally.counts("cards") == {
        "read": 2,
        "unreadable: not a regular file": 2,
        "unreadable: No such file or directory": 1,
    }


def test_odd_values_do_no_harm(tmp_path):
    text = (
        "---\nlicense: {a: mit, b: [3, null]}\nlanguage: 7\ndataset_info: [3, {features: x}]\n---\n"
    )
    write_card(tmp_path, text=text)
    (dataset,), _ = read(tmp_path)
    assert (dataset.license, dataset.languages, dataset.fields) == ("mit", (), ())
    write_card(tmp_path, text=CARD.replace("dtype: string", "dtype: [1]"))
    (dataset,), _ = read(tmp_path)
    assert {field.kind for field in dataset.fields} == {"nested", "label"}


def test_a_folder_without_cards(tmp_path):
    with pytest.raises(UserError, match="no dataset cards"):
        read(tmp_path)
