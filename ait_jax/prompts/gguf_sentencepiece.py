"""A GGUF file's SentencePiece vocabulary (Gemma, LLaMA 1 and 2), as `tokenizers` reads it.

SentencePiece's BPE joins, again and again, the two neighbors whose piece has the highest score;
`tokenizers` joins those of the earliest merge. So the merges are all ways to put a piece together
from two others, by the piece's score: as transformers makes tokenizer.json of such models.
"""

import math
from collections.abc import Sequence
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.prompts.gguf_header import Header

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Of a piece; SentencePiece's own limit is 16 if it is not raised; Gemma's longest has 31.
_LONGEST = 1024
# ggml's types of tokens that text is made of; the others are special, unused or bytes.
_NORMAL, _USER_DEFINED = 1, 4


def parts_of(header: Header, tokens: Sequence[str]) -> dict[str, Any]:
    """Returns the parts of tokenizer.json that say how text becomes pieces, and back.

    Args:
        tokens: the vocabulary, no token twice.

    Raises:
        UserError: the file has no scores or types, or not one a token.
    """
    kinds = header.value("tokenizer.ggml.token_type", list)
    scores = header.value("tokenizer.ggml.scores", list)
    if not len(kinds) == len(scores) == len(tokens):
        raise UserError(
            f"{shown_path(header.path)} is damaged: {len(tokens):,} tokens with {len(scores):,} "
            f"scores and {len(kinds):,} types."
        )
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        raise UserError(f"{shown_path(header.path)} is damaged: its scores are not all numbers.")
    longest = max(tokens, key=len, default="")
    if len(longest) > _LONGEST:
        raise UserError(
            f"{shown_path(header.path)} is damaged: {shown(longest)} is no piece, with "
            f"{len(longest):,} characters."
        )
    unknown = header.metadata.get("tokenizer.ggml.unknown_token_id")
    number = unknown if isinstance(unknown, int) else -1
    spaced = header.value("tokenizer.ggml.add_space_prefix", bool, True)
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    stripped = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spaced else []
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                *([{"type": "Prepend", "prepend": _SPACE}] if spaced else []),
                replaced,
            ],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *stripped],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[number] if 0 <= number < len(tokens) else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges(tokens, scores, kinds),
        },
    }


def merges(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Returns the pairs of pieces that make another piece, those of the highest score first.

    Pairs of one piece, and pieces of one score, stand in the order of the vocabulary.
    """
    number_of = {
        token: i
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_NORMAL, _USER_DEFINED)
    }
    found: list[tuple[float, int, int, int, str, str]] = []
    for token, number in number_of.items():
        for place in range(1, len(token)):
            left, right = token[:place], token[place:]
            if left in number_of and right in number_of:
                order = (number_of[left], number_of[right])
                found.append((-scores[number], number, *order, left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]
