"""One HTTP request to a chat endpoint, and what its failures mean."""

import asyncio
import email.utils
import logging
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from ait_jax.endpoint import bounded_client
from ait_jax.endpoint.bounded_client import BadReply, Redirected
from ait_jax.endpoint.chat import ChatRequest, Prices, Reply
from ait_jax.errors import UserError, shown
from ait_jax.runtime import strict_json

OPENAI_URL = "https://api.openai.com/v1"
_KEY_NAME = "OPENAI_API_KEY"
_NO_KEY = "none"  # the library requires one; local endpoints ignore it
# Shorter ones ("EMPTY", "none") are not secret, and answers contain such words.
_SHORTEST_SECRET = 8
_LIKE_A_KEY = re.compile(r"(?i)bearer\s+\S+|\bsk-[\w*-]{6,}")
_TALKATIVE = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
_RETRIED_STATUS = {408, 409, 425, 429}
# Refusals of one conversation, not of something that all share.
_ABOUT_ONE_REQUEST = {"content_filter", "content_policy_violation", "context_length_exceeded"}


# A pair of surrogates, half of one, any other escape.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][\da-fA-F]{2})|.)"
)


class Transient(Exception):
    """A failure that may pass.

    Attributes:
      retry_after: seconds that the endpoint asked to wait, or None.
      perhaps_paid: True if the endpoint may have answered, and charged, nevertheless.
    """

    def __init__(
        self, text: str, retry_after: float | None = None, perhaps_paid: bool = False
    ) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.perhaps_paid = perhaps_paid


class Refused(Exception):
    """The endpoint refused the request and would refuse it again.

    Attributes:
      status: the HTTP status.
      shared: True if all requests may be refused, not only this conversation.
      fatal: True if they certainly will be.
    """

    def __init__(self, status: int, text: str, shared: bool, fatal: bool) -> None:
        super().__init__(text)
        self.status = status
        self.shared = shared
        self.fatal = fatal


def client(base_url: str, key: str | None, timeout_s: float) -> Any:
    """Returns the `openai` library's asynchronous client without its own retries.

    Raises:
      UserError: the library is missing, OpenAI itself is asked without a key, or the key has
        characters that no key has.
    """
    try:
        import openai  # imported late: half a second, and an optional dependency
        import tenacity  # noqa: F401 - fails now if one of the two is missing
    except ImportError as error:
        raise UserError(
            f"Asking an endpoint needs the Python package {error.name}: "
            "pip install 'ait-jax[endpoint]'."
        ) from None
    if key is None and base_url.startswith(OPENAI_URL.removesuffix("/v1")):
        raise UserError(
            f"{base_url} needs a key: set the environment variable {_KEY_NAME}, or give the base "
            "URL of another endpoint (a local one needs no key)."
        )
    if key and not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"{_KEY_NAME} holds white space or characters that no key has; set it to just the key."
        )
    for name in _TALKATIVE:
        # At DEBUG they log response headers, and some endpoints echo the key.
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.INFO, logger.level))
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=key or _NO_KEY,
        timeout=timeout_s,
        max_retries=0,
        http_client=bounded_client.bounded_client(timeout_s),
    )


class Redaction:
    """Removes the key, and whatever looks like one, from an endpoint's texts."""

    def __init__(self, key: str | None) -> None:
        self._key = key if key and len(key) >= _SHORTEST_SECRET else None

    def answer(self, text: str) -> str:
        """Returns a model's answer without the key."""
        return text.replace(self._key, "[key]") if self._key else text

    def message(self, text: str) -> str:
        """Returns an error's text as one short printable line without keys."""
        text = _LIKE_A_KEY.sub("[key]", self.answer(text))
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= 200 else line[:197] + "..."


