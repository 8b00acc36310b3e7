"""Retries, budget, concurrency, an endpoint that dies, Ctrl-C: against a server that misbehaves."""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from misbehaving_endpoint import (
    closed,
    cut_json,
    hang,
    no_choices,
    page,
    status,
    truncated,
    wrong_schema,
)
from tiny_endpoint import connect, message, messages, server, texts  # noqa: F401

from ait_jax.endpoint.endpoint import Prices
from ait_jax.errors import UserError

PRICES = Prices(100.0, 1000.0)  # 10 + 5 tokens: 0.006 dollars


@pytest.mark.parametrize(
    ("misbehaviour", "perhaps_paid"),
    [
        (status(429), False),
        (status(408), False),
        (status(500), False),
        (status(503), False),
        (hang(10.0), True),
        (closed(), True),
        (truncated(), True),
        (cut_json(), True),
        (page(), True),
        (wrong_schema(), True),
        (no_choices(), True),
    ],
)
def test_what_may_pass_is_tried_again(server, connect, misbehaviour, perhaps_paid):
    server.script = [misbehaviour] * 2
    # Also for an honest answer, on a busy machine.
    endpoint = connect(timeout_s=2.0, prices=PRICES)
    assert texts(endpoint.ask([message("a")])) == ["A"]
    assert endpoint.totals.attempts == len(server.requests) == 3
    assert (endpoint.totals.unanswered_cost > 0) == perhaps_paid
    assert endpoint.totals.cost == pytest.approx(0.006)


def test_attempts_end(server, connect):
    server.then = wrong_schema()
    endpoint = connect(max_attempts=3)
    (reply,) = endpoint.ask([message("a")])
    assert reply.text is None and "not a chat completion" in reply.error
    assert len(server.requests) == 3 and endpoint.totals.failed == 1
    server.then = None
    assert texts(connect().ask([message("a")])) == ["A"]  # a failure is not kept


def test_retry_after_holds_for_all_workers(server, connect):
    server.script = [status(429, {"Retry-After": "0.6"})]
    endpoint = connect(concurrency=1)
    assert texts(endpoint.ask(messages(3))) == ["T0", "T1", "T2"]
    assert 0.6 <= server.times[1] - server.times[0] < 2.0

    server.times.clear()
    server.script = [status(429, {"Retry-After": "0.6"})] + [status(500)] * 3
    connect(concurrency=4, cache_dir=None).ask(messages(4))
    assert min(later - server.times[0] for later in server.times[4:]) >= 0.5


def test_waits_grow(server, connect):
    server.script = [status(500)] * 4
    connect(backoff_s=0.1).ask([message("a")])
    waits = [b - a for a, b in itertools.pairwise(server.times)]
    assert all(0.04 * 2**i < wait < 0.1 * 2**i + 1.0 for i, wait in enumerate(waits))


def test_concurrency_is_used_and_bounded(server, connect):
    server.delay_s = 0.05
    begun = time.monotonic()
    connect(concurrency=5).ask(messages(20))
    assert server.most_at_once == 5
    assert time.monotonic() - begun < 20 * 0.05 + 1


def test_a_budget_is_never_exceeded(server, connect):
    """At most 0.3 dollars a request set aside: what is paid, 0.006, then lets more start."""
    server.delay_s = 0.02
    endpoint = connect(concurrency=8, prices=PRICES, budget=0.5)
    replies = endpoint.ask(messages(60), max_tokens=300)
    answered = [reply for reply in replies if reply.text is not None]
    assert server.most_at_once == 1  # two at once might have cost 0.6
    assert 20 <= len(answered) < 60 and len(answered) == len(server.requests)
    assert (
        endpoint.totals.cost == pytest.approx(0.006 * len(answered)) and endpoint.totals.cost <= 0.5
    )
    assert {reply.error for reply in replies if reply.text is None} == {"budget"}
    assert "budget of $0.5" in endpoint.stopped and endpoint.totals.not_asked == 60 - len(answered)

    more = connect(prices=PRICES, budget=5.0)
    assert None not in texts(more.ask(messages(60), max_tokens=300))
    assert more.totals.cached == len(answered) and len(server.requests) == 60


