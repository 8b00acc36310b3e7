"""T5's tokenizer.json: ids and texts are those of the package tokenizers."""

import json

import pytest
from tiny_llama import needs_tokenizers, write_tokenizer
from tiny_t5_tokenizer import content, write

from ait_jax.errors import UserError
from ait_jax.prompts import t5_tokenizer
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary, vocabulary_at
from ait_jax.prompts.vocabulary import Vocabulary

pytestmark = needs_tokenizers
TEXTS = [
    "Definition: In this task, you are given 2 numbers. Output: yes",
    "  two  blanks,\ttabs\nand lines ",
    "Gr\u00fc\u00dfe {yes} \u6771\u4eac \U0001f600",
    "",
]


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_ids_are_those_of_tokenizers(tmp_path, byte_fallback):
    from tokenizers import Tokenizer

    folder = write(tmp_path, byte_fallback=byte_fallback)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    for path in (folder, folder / "tokenizer.json"):
        ours = vocabulary_at(str(path))
        assert type(ours) is Vocabulary
        assert ours.vocab_size == theirs.get_vocab_size() and ours.own_sentinels == 100
        for text in TEXTS:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
            assert ours.encode_source(text, 99) == theirs.encode(text).ids
        assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]
    assert (
        ours.decode([*ours.encode("you are in  this task, yes."), 1, 5])
        == "you are in this task, yes."
    )
    assert ours.decode(ours.encode("you {are")) == ("you {are" if byte_fallback else "you are")
    assert ours.lacks("{") == (not byte_fallback)


def test_sentinels_in_texts_and_no_other_special_token(tmp_path):
    ours = Vocabulary(str(write(tmp_path)))
    assert ours.sentinel(0) == ours.vocab_size - 1
    ids = ours.encode("you <extra_id_0> are <extra_id_99>")
    assert (ids.count(ours.sentinel(0)), ids.count(ours.sentinel(99))) == (1, 1)
    assert not {0, 1} & set(ours.encode("you</s> <pad> are"))
    assert ours.decode([ours.sentinel(0), *ours.encode("yes")]) == "yes"
    assert "<extra_id_3>" in ours.truncate("you <extra_id_3> are", 50)


def test_sentinels_that_the_file_lacks_follow_it(tmp_path):
    ours = Vocabulary(str(write(tmp_path, sentinels=0)), extra_ids=3)
    size = len(content(sentinels=0)["model"]["vocab"])
    assert (ours.vocab_size, ours.own_sentinels) == (size + 3, 0)
    assert ours.encode("<extra_id_0>")[-1] == size + 2
    with pytest.raises(UserError, match="its 7 sentinels are not the last ids"):
        Vocabulary(str(write(tmp_path, sentinels=7)), extra_ids=9).encode("")


def test_other_special_ids_are_refused_by_name(tmp_path):
    folder = write(tmp_path)
    settings = {"eos_token": {"content": "<unk>"}, "pad_token": "<pad>", "unk_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"ids \(0, 2, 1\), T5 needs \(0, 1, 2\)"):
        Vocabulary(str(folder)).encode("")
    with pytest.raises(UserError, match="No SentencePiece model in .*/empty, nor"):
        (tmp_path / "empty").mkdir()
        Vocabulary(str(tmp_path / "empty")).encode("")


def test_whose_tokenizer_a_folder_holds(tmp_path):
    (tmp_path / "llama").mkdir()
    write_tokenizer(tmp_path / "llama")
    assert type(vocabulary_at(str(tmp_path / "llama"))) is TokenizersVocabulary
    t5 = write(tmp_path / "t5")
    assert t5_tokenizer.is_place(t5)
    (t5 / "config.json").write_text('{"model_type": "llama"}')
    assert not t5_tokenizer.is_place(t5)
    (t5 / "spiece.model").write_bytes(b"x")
    assert t5_tokenizer.is_place(t5) and t5_tokenizer.file_of(t5).name == "spiece.model"


@pytest.mark.parametrize(
    "change",
    [
        dict(added_tokens=7),
        dict(added_tokens=[7]),
        dict(model={}),
        dict(model=[1]),
        dict(model={"type": "Unigram", "vocab": [7], "unk_token": []}),
    ],
)
def test_damaged_ones(tmp_path, change):
    folder = write(tmp_path)
    (folder / "tokenizer.json").write_text(json.dumps(content() | change))
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Vocabulary(str(folder)).encode("")
