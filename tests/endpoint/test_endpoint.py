"""What the endpoint accepts, keeps, counts and says."""

import math

import pytest
from tiny_endpoint import connect, message, messages, server, texts  # noqa: F401

from ait_jax.endpoint.endpoint import Endpoint, Pacing, Prices
from ait_jax.errors import UserError


def test_replies_are_in_order_and_counted(server, connect):
    endpoint = connect(prices=Prices(1.0, 2.0), temperature=0.5)
    replies = endpoint.ask(messages(30), max_tokens=7)
    assert texts(replies) == [f"T{i}" for i in range(30)]
    assert all(reply.cost == pytest.approx(2e-5) and not reply.cached for reply in replies)
    assert (replies[0].input_tokens, replies[0].output_tokens) == (10, 5)
    assert server.requests[0]["temperature"] == 0.5 and server.requests[0]["max_tokens"] == 7
    assert server.requests[0]["model"] == "m"
    assert endpoint.totals.cost == pytest.approx(30 * 2e-5)
    assert endpoint.summary() == (
        "30 answers paid for, 0 from the cache, 0 failed, 0 not asked: $0.0006"
    )


def test_nothing_is_asked_twice(server, connect):
    first = connect(prices=Prices(1.0, 2.0))
    twice = first.ask([message("a"), message("b"), message("a")])
    assert texts(twice) == ["A", "B", "A"] and [reply.cached for reply in twice] == [
        False,
        False,
        True,
    ]
    assert sum(reply.cost for reply in twice) == pytest.approx(first.totals.cost)
    again = connect()
    assert texts(again.ask([message("b"), message("a")])) == ["B", "A"]
    assert len(server.requests) == 2 and again.totals.cached == 2 and again.totals.cost == 0
    connect(temperature=0.1).ask([message("a")])
    again.ask([message("a")], max_tokens=3)
    connect(model="n").ask([message("a")])
    assert len(server.requests) == 5


def test_without_a_cache_each_call_pays(server, connect, tmp_path):
    for _ in range(2):
        assert texts(connect(cache_dir=None).ask([message("a")])) == ["A"]
    assert len(server.requests) == 2 and list(tmp_path.iterdir()) == []


def test_a_damaged_cache_file_is_asked_again_and_said(server, connect, tmp_path, said):
    connect().ask(messages(3))
    paths = [path for path in (tmp_path / "cache").rglob("*.json") if path.name != "cache.json"]
    assert len(paths) == 3
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:50])
    endpoint = connect()
    assert texts(endpoint.ask(messages(3))) == ["T0", "T1", "T2"]
    assert len(server.requests) == 5 and endpoint.totals.cached == 1
    (line,) = said
    assert line.startswith("2 cached answers are damaged and will be asked again: ")
    assert texts(connect(budget=0).ask(messages(3))) == ["T0", "T1", "T2"]


def test_uncounted_tokens_are_charged_at_their_most(server, connect):
    server.tokens = (None, None)
    server.then = lambda handler, body: handler.send(
        200, {"choices": [{"message": {"content": "x"}}]}
    )
    endpoint = connect(prices=Prices(0.0, 1000.0))
    (reply,) = endpoint.ask([message("a")], max_tokens=300)
    assert reply.cost == pytest.approx(0.3) and reply.output_tokens == 0


def test_the_base_url_comes_from_the_environment(server, connect, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/")
    assert texts(connect(base_url=None).ask([message("a")])) == ["A"]


def test_other_names_for_the_limit_and_no_temperature(server, connect):
    connect(tokens_name="max_completion_tokens", temperature=None).ask([message("a")])
    assert server.requests[0]["max_completion_tokens"] == 256
    assert not {"max_tokens", "temperature"} & set(server.requests[0])


def test_no_question_needs_no_endpoint(connect):
    assert connect(base_url="http://127.0.0.1:9/v1").ask([]) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"base_url": "localhost:8000"}, "http://localhost:8000/v1"),
        ({"base_url": "http://user:secret@host/v1"}, "no user, password"),
        ({"base_url": "https://host/v1?key=secret"}, "no user, password"),
        ({"model": ""}, "model has no name"),
        ({"budget": -1.0, "prices": Prices(1, 1)}, "budget = -1.0"),
        ({"budget": math.nan, "prices": Prices(1, 1)}, "budget = nan"),
        ({"budget": 2.0}, "needs prices"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UserError) as error:
        Endpoint(**{"model": "m", **options})
    assert text in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["concurrency", "max_attempts", "max_failures", "timeout_s"])
def test_pacing_needs_positive_numbers(name):
    with pytest.raises(UserError, match=f"{name} = 0"):
        Pacing(**{name: 0})


def test_a_conversation_that_is_none_is_refused_before_anything_is_asked(server, connect):
    with pytest.raises(ValueError, match="conversation 1"):
        connect().ask([message("a"), [{"role": "user"}]])
    assert server.requests == []
