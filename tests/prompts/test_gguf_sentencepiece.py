"""SentencePiece vocabularies in GGUF against the library itself."""

import io
import json
import math

import pytest
from tiny_llama import TEXTS, needs_tokenizers

from ait_jax.errors import UserError
from ait_jax.prompts.gguf_header import Header
from ait_jax.prompts.gguf_tokenizer import tokenizer_of

pytestmark = needs_tokenizers
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
# ggml's types of tokens: normal, unknown, control, byte.
KINDS = {"normal": 1, "unknown": 2, "control": 3, "byte": 6}


@pytest.fixture(scope="module", params=[True, False], ids=["spaced", "plain"])
def trained(request):
    """A small BPE model, and whether it puts a space before a text."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXTS for line in text.split("\n") if line] * 3),
        model_writer=model, model_type="bpe", vocab_size=360, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=request.param, minloglevel=2, character_coverage=0.98,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), request.param


def header_of(pieces, spaced, **changes):
    def kind(i):
        if pieces.is_byte(i):
            return KINDS["byte"]
        if pieces.is_unknown(i):
            return KINDS["unknown"]
        return KINDS["control" if pieces.is_control(i) else "normal"]

    numbers = range(pieces.get_piece_size())
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in numbers],
        "tokenizer.ggml.scores": [pieces.get_score(i) for i in numbers],
        "tokenizer.ggml.token_type": [kind(i) for i in numbers],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": spaced,
    }
    return Header("x.gguf", {**metadata, **changes}, {})


def test_ids_and_texts_are_the_librarys(trained):
    from tokenizers import Tokenizer

    pieces, spaced = trained
    made = Tokenizer.from_str(json.dumps(tokenizer_of(header_of(pieces, spaced), SPECIAL)))
    texts = [*TEXTS[:3], "one two  three", " x", "ab\u20ac\U0001f600", "don't 12345"]
    for text in texts:
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == pieces.encode(text), text
        assert made.decode(ids) == text
    assert len({tuple(pieces.encode(text)) for text in texts}) == len(texts)
    assert made.encode("x").ids[0] == 1, "begins with the first token"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("scores", [0.0], "tokens with 1 scores"),
        ("scores", None, "has no metadata"),
        ("token_type", [1, 1], "and 2 types"),
        ("tokens", ["a"] * 360, "359 tokens repeat"),
    ],
)
def test_damaged_vocabularies_are_refused(trained, name, value, problem):
    header = header_of(*trained, **{f"tokenizer.ggml.{name}": value})
    with pytest.raises(UserError, match=problem):
        tokenizer_of(header, SPECIAL)


def test_scores_that_are_none_and_endless_pieces_are_refused(trained):
    good = header_of(*trained).metadata
    scores, tokens = list(good["tokenizer.ggml.scores"]), list(good["tokenizer.ggml.tokens"])
    for wrong in (math.nan, "1", None):
        changed = {"tokenizer.ggml.scores": [*scores[:-1], wrong]}
        with pytest.raises(UserError, match="scores are not all numbers"):
            tokenizer_of(header_of(*trained, **changed), SPECIAL)
    changed = {"tokenizer.ggml.tokens": [*tokens[:-1], "x" * 5000]}
    with pytest.raises(UserError, match="is no piece, with 5,000 characters"):
        tokenizer_of(header_of(*trained, **changed), SPECIAL)
