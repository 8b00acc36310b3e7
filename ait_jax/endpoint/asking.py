"""The asynchronous side of `Endpoint.ask`: workers, budget, back-off, when to stop."""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ait_jax.endpoint import endpoint_call
from ait_jax.endpoint.chat import BUDGET, DOWN, ChatRequest, Reply
from ait_jax.endpoint.endpoint_call import Redaction, Refused, Transient
from ait_jax.errors import UserError, shown
from ait_jax.runtime import reporter

_SAME_REFUSALS = 5  # this many equal ones and no answer: the conversations are not to blame
_LONGEST_WAIT_S = 300.0


class Asking:
    """One call of `Endpoint.ask`, for what the cache does not hold: `pending`, by key.

    The progress bar is called `description` and begins at `done`, the replies of the cache.
    """

    def __init__(
        self, endpoint: Any, pending: dict[str, ChatRequest], done: int, description: str
    ) -> None:
        self.endpoint, self.pacing = endpoint, endpoint.pacing
        self.totals = endpoint.totals
        self.pending = pending
        self.done_before = done
        self.description = description
        self.key = os.environ.get("OPENAI_API_KEY", "").strip() or None
        self.redaction = Redaction(self.key)
        self.replies: dict[str, Reply] = {}
        self.reserved, self.in_flight = 0.0, 0
        self.failed = self.failures_in_a_row = 0
        self.last_failure = ""
        self.refusals: Counter[str] = Counter()
        self.answers = 0
        self.not_before = 0.0
        self.error: BaseException | None = None

    def run(self) -> dict[str, Reply]:
        """Returns {key of the request: reply} for all pending requests."""
        endpoint = self.endpoint
        if endpoint.budget == 0:
            endpoint.stopped = self._budget_text()
        if not endpoint.stopped:
            if endpoint.cache:
                endpoint.cache.prepare()
            _run_to_the_end(self._ask_all)
            if not endpoint.stopped and self.failures_in_a_row >= len(self.pending):
                endpoint.stopped = (
                    f"{endpoint.base_url} answered no request (last: {self.last_failure})"
                )
        if self.error:
            raise self.error
        missing = BUDGET if endpoint.stopped == self._budget_text() else DOWN
        return {key: self.replies.get(key) or Reply(None, missing) for key in self.pending}

    async def _ask_all(self) -> None:
        self.stop = asyncio.Event()
        self.settled = asyncio.Condition()
        opened = endpoint_call.client(self.endpoint.base_url, self.key, self.pacing.timeout_s)
        todo = iter(self.pending.items())
        total = self.done_before + len(self.pending)
        async with opened:
            with reporter.progress(self.description, total, self.done_before) as self.show:
                count = min(self.pacing.concurrency, len(self.pending))
                workers = asyncio.gather(*(self._work(opened, todo) for _ in range(count)))
                try:
                    await asyncio.shield(workers)
                except asyncio.CancelledError:  # Ctrl-C
                    await self._stop_asking("")
                    await workers
                    raise

    async def _work(self, opened: Any, todo: Iterator[tuple[str, ChatRequest]]) -> None:
        for key, request in todo:
            if self.stop.is_set():
                return
            try:
                reply = await self._answer(opened, request)
            except Refused as error:
                reply = await self._refused(error)
            except Transient as error:
                reply = await self._failed(error)
            except Exception as error:  # the cache's disk is full, for example
                self.error = self.error or error
                await self._stop_asking("")
                return
            if reply:
                self.replies[key] = reply
                self.failed += reply.text is None
                self._show()

    async def _answer(self, opened: Any, request: ChatRequest) -> Reply | None:
        """Asks until there is a reply and keeps it; None if asking stopped first."""
        import tenacity

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, Transient) and not self.stop.is_set()
            ),
            stop=tenacity.stop_after_attempt(self.pacing.max_attempts),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        return await attempts(self._attempt, opened, request)

    async def _attempt(self, opened: Any, request: ChatRequest) -> Reply | None:
        endpoint = self.endpoint
        # Another worker's Retry-After holds for this one, too.
        await self._sleep(self.not_before - asyncio.get_running_loop().time())
        worst = endpoint.prices.cost(request.most_input_tokens(), request.max_tokens)
        if not await self._reserve(worst):
            return None
        self.totals.attempts += 1
        try:
            reply = await endpoint_call.post(
                opened, request, self.pacing.timeout_s, self.redaction, endpoint.prices
            )
            self.totals.cost += reply.cost
            self.answers += 1
            self.failures_in_a_row = 0
            if endpoint.cache:
                # In a thread: the disk must not hold up the other workers.
                await asyncio.to_thread(endpoint.cache.put, request, reply)
            return reply
        except Transient as error:
            if error.perhaps_paid:
                self.totals.unanswered_cost += worst
            raise
        finally:
            self.in_flight -= 1
            self.reserved = self.reserved - worst if self.in_flight else 0.0
            async with self.settled:
                self.settled.notify_all()

    async def _reserve(self, worst: float) -> bool:
        """Sets money aside; waits while requests in flight may turn out cheaper."""
        budget = self.endpoint.budget
        async with self.settled:
            while not self.stop.is_set():
                spent = self.totals.cost + self.totals.unanswered_cost
                # Nothing is set aside for a request that waits between attempts.
                if budget is None or spent + self.reserved + worst <= budget:
                    self.reserved += worst
                    self.in_flight += 1
                    return True
                if not self.in_flight:
                    break
                await self.settled.wait()
        if not self.stop.is_set():
            await self._stop_asking(self._budget_text())
        return False

    def _budget_text(self) -> str:
        return f"the budget of ${self.endpoint.budget or 0:g} is used up"

    async def _stop_asking(self, reason: str) -> None:
        self.endpoint.stopped = self.endpoint.stopped or reason
        self.stop.set()
        async with self.settled:
            self.settled.notify_all()

    def _wait(self, state: Any) -> float:
        """Returns seconds until the next attempt; a Retry-After holds for all workers."""
        asked = getattr(state.outcome.exception(), "retry_after", None)
        base = self.pacing.backoff_s
        if asked is None:
            return random.uniform(0.5, 1.0) * min(base * 2 ** (state.attempt_number - 1), 60.0)
        asked = min(asked, _LONGEST_WAIT_S)
        self.not_before = max(self.not_before, asyncio.get_running_loop().time() + asked)
        return asked + random.uniform(0.0, 0.25) * base

    async def _sleep(self, seconds: float) -> None:
        """Waits, unless asking has stopped."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.stop.wait()

    async def _failed(self, error: Transient) -> Reply:
        self.failures_in_a_row += 1
        self.last_failure = str(error)
        if self.failures_in_a_row >= self.pacing.max_failures:
            await self._stop_asking(
                f"{self.endpoint.base_url} failed {self.failures_in_a_row} times in a row "
                f"(last: {error})"
            )
        return Reply(None, str(error))

    async def _refused(self, error: Refused) -> Reply:
        """Returns the reply for one refusal; sets `self.error` if every request is refused."""
        text = str(error)
        self.failures_in_a_row = 0
        self.refusals[text] += error.shared
        enough = min(len(self.pending), _SAME_REFUSALS)
        all_refused = not self.answers and self.refusals[text] >= enough
        if error.fatal or all_refused:
            self.error = self.error or UserError(self._advice(error))
            await self._stop_asking("")
        return Reply(None, text)

    def _advice(self, error: Refused) -> str:
        endpoint = self.endpoint
        needed = {
            401: "Set the environment variable OPENAI_API_KEY to a key that it accepts.",
            402: "Add credit to the account; the same command continues.",
            403: "The key in OPENAI_API_KEY has no access to this model.",
            404: f"Check the base URL and the model {shown(endpoint.model)}.",
            405: "Check the base URL, which usually ends in /v1.",
            429: "The account's quota is used up; raise it, and the same command continues.",
        }
        default = (
            f"Check the model {shown(endpoint.model)} and what it accepts (--tokens_name, "
            "--temperature=none)."
        )
        refusal = str(error).rstrip(".")
        return f"{endpoint.base_url} refuses: {refusal}. {needed.get(error.status, default)}"

    def _show(self) -> None:
        self.show(
            self.done_before + len(self.replies),
            f"${self.totals.cost:.4f}, {self.done_before} cached, {self.failed} failed",
        )


def _run_to_the_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs the coroutine function, in its own thread where a loop already runs (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
    else:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(work())).result()