async def post(
    opened: Any, request: ChatRequest, timeout_s: float, redaction: Redaction, prices: Prices
) -> Reply:
    """Sends `request` once through a `client`; raises Transient or Refused if no reply comes.

    `timeout_s` is for the whole answer, even one that trickles in.
    """
    import openai

    try:
        async with asyncio.timeout(timeout_s):
            raw = await opened.chat.completions.with_raw_response.create(**request.body)
            body = raw.http_response.content
    except (Redirected, BadReply) as error:
        raise _of_reply(error) from None
    except (openai.APITimeoutError, TimeoutError):
        raise Transient(f"no answer within {timeout_s:g} s", perhaps_paid=True) from None
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, Redirected | BadReply):
            raise _of_reply(error.__cause__) from None
        # The library says only "Connection error."; the cause says more.
        text = redaction.message(str(error.__cause__ or error))
        refused = "connect" in type(error.__cause__).__name__.lower()
        raise Transient(f"connection failed: {text}", perhaps_paid=not refused) from None
    except openai.APIStatusError as error:
        raise _of_status(error, redaction) from None
    except (openai.OpenAIError, ValueError) as error:
        text = redaction.message(f"{type(error).__name__}: {error}")
        raise Transient(f"unreadable answer: {text}", perhaps_paid=True) from None
    return _parse(body, request, redaction, prices)


def _of_reply(error: Redirected | BadReply) -> Exception:
    if isinstance(error, Redirected):
        return Refused(error.status, f"HTTP {error.status}: {error}", shared=True, fatal=True)
    return Transient(f"the answer is not read: {error}", perhaps_paid=True)


def _of_status(error: Any, redaction: Redaction) -> Exception:
    status, body = error.status_code, error.body
    said = body.get("message") if isinstance(body, Mapping) else body
    said = said if isinstance(said, str) else str(error)
    text = f"HTTP {status}: {redaction.message(said)}"
    code = str(error.code or error.type or "")
    if status == 429 and "insufficient_quota" in (error.code, error.type):
        return Refused(status, text, shared=True, fatal=True)
    if status in _RETRIED_STATUS or status >= 500:
        return Transient(text, _retry_after(error.response.headers))
    shared = code not in _ABOUT_ONE_REQUEST
    return Refused(status, text, shared=shared, fatal=status in (401, 402, 404, 405))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns seconds from Retry-After, a number or a date, or OpenAI's retry-after-ms."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def _whole_characters(body: bytes) -> str:
    r"""Returns JSON text in which bytes and escapes (`\ud800`) that are no character are U+FFFD.

    No file could hold them, and a model that was cut in the middle of an emoji may send them.
    """
    text = body.decode("utf-8-sig", "replace")
    return _ESCAPE.sub(lambda match: "\\ufffd" if match["half"] else match[0], text)


def _parse(body: bytes, request: ChatRequest, redaction: Redaction, prices: Prices) -> Reply:
    """Returns the reply in the body of a 200 response.

    If the endpoint does not count tokens, the cost is the most that it can have been.
    """
    try:
        value = strict_json.loads(_whole_characters(body), "the answer")
        choice = value["choices"][0]
        text = choice["message"].get("content")
        finish = choice.get("finish_reason")
        usage = value.get("usage") or {}
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except UserError as error:
        raise Transient(redaction.message(str(error)), perhaps_paid=True) from None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Transient(
            f"the answer is not a chat completion ({type(error).__name__})", perhaps_paid=True
        ) from None
    if not (text is None or isinstance(text, str)):
        raise Transient("the answer's content is not text", perhaps_paid=True)
    if type(tokens_in) is int and type(tokens_out) is int and min(tokens_in, tokens_out) >= 0:
        tokens = charged = (tokens_in, tokens_out)
    else:
        tokens, charged = (0, 0), (request.most_input_tokens(), request.max_tokens)
    finish = redaction.message(finish) if isinstance(finish, str) else ""
    return Reply(
        text=None if text is None else redaction.answer(text),
        error="" if text is not None else f"no text in the answer (finish_reason {shown(finish)})",
        cost=prices.cost(*charged),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        finish=finish,
    )
