"""Replies are bounded whatever the server sends, and nothing is sent to another host."""

import gzip
import json
import tracemalloc

import pytest
from misbehaving_endpoint import (
    MisbehavingEndpoint,
    bomb,
    completion,
    endless,
    redirect,
)
from tiny_endpoint import connect, message, server, texts  # noqa: F401

from ait_jax.endpoint import bounded_client
from ait_jax.errors import UserError


@pytest.mark.parametrize("misbehaviour", [endless(), bomb(200), bomb(200, code=500)])
def test_a_reply_is_cut_at_a_stated_size_after_decompression(server, connect, misbehaviour):
    connect().ask([message("warm up")])  # imports
    server.then = misbehaviour
    tracemalloc.start()
    (reply,) = connect(max_attempts=1).ask([message("a")])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.text is None and "longer than 4 MB" in reply.error
    assert peak < 6 * bounded_client.MOST_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_compression_that_was_not_asked_for(server, connect, encoding):
    def zipped(handler, body):
        assert handler.headers["Accept-Encoding"] == "identity"
        data = gzip.compress(json.dumps(completion("zipped", body)).encode())
        handler.send(200, data, {"Content-Encoding": encoding})

    server.then = zipped
    (reply,) = connect(max_attempts=1).ask([message("a")])
    if encoding == "gzip":
        assert reply.text == "zipped"
    else:
        assert reply.text is None and f"compressed as '{encoding}'" in reply.error


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_neither_question_nor_key_goes_to_another_host(server, connect, code):
    with MisbehavingEndpoint() as other:
        server.then = redirect(code, other.base_url + "/chat/completions")
        with pytest.raises(UserError, match=rf"HTTP {code}: it redirects to .*base URL"):
            connect().ask([message("a")])
        assert other.requests == []


def test_the_same_host_may_move_the_request(server, connect):
    server.script = [redirect(307, "/v1/chat/completions")]
    assert texts(connect().ask([message("a")])) == ["A"]
    assert server.requests[0] == server.requests[1]


def test_redirects_in_a_circle_end(server, connect):
    server.then = redirect(308, "/v1/chat/completions")
    with pytest.raises(UserError, match="redirects"):
        connect().ask([message("a")])
    assert len(server.requests) == 5
