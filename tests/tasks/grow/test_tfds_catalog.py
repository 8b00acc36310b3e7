"""The catalog that the installed TFDS carries, without a network."""

import pytest
from ait_jax.tasks.grow import tfds_catalog
from ait_jax.tasks.grow.dataset import Tally

from ait_jax.errors import UserError


def read(*names):
    tally = Tally()
    return {d.name: d for d in tfds_catalog.read_catalog(tally, names)}, tally


def test_features_and_descriptions():
    datasets, tally = read("ag_news_subset", "glue", "squad", "bool_q")
    news = datasets["ag_news_subset"]
    assert {f.name: f.kind for f in news.fields} == {
        "label": "label",
        "title": "text",
        "description": "text",
    }
    assert news.field("label").labels == ("World", "Sports", "Business", "Sci/Tech")
    assert "news articles" in news.description and news.rows == ()
    assert datasets["glue-sst2"].field("label").labels == ("negative", "positive")
    assert datasets["glue-sst2"].family == datasets["glue-cola"].family
    assert datasets["glue-sst2"].description != datasets["glue-cola"].description
    squad = {f.name: f.kind for f in datasets["squad-v1.1"].fields}
    assert squad["answers"] == "nested" and squad["question"] == "text"
    assert datasets["bool_q"].field("answer").kind == "boolean"
    assert tally.counts("TFDS catalog")["configurations read"] == len(datasets) == 16


def test_plain_strings_are_texts():
    datasets, _ = read("xsum", "pg19")
    assert datasets["pg19"].field("book_title").kind == "text"
    assert datasets["pg19"].field("book_id").kind == "number"
    assert datasets["xsum"].field("summary").kind == "text"


def test_languages():
    datasets, _ = read("squad", "xquad", "wmt19_translate", "qa4mre", "wiki40b", "blimp")
    assert datasets["squad-v1.1"].languages == ("en",)
    assert datasets["xquad-de"].languages == ("de",)
    assert set(datasets["wmt19_translate-de-en"].languages) == {"de", "en"}
    assert datasets["qa4mre-2011.main.DE"].languages == ("de",)
    assert datasets["wiki40b-zh-cn"].languages == ("zh-cn",)
    assert datasets["blimp-adjunct_island"].languages == ()


def test_media_lists_and_licenses():
    datasets, _ = read("mnist", "cos_e", "wordnet")
    assert [f.kind for f in datasets["mnist"].fields if f.name == "image"] == ["media"]
    assert datasets["cos_e"].field("choices").kind == "texts"
    assert "WordNet" in datasets["wordnet-WN18"].license


def test_builders_that_need_the_network_are_counted():
    datasets, tally = read("bridge", "rlu_rwrl")
    reason = "builder keeps its features in a bucket, not in the package"
    assert datasets == {} and tally.counts("TFDS catalog") == {reason: 2}


def test_a_builder_that_fails_is_counted(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(tfds_catalog.tfds, "builder_cls", fail)
    _datasets, tally = read("glue")
    assert tally.counts("TFDS catalog") == {"builder does not import: needs pandas": 1}


def test_an_unknown_name():
    with pytest.raises(UserError, match="--from=tfds:gleu: .* Did you mean 'glue'"):
        read("gleu")
