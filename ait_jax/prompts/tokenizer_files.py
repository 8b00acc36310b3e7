"""Tokenizer files of decoder-only models: a folder with tokenizer.json, or GGUF.

Both become the JSON that the `tokenizers` library reads, with the special tokens and the order of
ids. Nothing in the files is run; a chat template is only kept.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ait_jax.errors import UserError, shown_path
from ait_jax.prompts import gguf_header, gguf_tokenizer, tokenizer_trial
from ait_jax.prompts.token_order import TokenOrder, order_of
from ait_jax.runtime import files, untrusted
from ait_jax.runtime.buckets import is_local

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
_GENERATION = ("generation_config.json", "config.json")
# Files that belong to a tokenizer and are copied with it.
EXTRA_FILES = ("special_tokens_map.json", CHAT_TEMPLATE)
_ROLES = ("bos", "eos", "pad", "unk")


@dataclass(frozen=True)
class SpecialTokens:
    """A model's special tokens.

    Attributes:
        ids: {text: id} of all, in the model's own order.
        roles: {"bos", "eos", "pad" or "unk": text}, as far as the files name them.
        chat_template: Jinja source, "" if there is none.
        order: of the model's ids.
    """

    ids: Mapping[str, int]
    roles: Mapping[str, str]
    chat_template: str
    order: TokenOrder


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer.

    Attributes:
        source: where it came from.
        tokenizer: tokenizer.json's content.
        special: its special tokens.
        is_ours: whether the content was written here, from GGUF's metadata.
    """

    source: str
    tokenizer: str
    special: SpecialTokens
    is_ours: bool = False


def is_place(path: Any) -> bool:
    """Whether `read` takes `path`: tokenizer.json, a folder with one, or GGUF."""
    path = files.as_path(path)
    if path.is_dir():
        return (path / TOKENIZER).is_file()
    return path.name == TOKENIZER or (path.is_file() and gguf_header.is_gguf(path))


def read(path: Any) -> TokenizerFiles:
    """Returns the tokenizer of a folder, a tokenizer.json (with what lies beside it) or GGUF.

    Raises:
        UserError: missing or damaged files, or an unsupported kind of vocabulary.
    """
    path = files.as_path(path)
    if not path.is_dir() and path.name != TOKENIZER:
        header = gguf_header.read_header(path)
        special = _special_of_gguf(header)
        return TokenizerFiles(
            str(path), json.dumps(gguf_tokenizer.tokenizer_of(header, special.ids)), special
        )
    return _read_folder(path if path.is_dir() else path.parent)


def special_tokens(path: Any) -> SpecialTokens:
    """Returns the special tokens of a Hugging Face folder or GGUF file; errors as of `read`.

    Weights need their order even if their vocabulary is of an unsupported kind.
    """
    path = files.as_path(path)
    if path.is_dir():
        return _read_folder(path).special
    return _special_of_gguf(gguf_header.read_header(path))


# --- Hugging Face ---


def _read_folder(folder: Any) -> TokenizerFiles:
    stamp = ()
    if is_local(folder):
        names = (TOKENIZER, SETTINGS, *EXTRA_FILES, *_GENERATION)
        stamp = tuple(_stamp(folder / name) for name in names)
    return _read_folder_once(folder, stamp)


def _stamp(path: Any) -> tuple[int, int]:
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)


# The vocabulary and the weights both read it.
@lru_cache(maxsize=2)
def _read_folder_once(folder: Any, stamp: tuple[tuple[int, int], ...]) -> TokenizerFiles:
    del stamp
    # What it cuts and pads by default is not wanted here, but is checked as it is read.
    tokenizer = untrusted.read_json(folder / TOKENIZER) | {"truncation": None, "padding": None}
    settings, more, *generation = (
        untrusted.read_json(folder / name) if (folder / name).is_file() else {}
        for name in (SETTINGS, EXTRA_FILES[0], *_GENERATION)
    )
    added = tokenizer_trial.added_tokens(tokenizer, folder / TOKENIZER)
    ids = {entry["content"]: entry["id"] for entry in added if entry["special"]}
    _flag_end(tokenizer, ids, [_text_of(one.get("eos_token")) for one in (settings, more)])
    roles: dict[str, str] = {}
    by_id = {number: text for text, number in ids.items()}
    for role in _ROLES:
        texts = [_text_of(one.get(f"{role}_token")) for one in (settings, more)]
        for numbers in generation:
            number = numbers.get(f"{role}_token_id")
            number = number[0] if isinstance(number, list) and number else number
            texts.append(by_id.get(number) if isinstance(number, int) else None)
        text = next((text for text in texts if text in ids), None)
        if text is not None:
            roles[role] = text
    template = settings.get("chat_template")
    if (folder / CHAT_TEMPLATE).is_file():
        untrusted.check_inside(folder, folder / CHAT_TEMPLATE)
        data = files.read_given_bytes(folder / CHAT_TEMPLATE, "the chat template")
        template = data.decode("utf-8-sig", errors="replace")
    # Of several templates, transformers takes the one named "default".
    if isinstance(template, list):
        entries = [e for e in template if isinstance(e, dict) and e.get("name") == "default"]
        template = entries[0].get("template") if entries else None
    special = _special(ids, roles, template, folder)
    return TokenizerFiles(str(folder), json.dumps(tokenizer, ensure_ascii=False), special)


