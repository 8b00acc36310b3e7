"""A conversation's special tokens around a prompt: the user's turn and the opened answer.

The forms follow the models' chat templates, written out, because Jinja from model files is never
run. The prompt is all text: whatever looks like a special token in it stays text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ait_jax.errors import UserError, nearest, shown

# SmolLM2's template says this in conversations without a system turn.
SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True)
class Around:
    """What surrounds a prompt's text.

    Attributes:
        before: ids before the text.
        lead: text that is tokenized together with the prompt's, as in the templates.
        after: ids after the text.
        strip: whether white space at the prompt's ends is removed.
    """

    before: tuple[int, ...] = ()
    lead: str = ""
    after: tuple[int, ...] = ()
    strip: bool = False


@runtime_checkable
class ChatFormat(Protocol):
    """A form of conversations; forms are frozen dataclasses, so that they can be compared."""

    def around(self, special: Mapping[str, int], encode: Callable[[str], list[int]]) -> Around:
        """Returns what surrounds a prompt.

        Args:
            special: ids of a vocabulary's special tokens.
            encode: ids of plain text.

        Raises:
            UserError: the vocabulary lacks a token of this form.
        """
        ...


@dataclass(frozen=True)
class ChatML:
    """ChatML: SmolLM2, Qwen 2 and many others.

    Attributes:
        system: the system turn; "" leaves it out. The default is SmolLM2's.
    """

    system: str = SMOLLM2_SYSTEM

    def around(self, special: Mapping[str, int], encode: Callable[[str], list[int]]) -> Around:
        """See `ChatFormat.around`."""
        start, end = _ids(self, special, "<|im_start|>", "<|im_end|>")
        close = [end, *encode("\n")]
        system = [start, *encode(f"system\n{self.system}"), *close] if self.system else []
        return Around(
            before=(*system, start),
            lead="user\n",
            after=(*close, start, *encode("assistant\n")),
        )


@dataclass(frozen=True)
class Llama3Chat:
    """Llama 3's conversations.

    Attributes:
        system: the system turn; "" leaves it out, as Llama 3's own template does. Llama 3.1 and
            later put the date there: give what the model was trained with.
    """

    system: str = ""

    def around(self, special: Mapping[str, int], encode: Callable[[str], list[int]]) -> Around:
        """See `ChatFormat.around`."""
        names = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        begin, start, end, turn = _ids(self, special, *names)

        def header(role: str) -> list[int]:
            return [start, *encode(role), end]

        system = []
        if self.system:
            system = [*header("system"), *encode(f"\n\n{self.system.strip()}"), turn]
        return Around(
            before=(begin, *system, *header("user")),
            lead="\n\n",
            after=(turn, *header("assistant"), *encode("\n\n")),
            strip=True,
        )


@dataclass(frozen=True)
class GemmaChat:
    """Gemma's conversations, without a system turn, which Gemma has none of."""

    def around(self, special: Mapping[str, int], encode: Callable[[str], list[int]]) -> Around:
        """See `ChatFormat.around`."""
        begin, start, end = _ids(self, special, "<bos>", "<start_of_turn>", "<end_of_turn>")
        return Around(
            before=(begin, start),
            lead="user\n",
            after=(end, *encode("\n"), start, *encode("model\n")),
            strip=True,
        )


def _ids(form: object, special: Mapping[str, int], *tokens: str) -> list[int]:
    for token in tokens:
        if token not in special:
            raise UserError(
                f"the vocabulary has no special token {shown(token)}, which {type(form).__name__} "
                f"needs.{nearest(token, special)} Set TokenizersVocabulary.chat to the model's "
                "form of conversations (ChatML, Llama3Chat, GemmaChat), or to None for plain text."
            )
    return [special[token] for token in tokens]
