"""The vocabulary of the mini model: a small SentencePiece model with byte fallback."""

import io
import os
import pydoc_data.topics
import re
from collections.abc import Iterator
from pathlib import Path

from ait_jax.tasks.mini import lexicon
from ait_jax.tasks.mini.generator import Draw
from ait_jax.tasks.mini_base.common_words import COMMON_WORDS, OPENING_WORDS
from ait_jax.tasks.mini_base.direct import DIRECT
from ait_jax.tasks.mini_base.induction import INDUCTION
from ait_jax.tasks.mini_base.passages import passage

# Pieces are learned from this many generated passages and as many task examples.
NUM_GENERATED = 6000


def general_english() -> Iterator[str]:
    """Yields paragraphs of prose that every Python installation carries: Python's own documentation.

    Generated text alone would split any word outside the lexicon into letters. This prose only
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
    """Yields lines of single words, so that every word of the lexicon and common English words have pieces."""
    words = [
        *COMMON_WORDS,
        *lexicon.CONTENT_WORDS,
        *lexicon.NAMES,
        *lexicon.CITIES,
        *lexicon.COUNTRIES,
    ]
    words += [form for forms in lexicon.VERBS for form in forms]
    words += [word for pair in (*lexicon.OPPOSITES, *lexicon.SYNONYMS) for word in pair]
    words += [
        lexicon.plural(word)
        for words_of in lexicon.CLASSES.values()
        for word in words_of
        if word.isalpha()
    ]
    for start in range(0, len(words), 8):
        yield " ".join(words[start : start + 8])
    yield from 5 * OPENING_WORDS


def corpus(seed: int = 0, num_generated: int = NUM_GENERATED) -> Iterator[str]:
    """Yields the lines from which the vocabulary is trained; none comes from the built-in pool."""
    for index in range(num_generated):
        yield passage(Draw("mini_base.vocabulary.text", seed, index))
        draw = Draw("mini_base.vocabulary.task", seed, index)
        yield " ".join(draw.pick(INDUCTION if draw.chance(0.4) else DIRECT)(draw))
    for _ in range(60):
        yield from word_lines()
    yield from general_english()


def train_vocabulary(path: str | os.PathLike, vocab_size: int = 3996, seed: int = 0) -> None:
    """Writes a SentencePiece unigram model to `path`: pad 0, end of sequence 1, unknown 2, no beginning of sequence.

    `vocab_size` counts the pieces in the file; the 100 extra ids of T5 come on top of it. The file
    appears whole or not at all. It depends on the Python version, whose documentation it learns from.
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
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(model.getvalue())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
