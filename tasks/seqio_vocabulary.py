"""The package's vocabularies as SeqIO sees them. Imports TensorFlow and SeqIO: import it late."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from ait_jax.prompts.t5_tokenizer import TOKENIZER
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID, Vocabulary


def seqio_vocabulary(vocabulary: Vocabulary | TokenizersVocabulary) -> seqio.Vocabulary:
    """Returns a SeqIO vocabulary with the same ids."""
    if isinstance(vocabulary, TokenizersVocabulary) or vocabulary.file.name == TOKENIZER:
        return _SeqioTokenizers(vocabulary)
    return _SeqioSentencePiece(str(vocabulary.file), vocabulary.extra_ids)


class _SeqioSentencePiece(seqio.SentencePieceVocabulary):
    """SeqIO's own, but for answers, which are decoded as everywhere here."""

    def _decode(self, ids: Sequence[int]) -> str:
        return _opened(self.sentencepiece_model_file, self.extra_ids).decode(ids)


# Not an attribute: SeqIO compares and copies a vocabulary's attributes.
_opened = functools.lru_cache(maxsize=4)(Vocabulary)


class _SeqioTokenizers(seqio.Vocabulary):
    """A vocabulary of the package `tokenizers`; TensorFlow strings are encoded in Python."""

    bos_id = property(lambda self: None)
    eos_id = property(lambda self: EOS_ID)
    pad_id = property(lambda self: PAD_ID)
    # A vocabulary of bytes knows every text; SeqIO puts this in place of ids beyond it.
    unk_id = property(lambda self: PAD_ID)

    def __init__(self, vocabulary: Vocabulary | TokenizersVocabulary) -> None:
        super().__init__(extra_ids=0)
        self._vocabulary = vocabulary

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _SeqioTokenizers)
            and self._vocabulary.identity == other._vocabulary.identity
        )

    def __hash__(self) -> int:
        return hash(self._vocabulary.identity)

    @property
    def _base_vocab_size(self) -> int:
        return self._vocabulary.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self._vocabulary.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: Any) -> np.ndarray:
            # Bytes inside a pipeline, an array of them outside.
            text = np.asarray(text).item().decode()
            return np.array(self._vocabulary.encode(text), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(rows: np.ndarray) -> np.ndarray:
            flat = rows.reshape(-1, rows.shape[-1]).tolist()
            texts = [self._vocabulary.decode(row).encode() for row in flat]
            return np.array(texts, object).reshape(rows.shape[:-1])

        text = tf.numpy_function(decode, [ids], tf.string)
        text.set_shape(ids.shape[:-1])
        return text
