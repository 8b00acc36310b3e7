"""Every model's token ids in T5's order: 0 pads and 1 ends a sequence, whatever its own files say.

A model's own padding and end-of-sequence ids change places with its ids 0 and 1, the rows of its
token table and output layer with them. So programs know two constants, and no model's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ait_jax.errors import UserError
from ait_jax.prompts.vocabulary import EOS_ID, PAD_ID

# Tokens that occur in no text and in no conversation, where files name no padding of their own.
_UNUSED_TOKENS = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|endoftext|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<unk>",
)
# What ends a turn of a conversation, where the conversation's template has it.
_ENDS_OF_TURN = ("<|im_end|>", "<|eot_id|>")


@dataclass(frozen=True)
class TokenOrder:
    """A model's own padding and end-of-sequence ids; see the module.

    Attributes:
        pad_id, eos_id: in the model's own order, different from each other.
    """

    pad_id: int = PAD_ID
    eos_id: int = EOS_ID

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id or min(self.pad_id, self.eos_id) < 0:
            raise UserError(
                f"A model's padding and end-of-sequence tokens must differ and be ids of its "
                f"vocabulary; given: {self.pad_id} and {self.eos_id}."
            )

    @cached_property
    def own_of(self) -> Mapping[int, int]:
        """{id here: the model's own id}, of those that differ."""
        ids = {i: i for i in (PAD_ID, EOS_ID, self.pad_id, self.eos_id)}
        ids[PAD_ID], ids[self.pad_id] = ids[self.pad_id], ids[PAD_ID]
        place = next(here for here, own in ids.items() if own == self.eos_id)
        ids[EOS_ID], ids[place] = ids[place], ids[EOS_ID]
        return {here: own for here, own in ids.items() if here != own}

    @cached_property
    def here_of(self) -> Mapping[int, int]:
        """{the model's own id: id here}, of those that differ."""
        return {own: here for here, own in self.own_of.items()}

    def from_own(self, ids: Iterable[int]) -> list[int]:
        """Returns the ids here of a model's own ids."""
        moved = self.here_of
        return [moved.get(token, token) for token in ids]

    def to_own(self, ids: Iterable[int]) -> list[int]:
        """Returns the model's own ids of ids here."""
        moved = self.own_of
        return [moved.get(token, token) for token in ids]


def order_of(
    special: Mapping[str, int],
    *,
    eos_id: int | None,
    pad_id: int | None,
    unk_id: int | None,
    chat_template: str,
    source: object,
) -> TokenOrder:
    """Returns the order of a model whose files say this of their special tokens.

    The end of a sequence is the end of a turn where the model has a chat template with one. The
    padding token is the file's own, if it never occurs in text and is not the end; else the
    unknown token, which vocabularies with a token for every byte never use; else a token that is
    known to be unused.

    Args:
        special: ids of the special tokens, in the model's own order.
        eos_id, pad_id, unk_id: what the files name; None where they name none.
        chat_template: "" where there is none.
        source: where all this came from, for messages.

    Raises:
        UserError: there is no end of a sequence, or nothing that can pad.
    """
    known = set(special.values())
    turns = [special[t] for t in _ENDS_OF_TURN if t in special and t in chat_template]
    eos = turns[0] if turns else eos_id
    if eos is None:
        raise UserError(
            f"{source} names no end-of-sequence token; needed: eos_token in tokenizer_config.json, "
            "or tokenizer.ggml.eos_token_id in a GGUF file."
        )
    if eos not in known:
        raise UserError(
            f"{source}: its end-of-sequence id {eos} is no special token of its vocabulary, so it "
            "might occur in text; take tokenizer files that belong together."
        )
    named = [pad_id, unk_id, *(special.get(token) for token in _UNUSED_TOKENS)]
    for pad in named:
        if pad in known and pad != eos:
            return TokenOrder(pad, eos)
    raise UserError(
        f"{source} has no token that could pad: none of its {len(known)} special tokens is "
        f"{', '.join(_UNUSED_TOKENS)}; give it a pad_token in tokenizer_config.json."
    )
