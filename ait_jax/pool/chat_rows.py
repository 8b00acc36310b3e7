"""Conversations as rows: the last answer, the question before it, and what was said earlier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import nearest, shown

_USER, _ASSISTANT, _SYSTEM = "User", "Assistant", "System"
_ROLES = {
    "user": _USER, "human": _USER, "prompter": _USER,
    "assistant": _ASSISTANT, "gpt": _ASSISTANT, "chatgpt": _ASSISTANT, "model": _ASSISTANT,
    "bot": _ASSISTANT, "bing": _ASSISTANT, "bard": _ASSISTANT,
    "system": _SYSTEM, "developer": _SYSTEM,
}  # fmt: skip
_ROLE_KEYS, _TEXT_KEYS = ("role", "from"), ("content", "value")


class NoConversation(ValueError):
    """What is wrong with a conversation, in words."""


@dataclass(frozen=True)
class Exchange:
    """A conversation as an instruction.

    Attributes:
      instruction: what the user said before the last answer.
      answer: the last turn if it is the assistant's, else "".
      system: all system texts, "" if there is none.
      before: the earlier turns, "User: ..." and "Assistant: ..." with blank lines between them.
    """

    instruction: str
    answer: str
    system: str = ""
    before: str = ""


def exchange(messages: Any) -> Exchange:
    """Reads a list of {"role", "content"} or of {"from", "value"}.

    Raises:
      NoConversation: it is of another type, has another role, or no question before its answer.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise NoConversation("a conversation is a list of messages")
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages, start=1):
        role, text = _message(message, number)
        if role == _SYSTEM:
            system.append(text)
        elif turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{text}")
        else:
            turns.append((role, text))
    answer = turns.pop()[1] if turns and turns[-1][0] == _ASSISTANT else ""
    if not turns:
        raise NoConversation("no turn of a user before the last answer")
    return Exchange(turns.pop()[1], answer, "\n\n".join(filter(None, system)), transcript(turns))


def transcript(turns: Sequence[tuple[str, str]]) -> str:
    """Returns turns, (role, text), as text."""
    return "\n\n".join(f"{role}: {text}" for role, text in turns)


def pairs(history: Any) -> str:
    """Returns the transcript of LLaMA-Factory's history, [[question, answer], ...]."""
    turns: list[tuple[str, str]] = []
    if not isinstance(history, Sequence) or isinstance(history, (str, bytes)):
        raise NoConversation("a history is a list of questions and answers")
    for pair in history:
        is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            raise NoConversation("a history is a list of [question, answer]")
        turns += [(_USER, pair[0]), (_ASSISTANT, pair[1])]
    return transcript(turns)


def _message(message: Any, number: int) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise NoConversation(f"message {number} is no object")
    role = next((message[key] for key in _ROLE_KEYS if key in message), None)
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        hint = nearest(role, _ROLES) if isinstance(role, str) else ""
        raise NoConversation(f"message {number} is of the role {shown(role)}, not read{hint}")
    text = next((message[key] for key in _TEXT_KEYS if key in message), None)
    if isinstance(text, list):
        text = _joined(text, number)
    if not isinstance(text, str):
        raise NoConversation(f"message {number} has no text")
    return known, text.strip()


def _joined(content: list[Any], number: int) -> str:
    """Returns the text of content in parts, [{"type": "text", "text": "..."}]."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise NoConversation(f"message {number} has a part that is no text")
    return "".join(text for text in texts if isinstance(text, str))
