"""Replies on disk: whole files, damaged ones are noticed, nothing foreign is believed."""

import json

import pytest

from ait_jax.endpoint.chat import ChatRequest, Reply
from ait_jax.endpoint.endpoint_cache import ReplyCache
from ait_jax.errors import UserError

MESSAGES = [{"role": "user", "content": "q"}]
REQUEST = ChatRequest("http://a/v1", {"model": "m", "messages": MESSAGES}, 5)
REPLY = Reply("an answer \U0001f600", cost=0.25, input_tokens=3, output_tokens=4, finish="stop")


@pytest.fixture
def cache(tmp_path):
    made = ReplyCache(tmp_path / "deep" / "cache")
    made.prepare()
    return made


def test_what_is_put_is_got_and_costs_nothing(cache):
    assert cache.get(REQUEST) is None
    cache.put(REQUEST, REPLY)
    got = cache.get(REQUEST)
    assert got == Reply("an answer \U0001f600", "", True, 0.0, 3, 4, "stop")
    kept = json.loads(cache.path(REQUEST).read_text())
    assert kept["request"]["body"]["messages"] == MESSAGES and kept["reply"]["cost"] == 0.25
    assert cache.path(REQUEST).name == f"{REQUEST.key}.json" and cache.damaged == []
    cache.put(REQUEST, Reply(None, "no text"))
    assert cache.get(REQUEST).error == "no text"


def damage_text(value):
    return b"\xff" + json.dumps(value).encode()


@pytest.mark.parametrize(
    "damage",
    [
        damage_text,
        lambda value: b"",
        lambda value: json.dumps(value).encode()[:-20],
        lambda value: json.dumps([value]).encode(),
        lambda value: json.dumps({**value, "request": {}}).encode(),
        lambda value: json.dumps({**value, "reply": {**value["reply"], "text": 5}}).encode(),
        lambda value: json.dumps({**value, "reply": {**value["reply"], "text": None}}).encode(),
        lambda value: json.dumps({**value, "reply": {**value["reply"], "cost": "x"}}).encode(),
        lambda value: json.dumps({**value, "reply": {"text": "only"}}).encode(),
    ],
)
def test_a_damaged_file_is_no_reply_and_is_noted(cache, damage):
    cache.put(REQUEST, REPLY)
    path = cache.path(REQUEST)
    path.write_bytes(damage(json.loads(path.read_bytes())))
    assert cache.get(REQUEST) is None
    assert cache.damaged == [str(path)]


def test_a_cache_of_another_version_or_place_is_refused(cache, tmp_path):
    ReplyCache(cache.directory).prepare()
    (cache.directory / "cache.json").write_text('{"version": 2}')
    with pytest.raises(UserError, match="cache of version 2"):
        cache.prepare()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        ReplyCache(tmp_path / "file").prepare()
