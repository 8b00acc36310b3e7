"""Asks an OpenAI-compatible chat endpoint many questions: concurrently, in a budget, never twice.

    endpoint = Endpoint(model="gpt-4o-mini", cache_dir="cache", prices=Prices(0.15, 0.6), budget=2)
    replies = endpoint.ask([[{"role": "user", "content": "Name a color."}]])

The key comes from OPENAI_API_KEY and goes into the request's header only.
"""

import dataclasses
import math
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.endpoint.asking import Asking
from ait_jax.endpoint.chat import (
    BUDGET,
    DOWN,
    ChatRequest,
    Conversation,
    Prices,
    Reply,
    check_conversation,
)
from ait_jax.endpoint.endpoint_cache import ReplyCache
from ait_jax.endpoint.endpoint_call import OPENAI_URL
from ait_jax.errors import UserError, shown
from ait_jax.runtime import reporter

_FREE = Prices(0.0, 0.0)


@dataclass(frozen=True)
class Pacing:
    """How many requests run at once, how long each may take, and how often it is retried.

    Attributes:
      concurrency: most requests in flight.
      timeout_s: for one attempt.
      max_attempts: per request, the first included. Attempts are spaced by what the endpoint asks
        for (Retry-After), else by exponential back-off with jitter.
      max_failures: asking stops after this many requests in a row failed all their attempts.
      backoff_s: the first wait between attempts, before jitter.

    Raises:
      UserError: a number out of range.
    """

    concurrency: int = 8
    timeout_s: float = 60.0
    max_attempts: int = 6
    max_failures: int = 5
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "max_failures"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)} must be at least 1.")
        if not self.timeout_s > 0:
            raise UserError(f"timeout_s = {self.timeout_s} must be a number of seconds above 0.")


@dataclass
class Totals:
    """What an endpoint has done since it was created.

    Attributes:
      answered: replies paid for now.
      cached: replies that cost nothing: from the cache, or repeated within one call.
      failed: conversations that were asked and got no text.
      not_asked: left out because the budget was used up or the endpoint had failed.
      attempts: HTTP requests, retries included.
      cost: dollars for `answered`.
      unanswered_cost: the most that attempts without an answer may have cost.
    """

    answered: int = 0
    cached: int = 0
    failed: int = 0
    not_asked: int = 0
    attempts: int = 0
    cost: float = 0.0
    unanswered_cost: float = 0.0


