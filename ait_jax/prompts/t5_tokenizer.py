"""T5's vocabulary as transformers 5 saves it: a folder with tokenizer.json alone.

The `tokenizers` library encodes and decodes, under the methods of SentencePiece's processor that
`vocabulary.Vocabulary` calls. Sentinels in a text become their ids, as there; `</s>`, `<pad>` and
`<unk>` are spelled out.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ait_jax.errors import UserError, shown_path
from ait_jax.prompts import tokenizer_trial
from ait_jax.runtime import files, untrusted

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
# What a folder may hold, the first that it does is taken.
FILES = ("sentencepiece.model", "spiece.model", TOKENIZER)
_NAMES = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
# Unicode's own "noncharacter": no text has it.
_HIDDEN = "\ufdd0"
_KINDS = ("t5", "mt5", "umt5")


def sentinel(index: int) -> str:
    """Returns the text of a sentinel."""
    return f"<extra_id_{index}>"


def file_of(path: Any) -> Any:
    """Returns the file of a vocabulary: `path`, or what a folder holds."""
    path = files.as_path(path)
    if not path.is_dir():
        return path
    found = next((path / name for name in FILES if (path / name).is_file()), None)
    if found is None:
        raise UserError(
            f"No SentencePiece model in {shown_path(path)}, nor any of {', '.join(FILES)}; set "
            "VOCABULARY_PATH to a T5 vocabulary."
        )
    untrusted.check_inside(path, found)
    return found


def is_place(path: Any) -> bool:
    """Whether a folder, or a tokenizer.json in one, is of a T5 and not of a decoder-only model."""
    path = files.as_path(path)
    folder = path if path.is_dir() else path.parent
    if path.name != TOKENIZER and not path.is_dir():
        return False
    if any((folder / name).is_file() for name in FILES[:2]):
        return True
    if (folder / "config.json").is_file():
        return untrusted.read_json(folder / "config.json").get("model_type") in _KINDS
    content = untrusted.read_json(folder / TOKENIZER)
    added = tokenizer_trial.added_tokens(content, folder / TOKENIZER)
    return any(one["content"] == sentinel(0) for one in added)


class T5Tokenizer:
    """The processor of one tokenizer.json.

    Args:
      path: of the file, beside tokenizer_config.json if there is one.
      extra_ids: sentinels that follow the pieces; those that the file lacks are added.

    Raises:
      UserError: as `untrusted.read_json` and `tokenizer_trial.load`; sentinels in other places.
    """

    def __init__(self, path: Any, extra_ids: int) -> None:
        self._path = files.as_path(path)
        settings = self._path.parent / SETTINGS
        self._settings = untrusted.read_json(settings) if settings.is_file() else {}
        content = untrusted.read_json(self._path)
        texts = {one["content"] for one in tokenizer_trial.added_tokens(content, path)}
        self.num_sentinels = next(i for i in range(len(texts) + 1) if sentinel(i) not in texts)
        content = _apart(content, {sentinel(index) for index in range(self.num_sentinels)})
        tokenizer = tokenizer_trial.load(json.dumps(content), path, map(sentinel, range(2)))
        tokenizer.encode_special_tokens = True
        if self.num_sentinels == 0:
            tokenizer.add_tokens([sentinel(index) for index in reversed(range(extra_ids))])
        self._tokenizer = tokenizer
        last = tokenizer.get_vocab_size() - 1
        places = [tokenizer.token_to_id(sentinel(index)) for index in range(extra_ids)]
        if places != [last - index for index in range(extra_ids)]:
            raise UserError(
                f"{shown_path(path)}: its {self.num_sentinels} sentinels are not the last ids of "
                f"its {last + 1:,}, or not {extra_ids}; set Vocabulary.extra_ids to its own."
            )

    def _id_of(self, role: str) -> int:
        named = self._settings.get(f"{role}_token")
        text = named.get("content") if isinstance(named, Mapping) else named
        text = text if isinstance(text, str) else _NAMES[role]
        numbers = (self._tokenizer.token_to_id(one) for one in (_HIDDEN + text, text))
        return next((number for number in numbers if number is not None), -1)

    @cached_property
    def special(self) -> tuple[int, int, int]:
        """The ids of padding, end-of-sequence and unknown; -1 for one that is missing."""
        return self._id_of("pad"), self._id_of("eos"), self._id_of("unk")

    def get_piece_size(self) -> int:
        """Returns the number of ids."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str | list[str]) -> Any:
        """Returns the ids of a text, or of each of several, without end-of-sequence."""
        texts = [text] if isinstance(text, str) else text
        with tokenizer_trial.panics(self._path, text if isinstance(text, str) else ""):
            encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = [one.ids for one in encoded]
        return ids[0] if isinstance(text, str) else ids

    def decode(self, ids: list[int]) -> str:
        """Returns the text of ids, without special tokens."""
        with tokenizer_trial.panics(self._path):
            return self._tokenizer.decode(ids, skip_special_tokens=True)

    def id_to_piece(self, token: int) -> str:
        """Returns the piece of an id, "" for one beyond the vocabulary."""
        return (self._tokenizer.id_to_token(token) or "").removeprefix(_HIDDEN)


def _apart(content: dict[str, Any], sentinels: set[str]) -> dict[str, Any]:
    """Returns tokenizer.json's content so that texts spell sentinels but no other special token.

    Unigram and BPE would find `</s>` among their pieces: such pieces get names of no text. Ids and
    the way that all other text is read stay.
    """
    added = [
        one | ({"special": False} if one.get("content") in sentinels else {})
        for one in content.get("added_tokens") or ()
    ]
    special = [one["content"] for one in added if one.get("special")]
    hidden = {text: _HIDDEN + text for text in special}
    for one in added:
        one["content"] = hidden.get(one.get("content"), one.get("content"))
    model = content.get("model")
    model = dict(model) if isinstance(model, Mapping) else {}
    pieces = model.get("vocab")
    if isinstance(pieces, list):
        model["vocab"] = [
            [hidden.get(one[0], one[0]), *one[1:]]
            if isinstance(one, list) and one and isinstance(one[0], str)
            else one
            for one in pieces
        ]
    elif isinstance(pieces, dict):
        model["vocab"] = {hidden.get(text, text): number for text, number in pieces.items()}
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    unused = dict.fromkeys(("post_processor", "truncation", "padding"))
    return content | unused | {"added_tokens": added, "model": model}
