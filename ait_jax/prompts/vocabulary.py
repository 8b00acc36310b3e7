"""SentencePiece vocabularies by T5's rules, without TensorFlow."""

import itertools
import struct
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, SupportsInt

from ait_jax.errors import UserError, first_line, shown
from ait_jax.prompts import t5_tokenizer
from ait_jax.runtime import files, untrusted

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
EXTRA_IDS = 100  # T5's sentinels
_ROWS_MULTIPLE = 128  # so that token tables can be divided among devices
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
# English contractions that tokenized corpora split, for `clean_up`.
_SUFFIXES = ("n't", "'m", "'s", "'ve", "'re")


def _user_defined_piece(piece: str) -> bytes:
    """Returns one entry of a SentencePiece model file, in Protocol Buffers' format.

    Appended to a model file it becomes the last piece: field 1 of ModelProto, with the piece
    (field 1), score 0 (field 2, float) and type USER_DEFINED (field 3, 4).
    """
    text = piece.encode()
    entry = bytes([0x0A, len(text)]) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x04"
    return bytes([0x0A, len(entry)]) + entry


def clean_up(text: str) -> str:
    """Returns a decoded text without the spaces that tokenized English has before punctuation.

    Hugging Face's decode does this by default for T5 (`clean_up_tokenization_spaces`), and so do
    the answers and cut prompts of Tk-Instruct.
    """
    for mark in ".?!,":
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'")
    for suffix in _SUFFIXES:
        text = text.replace(f" {suffix}", suffix)
    return text


class Vocabulary:
    """A SentencePiece model followed by `extra_ids` sentinel tokens.

    Token ids equal those of `seqio.SentencePieceVocabulary(path, extra_ids)`: 0 pads, 1 ends a
    sequence, 2 is unknown, and `<extra_id_0>` is the last id. As there, `<extra_id_k>` in a text
    becomes that id where a word may start.

    Args:
      path: a SentencePiece model file, T5's tokenizer.json, or a folder with either.
      extra_ids: how many sentinels follow the pieces (T5 has 100).

    Raises:
      UserError: no such file, or it is not a SentencePiece model with T5's special ids.
    """

    def __init__(self, path: Any, extra_ids: int = EXTRA_IDS) -> None:
        self.path = str(path)
        self.extra_ids = extra_ids

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for equal vocabularies."""
        return (self.path, self.extra_ids)

    @cached_property
    def file(self) -> Any:
        """The path of the vocabulary itself."""
        return t5_tokenizer.file_of(self.path)

    @property
    def own_sentinels(self) -> int:
        """How many sentinels the file itself has among its pieces."""
        return getattr(self._processor, "num_sentinels", 0)

    @cached_property
    def _processor(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        if self.file.name == t5_tokenizer.TOKENIZER:
            tokenizer = t5_tokenizer.T5Tokenizer(self.file, self.extra_ids)
            self._check_special(tokenizer.special)
            return tokenizer
        try:
            model = files.read_bytes(self.file)
        except OSError as error:
            raise UserError(
                f"No SentencePiece model at {shown(self.path)}; set VOCABULARY_PATH to a *.model "
                "file or the folder of a T5."
            ) from error
        untrusted.check_whole(self.file, model)
        sentinels = (
            _user_defined_piece(f"{_WORD_START}<extra_id_{index}>")
            for index in reversed(range(self.extra_ids))
        )
        try:
            # Read alone first: appended sentinels would hide that the file is truncated.
            SentencePieceProcessor(model_proto=model)
            processor = SentencePieceProcessor(model_proto=model + b"".join(sentinels))
            # Pieces that are no text would fail in the first answer that has one.
            processor.id_to_piece(list(range(processor.get_piece_size())))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{shown(self.path)} is not a SentencePiece model: {first_line(error)}; set "
                "VOCABULARY_PATH to one."
            ) from error
        self._check_special((processor.pad_id(), processor.eos_id(), processor.unk_id()))
        return processor

    def _check_special(self, special: tuple[int, int, int]) -> None:
        if special != (PAD_ID, EOS_ID, UNK_ID):
            raise UserError(
                f"{shown(self.path)} has pad, end-of-sequence and unknown ids {special}, T5 needs "
                f"{(PAD_ID, EOS_ID, UNK_ID)}; set VOCABULARY_PATH to a T5 vocabulary."
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self._processor.get_piece_size()

    @property
    def padded_size(self) -> int:
        """Rows of the token table, as in T5X: a multiple of 128."""
        return -(-self.vocab_size // _ROWS_MULTIPLE) * _ROWS_MULTIPLE

    def sentinel(self, index: int) -> int:
        """Returns the id of `<extra_id_{index}>`."""
        if not 0 <= index < self.extra_ids:
            raise UserError(f"No sentinel {index}: {self.path} has {self.extra_ids} extra ids.")
        return self.vocab_size - 1 - index

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text` alone, without an end-of-sequence token."""
        return self._processor.encode(text)

    def pieces(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Returns the pieces of token ids, for display: "\u2581" begins a word."""
        return [self._processor.id_to_piece(int(token)) for token in ids]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Returns `encode` of every text."""
        return self._processor.encode(list(texts))

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of `text` within a prompt; see `finish_source`."""
        return self.encode(text)

    def encode_answer(self, text: str) -> list[int]:
        """Returns the ids of an answer, with which a decoder begins."""
        return self.encode(text)

    def encode_example(
        self, prompt: str, answer: str, max_source_length: int
    ) -> tuple[list[int], list[int]]:
        """Returns what the model reads in training and the answer's ids, without an end."""
        return self.encode_source(prompt, max_source_length), self.encode_answer(answer)

    @property
    def source_overhead(self) -> int:
        """Number of ids that `finish_source` adds."""
        return 1

    def finish_source(self, ids: Sequence[int], max_length: int) -> list[int]:
        """Returns what the model reads: `encode_prompt`'s ids, truncated, and end-of-sequence."""
        return [*ids[: max_length - 1], EOS_ID]

    def count_tokens(self, text: str) -> int:
        """Returns the number of tokens of a prompt, all that `finish_source` adds included."""
        return len(self.encode_prompt(text)) + self.source_overhead

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text before the first end-of-sequence, as Hugging Face decodes T5's answers.

        Padding, unknown tokens, sentinels and ids beyond the vocabulary, which a model with a
        padded token table may produce, are dropped, then `clean_up` is applied.
        """
        num_pieces = self.vocab_size - self.extra_ids
        ended = itertools.takewhile(lambda token: token != EOS_ID, map(int, ids))
        return self._text(token for token in ended if token < num_pieces)

    def truncate(self, text: str, num_tokens: int) -> str:
        """Returns the text of the first `num_tokens` tokens of `text`, decoded but for sentinels.

        Sentinels stay: a masked word is masked in a cut prompt, too.
        """
        return self._text(self.encode(text)[:num_tokens])

    def _text(self, ids: Iterable[int]) -> str:
        kept = [token for token in ids if token not in (PAD_ID, UNK_ID)]
        return clean_up(self._processor.decode(kept))

    def lacks(self, text: str) -> bool:
        """Whether a character of `text` is unknown: no answer can have it."""
        return UNK_ID in self.encode(text)

    def encode_source(self, text: str, max_length: int) -> list[int]:
        """Returns a prompt as at most `max_length` ids; see `finish_source`."""
        return self.finish_source(self.encode_prompt(text), max_length)