class Endpoint:
    """A chat endpoint, its cache and its budget.

    Args:
      base_url: default OPENAI_BASE_URL, else OpenAI's own. Must hold no key and no query.
      model: its name at the endpoint.
      cache_dir: where answers are kept; None keeps none, and the same question costs again.
      prices: None counts every request as free.
      budget: dollars that this object may spend, None for no limit. The most that a request can
        cost is set aside before it starts. 0 asks nothing and answers from the cache.
      pacing: concurrency, time-outs and retries.
      tokens_name: the endpoint's name for the token limit; OpenAI's reasoning models want
        "max_completion_tokens".
      temperature: of the answers; None leaves it out of the requests, for models that take only
        their own.

    Attributes:
      totals: counts and dollars of all calls so far.
      cache: the ReplyCache, or None.
      stopped: "" or why asking stopped, for the user: budget used up, or endpoint failing. The
        same command continues; a new `ask` on this object does not retry a failed endpoint.

    Raises:
      UserError: a value is out of range.
    """

    def __init__(
        self,
        base_url: str | None = None,
        model: str = "gpt-4o-mini",
        cache_dir: Any = None,
        prices: Prices | None = None,
        budget: float | None = None,
        pacing: Pacing | None = None,
        tokens_name: str = "max_tokens",
        temperature: float | None = 0.0,
    ) -> None:
        self.base_url = _check_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        if temperature is not None and not 0 <= temperature <= 2:
            raise UserError(f"temperature = {temperature} must be from 0 to 2, or none.")
        if not model:
            raise UserError("the endpoint's model has no name.")
        if budget is not None and not (math.isfinite(budget) and budget >= 0):
            raise UserError(f"budget = {budget} must be in dollars, 0 or more.")
        if budget and prices is None:
            raise UserError(
                f"a budget of ${budget:g} needs prices: dollars for a million input and output "
                "tokens, from the endpoint's price list (0 and 0 for a local one)."
            )
        self.model = model
        self.pacing = pacing or Pacing()
        self.prices = prices or _FREE
        self.budget = budget
        self.tokens_name, self.temperature = tokens_name, temperature
        self.totals = Totals()
        self.stopped = ""
        self.cache = None if cache_dir is None else ReplyCache(cache_dir)

    def ask(
        self,
        conversations: Sequence[Conversation],
        max_tokens: int = 256,
        description: str = "asking",
    ) -> list[Reply]:
        """Returns one reply for each conversation, in their order.

        Each answer reaches the cache before the next request starts, so what was paid for is kept
        however the program ends; Ctrl-C waits for what is in flight, a second one does not. Equal
        conversations are asked once.

        Args:
          conversations: lists of {"role": ..., "content": ...} messages.
          max_tokens: the answer's limit.
          description: for the progress bar.

        Raises:
          UserError: the endpoint refuses all requests (key, model, base URL, parameters), the
            cache is not writable, `max_tokens` is below 1, or the `endpoint` extra is missing.
          ValueError: a conversation is malformed.
        """
        if max_tokens < 1:
            raise UserError(f"max_tokens = {max_tokens} must be at least 1.")
        parameters: dict[str, Any] = {self.tokens_name: max_tokens}
        if self.temperature is not None:
            parameters["temperature"] = float(self.temperature)
        requests: list[ChatRequest] = []
        for i, conversation in enumerate(conversations):
            asked = {"model": self.model, "messages": check_conversation(conversation, i)}
            requests.append(ChatRequest(self.base_url, asked | parameters, max_tokens))
        replies: dict[str, Reply] = {}
        pending: dict[str, ChatRequest] = {}
        for request in requests:
            key = request.key
            if key in replies or key in pending:
                continue
            kept = self.cache.get(request) if self.cache else None
            if kept:
                replies[key] = kept
            else:
                pending[key] = request
        self._say_damaged()
        from_cache = set(replies)
        if pending:
            replies |= Asking(self, pending, done=len(from_cache), description=description).run()
        return self._count([request.key for request in requests], replies, from_cache)

    def summary(self) -> str:
        """Returns a line for the user: answers, failures and dollars so far."""
        totals = self.totals
        text = (
            f"{totals.answered} answers paid for, {totals.cached} from the cache, "
            f"{totals.failed} failed, {totals.not_asked} not asked: ${totals.cost:.4f}"
        )
        if totals.unanswered_cost:
            text += f" (and at most ${totals.unanswered_cost:.4f} for answers that never arrived)"
        return text

    def _say_damaged(self) -> None:
        if self.cache and self.cache.damaged:
            damaged, self.cache.damaged = self.cache.damaged, []
            reporter.say(
                f"{len(damaged)} cached answers are damaged and will be asked again: {damaged[0]}"
                + (", ..." if len(damaged) > 1 else "")
            )

    def _count(
        self, keys: Sequence[str], replies: dict[str, Reply], from_cache: set[str]
    ) -> list[Reply]:
        """Returns the replies in the order of `keys` and adds them to the totals."""
        seen: set[str] = set()
        result: list[Reply] = []
        for key in keys:
            reply = replies[key]
            if key in seen and reply.text is not None:
                reply = dataclasses.replace(reply, cached=True, cost=0.0)
            if reply.error in (BUDGET, DOWN):
                self.totals.not_asked += 1
            elif reply.error:
                self.totals.failed += 1
            elif reply.cached or key in from_cache:
                self.totals.cached += 1
            else:
                self.totals.answered += 1
            seen.add(key)
            result.append(reply)
        return result


def _check_url(url: str) -> str:
    """Returns `url` without a final slash; it must hold nothing secret."""
    parts = urllib.parse.urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "the endpoint's base URL must have no user, password, query or fragment: it is "
            "written to the cache. Put the key into the environment variable OPENAI_API_KEY."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"the endpoint's base URL {shown(url)} must look like {OPENAI_URL} or "
            "http://localhost:8000/v1."
        )
    return url.rstrip("/")