def test_answers_that_may_have_been_paid_count_against_the_budget(server, connect):
    server.then = truncated()
    endpoint = connect(prices=PRICES, budget=0.7, concurrency=3)
    replies = endpoint.ask(messages(3), max_tokens=300)
    assert len(server.requests) == 2
    assert 0.6 < endpoint.totals.unanswered_cost <= 0.7 and endpoint.totals.cost == 0
    assert texts(replies) == [None] * 3 and "at most $0.6" in endpoint.summary()


@pytest.mark.parametrize("prices", [None, Prices(0.0, 0.0), PRICES])
def test_a_budget_of_nothing_asks_nothing_and_answers_from_the_cache(server, connect, prices):
    connect().ask(messages(2))
    endpoint = connect(budget=0, prices=prices)
    replies = endpoint.ask(messages(4))
    assert texts(replies) == ["T0", "T1", None, None] and replies[2].error == "budget"
    assert len(server.requests) == 2 and "budget of $0" in endpoint.stopped
    whole = connect(budget=0)
    assert texts(whole.ask(messages(2))) == ["T0", "T1"] and whole.stopped == ""


def test_an_endpoint_that_dies_half_way(server, connect):
    server.script = [None] * 10
    server.then = closed()
    endpoint = connect(concurrency=2, max_attempts=2, max_failures=3)
    replies = endpoint.ask(messages(100))
    answered = [i for i, reply in enumerate(replies) if reply.text == f"T{i}"]
    assert len(answered) == 10 and answered[-1] <= 11  # two at a time may overtake each other
    assert len(server.requests) <= 10 + 2 * 4  # 3 failures, and perhaps one beside them
    assert endpoint.totals.failed in (3, 4) and endpoint.totals.not_asked >= 86
    assert re.search("failed 3 times in a row .last: connection failed", endpoint.stopped)
    assert replies[-1].error == "not asked: the endpoint failed before"
    before = len(server.requests)
    assert texts(endpoint.ask(messages(100))).count(None) == 90
    assert len(server.requests) == before  # this object knows that it is gone

    server.then = None
    again = connect()
    assert None not in texts(again.ask(messages(100)))
    assert again.totals.cached == 10 and again.totals.answered == 90


def test_nobody_listens(connect):
    endpoint = connect(base_url="http://127.0.0.1:9/v1", max_attempts=2, prices=PRICES, budget=1)
    replies = endpoint.ask(messages(9))
    assert texts(replies) == [None] * 9 and "connection failed" in replies[0].error
    assert endpoint.stopped and endpoint.totals.unanswered_cost == 0


def test_a_cache_that_cannot_be_written_is_known_before_anything_is_paid(server, connect, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        connect(cache_dir=tmp_path / "file").ask(messages(3))
    assert server.requests == []


def test_a_cache_that_fails_later_stops_the_asking(server, connect, monkeypatch):
    endpoint = connect(concurrency=2)

    def full(request, reply):
        raise UserError("cannot write: no space left")

    monkeypatch.setattr(endpoint.cache, "put", full)
    with pytest.raises(UserError, match="no space"):
        endpoint.ask(messages(50))
    assert len(server.requests) <= 3


def test_asking_works_where_a_loop_runs_already(server, connect):
    async def notebook():
        return connect().ask([message("a")])

    assert texts(asyncio.run(notebook())) == ["A"]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_was_paid_for(server, connect, tmp_path, kill):
    program = (
        "import signal, sys\nfrom ait_jax.endpoint.endpoint import Endpoint, Pacing\n"
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"cache = {str(tmp_path / 'cache')!r}\n"
        f"endpoint = Endpoint({server.base_url!r}, 'm', cache, pacing=Pacing(2))\n"
        "message = lambda i: [{'role': 'user', 'content': f't{i}'}]\n"
        "try: endpoint.ask([message(i) for i in range(60)])\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    server.delay_s = 0.1
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while len(server.requests) < 10:
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, kill)
    assert process.wait(20) == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    sent = len(server.requests)
    assert sent < 60
    server.delay_s = 0.0
    endpoint = connect()
    assert None not in texts(endpoint.ask(messages(60)))
    # Ctrl-C waits for the two in flight; a kill may lose them and no more.
    lost = 0 if kill == signal.SIGINT else 2
    assert sent - lost <= endpoint.totals.cached <= sent
