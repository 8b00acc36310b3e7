"""Requests to a chat endpoint and its replies, in OpenAI's chat completions format."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown

Conversation = Sequence[Mapping[str, str]]

# Errors of conversations that were not asked.
BUDGET, DOWN = "budget", "not asked: the endpoint failed before"

# Tokens that a chat template may add to a message; generous, because it bounds a cost.
_TOKENS_AROUND_A_MESSAGE = 32


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens, from the endpoint's price list."""

    input_per_million: float
    output_per_million: float

    def __post_init__(self) -> None:
        for name in ("input_per_million", "output_per_million"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} = {value} must be a price in dollars, 0 or more.")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Returns dollars."""
        paid = input_tokens * self.input_per_million + output_tokens * self.output_per_million
        return paid / 1e6


@dataclass(frozen=True)
class Reply:
    """The answer to one conversation.

    Attributes:
      text: the model's answer, or None; then `error` says why.
      error: "" or what went wrong, "budget" if it was not asked for lack of money. It never
        holds the key.
      cached: True if it cost nothing now: it came from the cache, or repeats a request of the
        same call.
      cost: dollars that this call paid for it; 0.0 without prices and from the cache.
      input_tokens, output_tokens: as the endpoint counts them, 0 if it does not.
      finish: the endpoint's finish_reason: "stop", "length" (cut at max_tokens), ...
    """

    text: str | None
    error: str = ""
    cached: bool = False
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""


@dataclass(frozen=True)
class ChatRequest:
    """One request: everything the answer depends on, and nothing secret.

    `body` is the JSON object to post: model, messages, temperature, `max_tokens` by some name.
    """

    base_url: str
    body: Mapping[str, Any]
    max_tokens: int

    @property
    def key(self) -> str:
        """SHA-256 of the record, in hexadecimal."""
        text = json.dumps(self.record(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Returns the request as one JSON object."""
        return {"base_url": self.base_url, "body": dict(self.body)}

    def most_input_tokens(self) -> int:
        """Returns a bound on the prompt's tokens: no tokenizer makes more tokens than bytes."""
        sizes = (len(message["content"].encode()) for message in self.body["messages"])
        return sum(size + _TOKENS_AROUND_A_MESSAGE for size in sizes)


def check_conversation(conversation: Conversation, position: int) -> list[dict[str, str]]:
    """Returns the messages as plain JSON; halves of surrogate pairs become "?".

    Raises:
      ValueError: there is no message, or one is not {"role": text, "content": text}.
    """
    messages = [dict(message) for message in conversation]
    for message in messages:
        if set(message) != {"role", "content"} or not all(
            isinstance(value, str) for value in message.values()
        ):
            raise ValueError(f"conversation {position}: {shown(message)} is not role and content")
        # UTF-8 cannot encode halves, so no request could carry them; JSON files can escape them.
        message["content"] = message["content"].encode("utf-8", "replace").decode()
    if not messages:
        raise ValueError(f"conversation {position} has no messages")
    return messages
