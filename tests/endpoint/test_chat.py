"""Requests are hashed whole, conversations checked, prices finite."""

import math

import pytest

from ait_jax.endpoint.chat import ChatRequest, Prices, check_conversation
from ait_jax.errors import UserError


def request(url="http://a/v1", **body):
    messages = [{"role": "user", "content": "é" * 10}]
    return ChatRequest(url, {"model": "m", "messages": messages, **body}, 5)


def test_the_key_depends_on_all_of_the_request_and_on_nothing_else():
    base = request(temperature=0.0)
    keys = {
        base.key,
        request("http://b/v1", temperature=0.0).key,
        request(temperature=1.0).key,
        request(temperature=0.0, max_tokens=7).key,
        request(temperature=0.0, messages=[{"role": "system", "content": "é" * 10}]).key,
        request(temperature=0.0, model="n").key,
    }
    assert len(keys) == 6
    turned = dict(reversed(base.body.items()))
    assert ChatRequest(base.base_url, turned, 5).key == base.key


def test_the_bound_of_input_tokens_is_above_the_bytes():
    assert request().most_input_tokens() >= 20


def test_costs():
    assert Prices(2.0, 8.0).cost(1_000_000, 500_000) == pytest.approx(6.0)
    for price in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="output_per_million"):
            Prices(1.0, price)


def test_conversations_are_checked():
    made = check_conversation([{"role": "user", "content": "half \ud83d"}], 0)
    assert made == [{"role": "user", "content": "half ?"}]
    bad = ([], [{"role": "user"}], [{"role": "user", "content": None}],
           [{"role": "user", "content": "a", "name": "b"}])  # fmt: skip
    for conversation in bad:
        with pytest.raises(ValueError, match="conversation 3"):
            check_conversation(conversation, 3)
