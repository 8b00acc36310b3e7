"""What one answer of an endpoint means, and that the key reaches nothing but the header."""

import email.utils
import json
import time

import pytest
from misbehaving_endpoint import completion, echo_key, says, status, trickle
from tiny_endpoint import KEY, connect, message, messages, server, texts  # noqa: F401

from ait_jax.endpoint import endpoint_call
from ait_jax.endpoint.endpoint_call import Redaction, _retry_after
from ait_jax.errors import UserError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ],
)
def test_retry_after(headers, seconds):
    assert _retry_after(headers) == seconds


def test_retry_after_may_be_a_date():
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert _retry_after({"retry-after": date}) == pytest.approx(100, abs=3)


def test_redaction():
    redaction = Redaction(KEY)
    assert KEY not in redaction.answer(f"is it {KEY}?")
    assert (
        redaction.message(f"Bearer {KEY}\n\x1b[31m sk-other-1234567890 a") == "[key] [31m [key] a"
    )
    assert redaction.message("Incorrect API key provided: sk-te**************CRET") == (
        "Incorrect API key provided: [key]"
    )
    assert len(redaction.message("x" * 1000)) == 200
    # A word that stands for no key is left in answers.
    assert Redaction("none").answer("none of them") == "none of them"


def files_with(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_text()]


@pytest.mark.parametrize("code", [200, 400, 401, 403, 429, 500])
def test_the_key_reaches_nothing_but_the_header(
    server, connect, said, tmp_path, monkeypatch, caplog, capsys, code
):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = [None]
    server.then = echo_key(code)
    endpoint = connect(max_attempts=2, concurrency=1)
    try:
        replies = endpoint.ask(messages(4))
        said += [str(reply) for reply in replies]
        assert texts(replies)[0] == "T0"
    except UserError as error:
        said.append(repr(error))
        said.append("".join(map(str, [error.__cause__, *error.args])))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    said += [endpoint.stopped, endpoint.summary(), repr(vars(endpoint))]
    said += [caplog.text, *capsys.readouterr()]
    assert all(KEY not in text and "SECRET" not in text for text in said)
    assert files_with(tmp_path, "SECRET") == [] and files_with(tmp_path, "T0")


def test_a_local_endpoint_needs_no_key(server, connect):
    assert texts(connect().ask([message("a")])) == ["A"]
    assert server.headers[0]["authorization"] == "Bearer none"


def test_openai_itself_is_not_asked_without_a_key(server, connect):
    endpoint = connect(base_url=endpoint_call.OPENAI_URL)
    with pytest.raises(UserError, match="environment variable OPENAI_API_KEY"):
        endpoint.ask([message("a")])


@pytest.mark.parametrize("key", ["two words-of-it", "line\nbreak-in-it", "sk-schlüssel-it"])
def test_a_key_that_cannot_be_one_is_not_shown(server, connect, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds") as error:
        connect().ask([message("a")])
    assert key[-5:] not in str(error.value) and server.requests == []


def test_a_missing_library_is_named(server, connect, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'ait-jax\[endpoint\]'"):
        connect().ask([message("a")])


@pytest.mark.parametrize(
    "text", ["Sure! Here is prose.", '{"broken": ', "", "<script>", "né\n\x00"]
)
def test_whatever_text_comes_is_given_as_it_is(server, connect, text):
    server.then = says(text)
    (reply,) = connect().ask([message("a")])
    assert reply.text == text and reply.error == "" and reply.finish == "stop"


def test_an_answer_without_text_is_an_error_that_was_paid_for(server, connect):
    server.then = says(None)
    endpoint = connect()
    (reply,) = endpoint.ask([message("a")])
    assert reply.text is None and "no text in the answer" in reply.error
    (again,) = connect().ask([message("a")])
    assert again.error == reply.error and again.cached and len(server.requests) == 1


def test_the_time_is_that_of_the_whole_answer(server, connect):
    server.script = [trickle(5.0)]
    begun = time.monotonic()
    endpoint = connect(timeout_s=1.0)
    assert texts(endpoint.ask([message("a")])) == ["A"]
    assert time.monotonic() - begun < 3 and endpoint.totals.attempts == 2


def test_a_content_filter_is_the_error_of_one_reply(server, connect):
    refusal = status(400, message="filtered", code="content_filter")
    server.script = [refusal] * 6
    endpoint = connect(concurrency=1)
    replies = endpoint.ask(messages(8))
    assert texts(replies) == [None] * 6 + ["T6", "T7"]
    assert replies[0].error == "HTTP 400: filtered" and endpoint.stopped == ""
    assert endpoint.totals.failed == 6 and endpoint.totals.attempts == 8


@pytest.mark.parametrize(
    ("misbehaviour", "needed"),
    [
        (status(401, message="bad key"), "OPENAI_API_KEY"),
        (status(402, message="pay"), "Add credit"),
        (status(403, message="no right"), "no access to this model"),
        (status(404, message="no model"), "the model 'm'"),
        (status(400, message="unknown parameter max_tokens"), "max_tokens"),
        (status(422, message="unknown field"), "temperature"),
        (status(429, message="quota", code="insufficient_quota"), "quota is used up"),
    ],
)
def test_a_mistake_that_all_requests_share_is_the_users(server, connect, misbehaviour, needed):
    server.then = misbehaviour
    endpoint = connect(concurrency=2)
    with pytest.raises(UserError) as error:
        endpoint.ask(messages(50))
    assert needed in str(error.value) and server.base_url in str(error.value)
    assert len(server.requests) <= 7  # no retries, and not all 50 are tried


def test_a_refusal_after_answers_is_the_error_of_one_reply(server, connect):
    server.script = [None] + [status(400, message="same")] * 9
    replies = connect(concurrency=1).ask(messages(11))
    assert texts(replies) == ["T0", *[None] * 9, "T10"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ude00\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\\ude00 \\ud83d \n", "\ufffd\\ude00 \\ud83d \n"),
        (b"caf\xe9 \xed\xa0\xbd", "caf\ufffd \ufffd\ufffd\ufffd"),
    ],
)
def test_halves_of_characters_are_replaced_where_a_reply_is_read(server, connect, body, text):
    """They would be kept in the cache, and no file that is made of the answer could be written."""

    def cut(handler, asked):
        whole = json.dumps(completion("HERE", asked)).encode()
        handler.send(200, whole.replace(b"HERE", body))

    server.then = cut
    for _ in range(2):  # the second time from the cache
        (reply,) = connect().ask([message("a")])
        assert reply.text == text
        assert reply.text.encode()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"choices": ' + b"9" * 5000 + b"}", b"NaN", b""]
)
def test_json_beyond_all_bounds_is_a_reply_that_failed(server, connect, body):
    server.then = lambda handler, asked: handler.send(200, body)
    (reply,) = connect(max_attempts=1).ask([message("a")])
    assert reply.text is None and reply.error


def test_an_endpoint_that_answers_nothing_has_stopped_even_after_few_requests(server, connect):
    server.then = status(500)
    endpoint = connect(max_attempts=1)
    endpoint.ask([message("a"), message("b")])
    assert endpoint.stopped == f"{server.base_url} answered no request (last: HTTP 500: no)"
