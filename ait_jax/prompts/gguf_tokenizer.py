"""A GGUF file's tokenizer, as `tokenizers` reads it: byte-level BPE or SentencePiece's.

GGUF only names how text is split before merging (tokenizer.ggml.pre); llama.cpp's
src/llama-vocab.cpp defines the names, as the models were trained.
"""

from collections.abc import Mapping
from typing import Any

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.prompts import gguf_sentencepiece
from ait_jax.prompts.gguf_header import Header

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
# GPT-2's expression is built into `tokenizers`.
_GPT2 = {**_BYTES, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    return {**split, "invert": False}


def _words(digits: str) -> str:
    """Returns the expression of tiktoken's newer vocabularies; `digits` repeats a digit."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# How text is split, by name.
_PLAIN_BYTES = {**_BYTES, "use_regex": False}
_LLAMA3 = [_split(_words("{1,3}")), _PLAIN_BYTES]
_SPLITS = {
    "gpt-2": [_GPT2],
    "smollm": [_DIGITS, _GPT2],
    "llama-bpe": _LLAMA3,
    "qwen2": [_split(_words("")), _PLAIN_BYTES],
    "default": [_GPT2],
    "llama3": _LLAMA3,
}
# Their vocabularies have whole words that merges do not reach.
_WHOLE_WORDS = ("llama-bpe", "llama3")
# ggml's type of user-defined tokens, which are text.
_USER_DEFINED = 4


def tokenizer_of(header: Header, special: Mapping[str, int]) -> dict[str, Any]:
    """Returns tokenizer.json's content for a GGUF file's vocabulary.

    Args:
        header: the file.
        special: ids of its special tokens, which text never becomes.

    Raises:
        UserError: the vocabulary is of another kind, or damaged.
    """
    tokens = header.value("tokenizer.ggml.tokens", list)
    if len(set(tokens)) < len(tokens):
        raise UserError(
            f"{shown_path(header.path)} is damaged: {len(tokens) - len(set(tokens))} tokens repeat."
        )
    if header.value("tokenizer.ggml.model", str) == "llama":
        parts, adds_first = gguf_sentencepiece.parts_of(header, tokens), True
    else:
        split = _splitter(header)
        parts, adds_first = _byte_level(header, tokens, split), split in _WHOLE_WORDS
    kinds = header.metadata.get("tokenizer.ggml.token_type", [])
    plain = {tokens[i]: i for i, kind in enumerate(kinds[: len(tokens)]) if kind == _USER_DEFINED}
    added = [added_token(text, i, special=True) for text, i in special.items()]
    added += [
        added_token(text, i, special=False) for text, i in plain.items() if text not in special
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": _begin_of_text(header, special, adds_first),
        **parts,
    }


def _byte_level(header: Header, tokens: list[str], split: str) -> dict[str, Any]:
    """Returns the parts of tokenizer.json that say how text becomes tokens, and back."""
    merges = [_pair(header, merge) for merge in header.value("tokenizer.ggml.merges", list)]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _SPLITS[split]},
        "decoder": {**_GPT2, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split in _WHOLE_WORDS,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _splitter(header: Header) -> str:
    """Returns how the file splits text, by its name; UserError if that is not read here."""
    kind = header.value("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise UserError(
            f"{shown_path(header.path)} has a {shown(kind)} vocabulary (tokenizer.ggml.model), but "
            "only byte-level BPE ('gpt2') and SentencePiece ('llama') are read from GGUF files. "
            "Set VOCABULARY_PATH to the folder of the same model's tokenizer.json."
        )
    split = header.value("tokenizer.ggml.pre", str, "default")
    if split not in _SPLITS:
        raise UserError(
            f"{shown_path(header.path)} splits text as {shown(split)} (tokenizer.ggml.pre), which "
            f"is unknown; known are {', '.join(_SPLITS)}.{nearest(split, _SPLITS)} Set "
            "VOCABULARY_PATH to the folder of the same model's tokenizer.json."
        )
    return split


def _pair(header: Header, merge: Any) -> list[str]:
    parts = merge.split(" ") if isinstance(merge, str) else []
    if len(parts) != 2 or not all(parts):
        raise UserError(
            f"{shown_path(header.path)} is damaged: {shown(merge)} is not a merge of two tokens."
        )
    return parts


def added_token(text: str, number: int, *, special: bool) -> dict[str, Any]:
    """Returns an entry of tokenizer.json's `added_tokens`."""
    token = {"id": number, "content": text, "single_word": False, "lstrip": False}
    return {**token, "rstrip": False, "normalized": False, "special": special}


def _begin_of_text(header: Header, special: Mapping[str, int], usual: bool) -> dict[str, Any]:
    """Returns the part that puts the model's first token, if it wants one, before a text.

    Args:
        usual: whether it does where the file does not say.
    """
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single, known = [text], {}
    number = header.metadata.get("tokenizer.ggml.bos_token_id")
    wanted = header.value("tokenizer.ggml.add_bos_token", bool, usual)
    first = next((token for token, i in special.items() if i == number), None)
    if wanted and first is not None:
        single = [{"SpecialToken": {"id": first, "type_id": 0}}, text]
        known = {first: {"id": first, "ids": [number], "tokens": [first]}}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": known,
    }
