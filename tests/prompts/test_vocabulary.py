"""The vocabulary: SeqIO's ids, sentinels, any Unicode, and files that are none."""

from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED, needs_shared

from ait_jax.assets import mini_vocabulary
from ait_jax.errors import UserError
from ait_jax.pool.task import Instruction
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID, UNK_ID, Vocabulary, clean_up

TEXTS = [
    "Definition: In this task, you are given 2 numbers; say which is larger.\n\n",
    "  spaces   and\ttabs\n\n Now complete the following example -\n",
    "Grüße aus 東京, \U0001f600 \u0645\u0631\u062d\u0628\u0627 \u200b\ufb01",
    "",
    "x",
]
MASKED = "Definition: <extra_id_0> this <extra_id_1>\n Input: <extra_id_99> end"


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(mini_vocabulary())


@pytest.fixture(scope="module")
def processor(vocabulary):
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(model_file=vocabulary.path)


def test_ids_are_sentencepieces(vocabulary, processor):
    for text in TEXTS:
        assert vocabulary.encode(text) == processor.encode(text)
    assert vocabulary.encode_batch(TEXTS) == [processor.encode(text) for text in TEXTS]
    assert vocabulary.vocab_size == processor.get_piece_size() + 100 == 4096
    special = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    assert special == (PAD_ID, EOS_ID, UNK_ID) == (0, 1, 2)


def test_ids_are_seqios(vocabulary):
    seqio = pytest.importorskip("seqio")
    theirs = seqio.SentencePieceVocabulary(vocabulary.path, extra_ids=100)
    assert theirs.vocab_size == vocabulary.vocab_size
    for text in [*TEXTS, MASKED, "a<extra_id_3> <extra_id_4>ly <extra_id_100>"]:
        assert vocabulary.encode(text) == theirs.encode(text)


def test_sentinels_in_text(vocabulary):
    ids = vocabulary.encode(MASKED)
    assert [i for i in ids if i >= 3996] == [4095, 4094, 3996]
    assert [vocabulary.sentinel(i) for i in (0, 1, 99)] == [4095, 4094, 3996]
    without = vocabulary.encode("Definition: this Input: end")
    assert [i for i in ids if i < 3996] == without
    assert vocabulary.decode(ids) == "Definition: this Input: end"
    # A sentinel that the vocabulary lacks is ordinary text, and so is every one of 0.
    assert max(vocabulary.encode("<extra_id_100>")) < 3996
    none = Vocabulary(vocabulary.path, extra_ids=0)
    assert none.vocab_size == 3996 and max(none.encode("<extra_id_0>")) < 3996


def test_sentinels_out_of_range(vocabulary):
    for index in (-1, 100):
        with pytest.raises(UserError, match="100 extra ids"):
            vocabulary.sentinel(index)


def test_any_unicode_comes_back(vocabulary):
    # Byte fallback: nothing is unknown. NFKC and the squeezing of spaces are T5's own.
    text = "naïve Ωmega 漢字 \U0001f9ea ᚠᚢ ไทย \U00020000"
    ids = vocabulary.encode(text)
    assert UNK_ID not in ids and vocabulary.decode(ids) == text
    letters = [chr(c) for c in np.random.default_rng(0).integers(0x4E00, 0x9FA5, 300)]
    assert vocabulary.decode(vocabulary.encode("".join(letters))) == "".join(letters)


def test_decode_stops_at_the_end_and_drops_padding(vocabulary):
    ids = vocabulary.encode("one two")
    assert vocabulary.decode([0, *ids, 1, *ids]) == "one two"
    assert vocabulary.decode([*np.asarray(ids), 0, 0]) == "one two"
    # A model's padded token table may know ids that the vocabulary does not.
    assert vocabulary.decode([*ids, 4095, 5000]) == "one two"
    assert vocabulary.decode([]) == vocabulary.decode([1]) == ""


# --- characters that a vocabulary lacks ---


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Like T5's own: no bytes to fall back to, so braces and the like are unknown."""
    sentencepiece = pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("small") / "small.model"
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["is it yes or no , they 've said . it 's n't"] * 20),
            model_writer=file,
            vocab_size=30,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    return Vocabulary(path)


