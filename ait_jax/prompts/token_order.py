"""Every model's token ids in T5's order: 0 pads and 1 ends a sequence, whatever its own files say.

A model's own padding and end-of-sequence ids swap places with its ids 0 and 1, and so do the rows
of its token table and output layer. Programs then need only two constants.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ait_jax.errors import UserError, shown_path
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID

# Tokens of no text and no conversation, for files that name no padding token.
_UNUSED_TOKENS = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|endoftext|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<unk>",
)
# They end a turn of a conversation if the chat template has them.
_ENDS_OF_TURN = ("<|im_end|>", "<|eot_id|>")
# With these, `chat_format` writes conversations.
_CONVERSATION = {
    *_ENDS_OF_TURN,
    "<|im_start|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
}


@dataclass(frozen=True)
class TokenOrder:
    """A model's own padding and end-of-sequence ids, which differ; see the module."""

    pad_id: int = PAD_ID
    eos_id: int = EOS_ID

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id or min(self.pad_id, self.eos_id) < 0:
            raise UserError(
                "A model's padding and end-of-sequence tokens must be two different ids of its "
                f"vocabulary, not {self.pad_id} and {self.eos_id}."
            )

    @cached_property
    def own_of(self) -> Mapping[int, int]:
        """{id here: the model's own id}, for ids that differ."""
        ids = {i: i for i in (PAD_ID, EOS_ID, self.pad_id, self.eos_id)}
        ids[PAD_ID], ids[self.pad_id] = ids[self.pad_id], ids[PAD_ID]
        place = next(here for here, own in ids.items() if own == self.eos_id)
        ids[EOS_ID], ids[place] = ids[place], ids[EOS_ID]
        return {here: own for here, own in ids.items() if here != own}

    @cached_property
    def here_of(self) -> Mapping[int, int]:
        """{the model's own id: id here}, for ids that differ."""
        return {own: here for here, own in self.own_of.items()}

    def from_own(self, ids: Iterable[int]) -> list[int]:
        """Translates a model's own ids into ids here."""
        moved = self.here_of
        return [moved.get(token, token) for token in ids]

    def to_own(self, ids: Iterable[int]) -> list[int]:
        """Translates ids here into the model's own ids."""
        moved = self.own_of
        return [moved.get(token, token) for token in ids]


def order_of(
    special: Mapping[str, int], roles: Mapping[str, int], chat_template: str, source: object
) -> TokenOrder:
    """Returns the order of a model with these special tokens.

    The end of a turn ends a sequence if the model has a chat template with one. The padding token
    is the files' own, if it never occurs in text and is not the end; else the unknown token, which
    vocabularies with a token for every byte never use; else a token known to be unused; else the
    last one that begins no text and is part of no conversation.

    Args:
        special: ids of the special tokens, in the model's own order.
        roles: ids of "bos", "eos", "pad" and "unk", as far as the files name them.
        chat_template: "" if there is none.
        source: where all this came from, for messages.

    Raises:
        UserError: there is no end of a sequence, or nothing that can pad.
    """
    known = set(special.values())
    turns = [special[t] for t in _ENDS_OF_TURN if t in special and t in chat_template]
    eos = turns[0] if turns else roles.get("eos")
    if eos is None:
        raise UserError(
            f"{shown_path(source)} names no end-of-sequence token; add eos_token to "
            "tokenizer_config.json, or tokenizer.ggml.eos_token_id to the GGUF file."
        )
    if eos not in known:
        raise UserError(
            f"{shown_path(source)}: the end-of-sequence id {eos} is not a special token of the "
            "vocabulary, so it might occur in text; use tokenizer files that belong together."
        )
    named = [roles.get("pad"), roles.get("unk"), *(special.get(token) for token in _UNUSED_TOKENS)]
    taken = {roles.get("bos"), *(special.get(token) for token in _CONVERSATION)}
    spare = [i for text, i in special.items() if i not in taken and text not in chat_template]
    for pad in (*named, *sorted(spare, reverse=True)):
        if pad in known and pad != eos:
            return TokenOrder(pad, eos)
    raise UserError(
        f"{shown_path(source)} has no padding token, and none to spare: its {len(known)} special "
        "tokens begin or end texts or are parts of conversations. Add one, '<pad>' for example, to "
        "added_tokens in tokenizer.json, and name it in tokenizer_config.json (pad_token)."
    )