def _text_of(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _flag_end(tokenizer: dict[str, Any], ids: dict[str, int], ends: list[str | None]) -> None:
    """Makes a token that is named as the end a special one, of which its file does not say so.

    Args:
        tokenizer: tokenizer.json's content; changed, with `ids`.
        ids: of its special tokens.
        ends: the texts of end-of-sequence tokens; the first one counts.
    """
    text = next((text for text in ends if text is not None), None)
    if text is None or text in ids:
        return
    entries = tokenizer.get("added_tokens") or ()
    added = [entry for entry in entries if entry["content"] != text]
    others = (entry["id"] for entry in entries if entry not in added)
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # of Unigram: [piece, score]
        pieces = [one[0] if isinstance(one, list) and one else None for one in vocabulary]
        vocabulary = {text: pieces.index(text)} if text in pieces else {}
    number = next(others, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
    if type(number) is int:
        ids[text] = number
        entry = gguf_tokenizer.added_token(text, number, special=True)
        tokenizer["added_tokens"] = sorted([*added, entry], key=lambda one: one["id"])


def _special(
    ids: Mapping[str, int], roles: Mapping[str, str], template: Any, source: Any
) -> SpecialTokens:
    chat_template = template if isinstance(template, str) else ""
    numbers = {role: ids[text] for role, text in roles.items()}
    order = order_of(ids, numbers, chat_template, source)
    return SpecialTokens(ids, roles, chat_template, order)


# --- GGUF ---

_GGUF_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
# ggml's types of tokens: unknown and control.
_UNKNOWN, _CONTROL = 2, 3


def _special_of_gguf(header: gguf_header.Header) -> SpecialTokens:
    tokens = header.value("tokenizer.ggml.tokens", list)
    kinds = header.metadata.get("tokenizer.ggml.token_type", [])
    named = {
        role: header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        for role, name in _GGUF_ROLES.items()
    }
    if not all(isinstance(token, str) for token in tokens) or not isinstance(kinds, list):
        raise UserError(
            f"{shown_path(header.path)} is damaged: its tokenizer.ggml.tokens are not texts."
        )
    # Without types, only the tokens with a role are known to be special.
    special = {i for i, kind in enumerate(kinds) if kind in (_UNKNOWN, _CONTROL)}
    special |= set() if kinds else {i for i in named.values() if isinstance(i, int)}
    special |= {named["eos"]} if isinstance(named["eos"], int) else set()
    ids = {tokens[i]: i for i in sorted(special) if 0 <= i < len(tokens)}
    roles = {
        role: tokens[i]
        for role, i in named.items()
        if isinstance(i, int) and 0 <= i < len(tokens) and ids.get(tokens[i]) == i
    }
    template = header.metadata.get("tokenizer.chat_template", "")
    return _special(ids, roles, template, header.path)


# --- writing ---


def write(folder: Any, tokenizer: TokenizerFiles) -> None:
    """Writes a tokenizer's files into an existing folder, as transformers reads them.

    Files of a Hugging Face folder are copied byte for byte.
    """
    source = files.as_path(tokenizer.source)
    if source.is_dir():
        copy(source, folder)
        return
    files.write_text(folder / TOKENIZER, tokenizer.tokenizer)
    special = tokenizer.special
    by_id = {number: text for text, number in special.ids.items()}
    pad, eos = by_id[special.order.pad_id], by_id[special.order.eos_id]
    roles = {**special.roles, "pad": pad, "eos": eos}
    settings = {
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": text for role, text in sorted(roles.items())},
    }
    if special.chat_template:
        settings["chat_template"] = special.chat_template
    files.write_json(folder / SETTINGS, settings)


def copy(source: Any, folder: Any) -> None:
    """Copies a folder's tokenizer files, byte for byte."""
    for name in (TOKENIZER, SETTINGS, *EXTRA_FILES):
        if (source / name).is_file():
            untrusted.check_inside(source, source / name)
            files.write_bytes(folder / name, files.read_bytes(source / name))