# What `T5TokenizerFast.decode(ids, skip_special_tokens=True)` of transformers 4.30 gives.
DECODED = {
    "{yes}": "yes",
    "{": "",
    "{} no ~": "no",
    "it {is} no": "it is no",
    "yes , no .": "yes, no.",
    "it 's no n't , they 've said": "it's non't, they've said",
    "yes ' no": "yes'no",
}


def test_unknown_tokens_vanish(small):
    for text, expected in DECODED.items():
        assert small.decode([*small.encode(text), EOS_ID]).strip() == expected, text
    assert [small.lacks(text) for text in ("{yes}", "yes", "")] == [True, False, False]


def test_a_cut_prompt_is_cut_once(small):
    text = "yes { } ~ no " * 9
    for most in range(1, 30):
        cut = small.truncate(text, most)
        assert "\u2047" not in cut and len(small.encode(cut)) <= most
    prompt = TkInstructEncoding(0, max_source_length=20).encode(
        Instruction("{yes}"), text, small.count_tokens, small.truncate
    )
    assert prompt.tokens_cut and prompt.tokens <= 20 + 1
    assert "yes" in prompt.text and "\u2047" not in prompt.text


def test_seqio_decodes_alike(small):
    pytest.importorskip("seqio")
    from ait_jax.tasks.seqio_vocabulary import seqio_vocabulary

    theirs = seqio_vocabulary(small)
    assert theirs.encode("{yes} , no") == small.encode("{yes} , no")
    assert theirs.decode([*small.encode("{yes} , no"), EOS_ID]) == "yes, no"
    assert theirs == seqio_vocabulary(Vocabulary(small.path))
    assert theirs != seqio_vocabulary(Vocabulary("absent.model"))


def test_cleaned_up_by_hand():
    text = "a . b ? c ! d , e ' f do n't I 'm he 's we 've they 're ( g ) : h"
    assert clean_up(text) == "a. b? c! d, e'f don't I'm he's we've they're ( g ) : h"
    assert clean_up("a.b  . c '") == "a.b . c '"


@needs_shared
def test_the_reported_vocabulary():
    reported = Vocabulary(SHARED / "cases" / "bug_reports" / "oov_unknown" / "sp.model")
    assert reported.decode(reported.encode("{yes}")) == "yes"
    assert reported.truncate("{yes} { { {", 8).strip() == "yes"
    assert reported.lacks("{yes}") and not reported.lacks("yes")


def test_counting_and_truncating(vocabulary):
    text = "the cat sat on the mat"
    ids = vocabulary.encode(text)
    assert vocabulary.count_tokens(text) == len(ids) + 1
    assert vocabulary.truncate(text, len(ids)) == text
    cut = vocabulary.truncate(text, 3)
    assert text.startswith(cut) and 0 < len(vocabulary.encode(cut)) <= 3
    assert vocabulary.truncate(text, 0) == ""
    assert vocabulary.truncate("a <extra_id_7> b c", 2) == "a <extra_id_7>"
    assert vocabulary.encode_source(text, 100) == [*ids, 1]
    assert vocabulary.encode_source(text, 4) == [*ids[:3], 1]


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="No SentencePiece model.*VOCABULARY_PATH"):
        Vocabulary(tmp_path / "absent.model").encode("x")
    with pytest.raises(UserError, match="No SentencePiece model"):
        Vocabulary(tmp_path).encode("x")


def test_foreign_and_cut_files(tmp_path, vocabulary):
    path = tmp_path / "some.model"
    with open(vocabulary.path, "rb") as file:
        whole = file.read()
    for content in (b"", b"not a model", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a SentencePiece model.*VOCABULARY_PATH"):
            Vocabulary(path).encode("x")


def test_a_model_with_other_special_ids(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    with open(tmp_path / "other.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c d e f g h"] * 20),
            model_writer=file,
            vocab_size=14,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    with pytest.raises(UserError, match=r"\(-1, 2, 0\), T5 needs \(0, 1, 2\)"):
        Vocabulary(tmp_path / "other.model").encode("a")


def test_pieces_that_are_no_text(tmp_path):
    model = Path(mini_vocabulary()).read_bytes()
    piece = Vocabulary(mini_vocabulary()).pieces([300])[0].encode()
    (tmp_path / "x.model").write_bytes(model.replace(piece, b"\xff" * len(piece), 1))
    with pytest.raises(UserError, match="x.model' is not a SentencePiece model"):
        Vocabulary(str(tmp_path / "x.model")).encode("x")
