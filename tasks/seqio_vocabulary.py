"""A decoder-only model's vocabulary in SeqIO's terms. Imports TensorFlow: import it late."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID


class SeqioVocabulary(seqio.Vocabulary):
    """The ids of a `TokenizersVocabulary`; TensorFlow's strings are encoded in Python."""

    def __init__(self, vocabulary: TokenizersVocabulary) -> None:
        super().__init__(extra_ids=0)
        self._vocabulary = vocabulary

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SeqioVocabulary)
            and self._vocabulary.identity == other._vocabulary.identity
        )

    def __hash__(self) -> int:
        return hash(self._vocabulary.identity)

    @property
    def bos_id(self) -> None:
        return None

    @property
    def eos_id(self) -> int:
        return EOS_ID

    @property
    def pad_id(self) -> int:
        return PAD_ID

    @property
    def unk_id(self) -> int:
        """Nothing is unknown to a vocabulary of bytes: what SeqIO puts for ids beyond it."""
        return PAD_ID

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
            texts = [self._vocabulary.decode(r).encode() for r in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, object).reshape(rows.shape[:-1])

        text = tf.numpy_function(decode, [ids], tf.string)
        text.set_shape(ids.shape[:-1])
        return text
