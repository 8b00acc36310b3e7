"""SentencePiece vocabularies by T5's rules, without TensorFlow."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from ait_jax.errors import UserError

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2


class Vocabulary:
    """A SentencePiece model followed by `extra_ids` sentinel tokens.

    Token ids equal those of `seqio.SentencePieceVocabulary(path, extra_ids)`: 0 pads,
    1 ends a sequence, 2 is unknown, and `<extra_id_0>` is the last id.

    Args:
      path: a SentencePiece model file.
      extra_ids: how many sentinels follow the pieces (T5 has 100).

    Raises:
      UserError: no such file, or it is no SentencePiece model with T5's special ids.
    """

    def __init__(self, path: str, extra_ids: int = 100):
        self.path = str(path)
        self.extra_ids = extra_ids

    @cached_property
    def _processor(self):
        from sentencepiece import SentencePieceProcessor

        if not Path(self.path).is_file():
            raise UserError(
                f"No SentencePiece model at {self.path!r}; set VOCABULARY_PATH to a *.model file."
            )
        try:
            processor = SentencePieceProcessor(model_file=self.path)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.path!r} is not a SentencePiece model: {error}") from error
        special = (processor.pad_id(), processor.eos_id(), processor.unk_id())
        if special != (PAD_ID, EOS_ID, UNK_ID):
            raise UserError(
                f"{self.path!r} has pad, end-of-sequence and unknown ids {special}, T5 needs "
                f"{(PAD_ID, EOS_ID, UNK_ID)}; set VOCABULARY_PATH to a T5 vocabulary."
            )
        return processor

    @property
    def vocab_size(self) -> int:
        """Pieces and sentinels together."""
        return self._processor.get_piece_size() + self.extra_ids

    def sentinel(self, index: int) -> int:
        """Returns the id of `<extra_id_{index}>`."""
        if not 0 <= index < self.extra_ids:
            raise UserError(f"No sentinel {index}: the vocabulary has {self.extra_ids} extra ids.")
        return self.vocab_size - 1 - index

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, without an end-of-sequence token."""
        return self._processor.encode(text)

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        return self._processor.encode(list(texts))

    def count_tokens(self, text: str) -> int:
        """Returns the number of tokens of `text`, end-of-sequence included."""
        return len(self.encode(text)) + 1

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text before the first end-of-sequence; padding and sentinels are dropped."""
        pieces = self._processor.get_piece_size()
        kept = []
        for token in ids:
            if token == EOS_ID:
                break
            if token != PAD_ID and token < pieces:
                kept.append(int(token))
        return self._processor.decode(kept)

    def truncate(self, text: str, num_tokens: int) -> str:
        """Returns the text of the first `num_tokens` tokens of `text`."""
        return self.decode(self.encode(text)[:num_tokens])

    def encode_source(self, text: str, max_length: int) -> list[int]:
        """Returns `text` as at most `max_length` ids, the last of them end-of-sequence."""
        return self.encode(text)[: max_length - 1] + [EOS_ID]
