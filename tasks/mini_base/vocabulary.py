"""The vocabulary of the mini model: a small SentencePiece model with byte fallback."""

import io
import itertools
import os
import pydoc_data.topics
import re
from collections.abc import Iterator
from pathlib import Path

from ait_jax.tasks.mini import lexicon
from ait_jax.tasks.mini.generator import Draw
from ait_jax.tasks.mini_base.direct import DIRECT
from ait_jax.tasks.mini_base.induction import INDUCTION
from ait_jax.tasks.mini_base.passages import passage

from ait_jax.runtime.files import write_bytes

# Pieces are learned from this many generated passages and as many task examples.
NUM_GENERATED = 6000
# Common English words beyond the lexicon, so that each becomes a piece.
_COMMON_WORDS = Path(__file__).with_name("common_words.txt")
# Words that open sentences and fields; their capitalized forms deserve pieces of their own.
_OPENING_WORDS = Path(__file__).with_name("opening_words.txt")


def general_english() -> Iterator[str]:
    """Yields paragraphs of prose that comes with Python: its own documentation.

    Generated text alone would split every word outside the lexicon into letters. This prose only
    decides which pieces exist; no model is trained on it and none of it is shipped.
    """
    for topic in sorted(pydoc_data.topics.topics):
        for paragraph in re.split(r"\n\s*\n", pydoc_data.topics.topics[topic]):
            line = " ".join(paragraph.split())
            words = line.split()
            plain = sum(word.strip(".,;:()\"'").isalpha() for word in words)
            if len(words) >= 6 and plain >= 0.8 * len(words):
                yield line


def word_lines() -> Iterator[str]:
    """Yields lines of single words, so that the lexicon and common English words have pieces."""
    words = [*_COMMON_WORDS.read_text("utf-8").split(), *lexicon.CONTENT_WORDS, *lexicon.NAMES]
    words += lexicon.CITIES + lexicon.COUNTRIES
    for forms in lexicon.VERBS + lexicon.OPPOSITES + lexicon.SYNONYMS:
        words += forms
    words += map(lexicon.plural, itertools.chain(*lexicon.CLASSES.values()))
    for start in range(0, len(words), 8):
        yield " ".join(words[start : start + 8])
    yield from 5 * _OPENING_WORDS.read_text("utf-8").split()


def corpus(seed: int = 0, num_generated: int = NUM_GENERATED) -> Iterator[str]:
    """Yields the lines that the vocabulary is trained on; none is from the built-in pool."""
    for index in range(num_generated):
        yield passage(Draw("mini_base.vocabulary.text", seed, index))
        draw = Draw("mini_base.vocabulary.task", seed, index)
        yield " ".join(draw.pick(INDUCTION if draw.chance(0.4) else DIRECT)(draw))
    for _ in range(60):
        yield from word_lines()
    yield from general_english()


def train_vocabulary(path: str | os.PathLike[str], vocab_size: int = 3996, seed: int = 0) -> None:
    """Writes a SentencePiece unigram model: pad 0, end of sequence 1, unknown 2, no beginning.

    `vocab_size` counts the pieces in the file; T5's 100 extra ids are added to them. The file
    appears whole or not at all. It depends on the Python version, whose documentation is read.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(seed),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.9995,
        max_sentence_length=20000,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    write_bytes(path, model.getvalue(), any_process=True)
