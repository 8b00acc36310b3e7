"""Whatever an endpoint answers is a reply or a failure of that request.

`pytest -n0 --hypothesis-profile=long tests/endpoint/test_hostile_replies.py` tries 10,000 answers.
"""

import json
import re
import tracemalloc

import pytest
from hostile import damaged, unchanged
from hypothesis import given
from hypothesis import strategies as st

from ait_jax.endpoint.chat import ChatRequest, Prices, Reply
from ait_jax.endpoint.endpoint_cache import ReplyCache
from ait_jax.endpoint.endpoint_call import Redaction, Transient, _parse, _whole_characters
from ait_jax.errors import visible
from ait_jax.runtime import strict_json

KEY = "sk-secret-0123456789"
BODY = {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
REQUEST = ChatRequest("http://x/v1", BODY, 5)
ANSWER = json.dumps({
    "id": "1", "object": "chat.completion", "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": f"caf\u00e9 \U0001f600 {KEY}"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}).encode()  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    found = ReplyCache(tmp_path_factory.mktemp("outside") / "cache")
    found.prepare()
    found.put(REQUEST, Reply("makes the folder"))
    found.path(REQUEST).unlink()
    return found


@given(damaged(ANSWER) | st.binary(max_size=100))
def test_an_answer_is_a_reply_that_can_be_kept_or_a_failure(cache, body):
    tracemalloc.start()
    try:
        reply = _parse(body, REQUEST, Redaction(KEY), Prices(1.0, 1.0))
    except Transient as error:
        assert str(error) == visible(str(error)) and len(str(error)) < 1000
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * len(body) + 500_000
    assert (reply.text is None) == bool(reply.error) and reply.cost >= 0
    assert KEY not in f"{reply.text} {reply.error} {reply.finish}"
    assert reply.error == visible(reply.error) and len(reply.error) < 500
    folder = cache.directory
    with unchanged(folder.parent):
        cache.put(REQUEST, reply)
        kept = cache.get(REQUEST)
        assert kept is not None and (kept.text, kept.finish) == (reply.text, reply.finish)
        cache.path(REQUEST).unlink()


@pytest.mark.parametrize(
    "half", [b"\\ud83d", b"\\uDE00", b"\\ude00\\ud83d", b"\xed\xa0\xbd", b"\xff", b"\\\\\\ud83d"]
)
def test_halves_of_characters_are_replaced(half):
    body = ANSWER.replace(b"caf\\u00e9", half)
    text = _parse(body, REQUEST, Redaction(KEY), Prices(0.0, 0.0)).text
    assert text is not None and "\ufffd" in text and "\U0001f600" in text and text.encode()


@given(st.text(st.characters(exclude_categories=()), max_size=12))
def test_only_halves_of_characters_change(text):
    read = strict_json.loads(_whole_characters(json.dumps(text).encode()), "reply")
    # What UTF-16 would make of it: pairs are characters, halves are replaced.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert re.sub("\ufffd+", "\ufffd", read) == re.sub("\ufffd+", "\ufffd", whole)
