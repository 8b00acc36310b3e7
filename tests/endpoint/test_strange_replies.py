"""Whatever bytes an endpoint answers with: a reply whose text files can hold, or one failure.

`pytest -n0 --hypothesis-profile=long tests/endpoint/test_strange_replies.py` tries 10,000.
"""

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from ait_jax.endpoint.chat import ChatRequest, Prices
from ait_jax.endpoint.endpoint_call import Redaction, Transient, _parse, _whole_characters
from ait_jax.errors import UserError
from ait_jax.runtime import strict_json

REQUEST = ChatRequest("http://a/v1", {"model": "m", "messages": [{"content": "q"}]}, 9)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def replies(draw) -> bytes:
    """A chat completion with strange values, as JSON; then some bytes are cut or changed."""
    message = {"role": "assistant", "content": draw(TEXTS | JSON)}
    value = {
        "choices": [
            {"message": draw(st.just(message) | JSON), "finish_reason": draw(TEXTS | JSON)}
        ],
        "usage": draw(JSON | st.fixed_dictionaries({"prompt_tokens": JSON})),
    }
    data = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 5)) :]
    return data


@given(replies() | st.binary(max_size=60))
def test_a_reply_or_one_failure(body):
    try:
        reply = _parse(body, REQUEST, Redaction("sk-0123456789"), Prices(1.0, 1.0))
    except Transient as error:
        assert str(error).isprintable() and len(str(error)) <= 200
        return
    for text in (reply.text or "", reply.error, reply.finish):
        text.encode()
    assert reply.cost >= 0 and (reply.text is None) == bool(reply.error)


@given(TEXTS)
def test_only_halves_of_characters_change(text):
    body = json.dumps(text).encode()  # halves as escapes
    read = strict_json.loads(_whole_characters(body), "reply")
    # What UTF-16 would make of it: pairs are characters, halves are replaced.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert re.sub("\ufffd+", "\ufffd", read) == re.sub("\ufffd+", "\ufffd", whole)


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_become_text(body):
    _whole_characters(body).encode()
    try:
        strict_json.loads(_whole_characters(body), "reply")
    except UserError as error:
        assert "\n" not in str(error)
