"""Vocabularies of decoder-only models through the `tokenizers` library, with T5's special ids."""

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, SupportsInt

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.prompts import t5_tokenizer, tokenizer_files, tokenizer_trial
from ait_jax.prompts.chat_format import Around, ChatFormat
from ait_jax.prompts.tokenizer_files import TokenizerFiles
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID, Vocabulary
from ait_jax.runtime import files

# Texts that only vocabularies with a token for every byte can spell.
_PROBES = ("\x00\x7f\t\r\n ", "\N{GRINNING FACE}\u6771\u0645\u200b\ufb01\U000e0041")


class TokenizersVocabulary(Vocabulary):
    """A tokenizer.json or GGUF vocabulary, without sentinels.

    Ids are the model's own but for two: 0 pads and 1 ends a sequence, as everywhere here, and the
    ids in these places swap with the model's own (`token_order`). Text is text: strings of special
    tokens in it are spelled out, never taken for the tokens.

    A prompt stands alone, after the model's first token if it has one; or, with `chat`, it is the
    user's turn of a conversation whose answer is opened. It does not end in end-of-sequence,
    because the answer follows.

    Args:
      path: a folder with tokenizer.json, the file itself, or a GGUF file.
      chat: the form of conversations (`chat_format`); None for plain text.

    Raises:
      UserError: no such file, a damaged one, an unsupported kind of vocabulary, one that lacks the
        tokens of `chat`; or the package `tokenizers` is missing.
    """

    def __init__(self, path: Any, chat: ChatFormat | None = None) -> None:
        super().__init__(path, extra_ids=0)
        self.chat = chat

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for equal vocabularies."""
        return (self.path, self.chat)

    @cached_property
    def _files(self) -> TokenizerFiles:
        return tokenizer_files.read(self.path)

    @cached_property
    def _tokenizer(self) -> Any:
        read = self._files
        texts = (*read.special.ids, *_PROBES)
        tokenizer = tokenizer_trial.load(read.tokenizer, read.source, texts, is_ours=read.is_ours)
        tokenizer.encode_special_tokens = True
        self._check(tokenizer)
        return tokenizer

    def _check(self, tokenizer: Any) -> None:
        """Raises UserError where text could become a special token."""
        special = self._files.special
        known = set(special.ids.values())
        size = tokenizer.get_vocab_size()
        for text, number in special.ids.items():
            if tokenizer.token_to_id(text) != number or number >= size:
                raise UserError(
                    f"{shown_path(self._files.source)} is damaged: {shown(text)} is not token "
                    f"{number}."
                )
        for text in (*special.ids, *_PROBES):
            # A text that spells a token must not become that token.
            found = known.intersection(tokenizer.encode(text, add_special_tokens=False).ids)
            if found:
                raise UserError(
                    f"{shown_path(self._files.source)} reads the text {shown(text)} as the special "
                    f"token {min(found)}, so prompts of tasks could forge the ends of turns; use "
                    "another tokenizer of the model."
                )

    @cached_property
    def _around(self) -> Around:
        if self.chat is not None:
            special = self._files.special
            here = special.order.from_own(special.ids.values())
            return self.chat.around(dict(zip(special.ids, here, strict=True)), self.encode)
        first = self._tokenizer.encode("", add_special_tokens=True).ids
        ids = self._files.special.order.from_own(first)
        return Around(before=tuple(token for token in ids if token != EOS_ID))

    @property
    def special_tokens(self) -> tokenizer_files.SpecialTokens:
        """The special tokens, with ids in the model's own order."""
        return self._files.special

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text` alone."""
        tokenizer = self._tokenizer
        with tokenizer_trial.panics(self._files.source, text):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        return self._files.special.order.from_own(ids)

    def pieces(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Returns the tokens of ids as the tokenizer writes them, for display."""
        own = self._files.special.order.to_own(map(int, ids))
        return [self._tokenizer.id_to_token(token) for token in own]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Returns `encode` of every text."""
        tokenizer = self._tokenizer
        with tokenizer_trial.panics(self._files.source):
            encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._files.special.order.from_own(one.ids) for one in encoded]

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of `text` within a prompt; see `finish_source`."""
        around = self._around
        return self.encode(around.lead + (text.strip() if around.strip else text))

    def encode_answer(self, text: str) -> list[int]:
        """Returns the ids of an answer as it follows a prompt.

        SentencePiece's tokenizers, LLaMA 1's and 2's among them, put a space before a text that
        stands alone; an answer continues its prompt.
        """
        before = self._line_end
        ids = self.encode("\n" + text)
        return ids[len(before) :] if ids[: len(before)] == before else self.encode(text)

    @cached_property
    def _line_end(self) -> list[int]:
        return self.encode("\n")

    def encode_example(
        self, prompt: str, answer: str, max_source_length: int
    ) -> tuple[list[int], list[int]]:
        """Returns what the model reads in training and the answer's ids, without an end.

        Prompt and answer are tokenized together, as in Alpaca's training, where the answer begins
        after as many tokens as the prompt has alone. Apart are those of a conversation, of a prompt
        that must be cut, and of one that ends in a space, which would join the answer's first word.
        """
        around, ids = self._around, self.encode_prompt(prompt)
        whole = len(ids) + self.source_overhead <= max_source_length
        if self.chat is not None or not whole or not prompt or prompt[-1].isspace():
            return super().encode_example(prompt, answer, max_source_length)
        together = self.encode(prompt + answer)
        return [*around.before, *together[: len(ids)]], together[len(ids) :]

    @property
    def source_overhead(self) -> int:
        """Number of ids that `finish_source` adds."""
        return len(self._around.before) + len(self._around.after)

    @cached_property
    def shortest_source(self) -> int:
        """The smallest `max_length` that leaves a prompt one token of its own."""
        return self.source_overhead + len(self.encode(self._around.lead)) + 1

    def finish_source(self, ids: Sequence[int], max_length: int) -> list[int]:
        """Returns what the model reads: `encode_prompt`'s ids and what surrounds them.

        What does not fit into `max_length` is cut from the end of the prompt, never from what
        follows it.

        Raises:
          UserError: `max_length` has no room for a prompt.
        """
        around = self._around
        room = max_length - self.source_overhead
        if room < self.shortest_source - self.source_overhead:
            raise UserError(
                f"max_source_length = {max_length} leaves no room for a prompt, which takes at "
                f"least {self.shortest_source} tokens with what surrounds it."
            )
        # A model must read something before it answers.
        return [*around.before, *ids[:room], *around.after] or [EOS_ID]

    def truncate(self, text: str, num_tokens: int) -> str:
        """Returns the part of `text` that fits into a prompt of `num_tokens` tokens."""
        lead = self._around.lead
        ids = self.encode_prompt(text)[: max(0, num_tokens - self.source_overhead)]
        kept = self._text(ids)
        if not (lead + text).startswith(kept):
            # It was cut between the bytes of a character.
            kept = kept.rstrip("\N{REPLACEMENT CHARACTER}")
        return kept.removeprefix(lead) if len(kept) > len(lead) else ""

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text before the first end-of-sequence.

        Special and unknown tokens, padding included, and ids beyond the vocabulary are dropped.
        """
        return self._text(itertools.takewhile(lambda token: token != EOS_ID, map(int, ids)))

    def _text(self, ids: Iterable[int]) -> str:
        size = self.vocab_size
        special = self._files.special
        own = special.order.to_own(t for t in ids if t != PAD_ID and 0 <= t < size)
        kept = [token for token in own if token != self._unknown]
        tokenizer = self._tokenizer
        with tokenizer_trial.panics(self._files.source):
            return tokenizer.decode(kept, skip_special_tokens=True)

    @cached_property
    def _unknown(self) -> int | None:
        """The own id of text that the vocabulary lacks, None if it spells every byte.

        Not every file flags it as special.
        """
        text = getattr(self._tokenizer.model, "unk_token", None)
        return None if text is None else self._tokenizer.token_to_id(text)

    def lacks(self, text: str) -> bool:
        """Whether a character of `text` is unknown: no answer can have it."""
        return self._unknown in self._files.special.order.to_own(self.encode(text))


def vocabulary_at(path: Any) -> Vocabulary:
    """Returns the vocabulary of a file or folder: T5's, or a decoder-only model's tokenizer."""
    if files.as_path(path).exists() and tokenizer_files.is_place(path):
        return Vocabulary(path) if t5_tokenizer.is_place(path) else TokenizersVocabulary(path)
    return Vocabulary(path)
