"""The order of tokens: 0 pads and 1 ends, every other id keeps its place, and back."""

import pytest

from ait_jax.errors import UserError
from ait_jax.prompts.token_order import TokenOrder, order_of

IDS = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<pad>": 9}


def order(ids=IDS, chat_template="", **roles):
    return order_of(ids, {"eos": 2} | roles, chat_template, "x")


@pytest.mark.parametrize(
    ("pad", "eos"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 1), (1, 7), (7, 0), (7, 1), (5, 6)]
)
def test_an_exact_exchange(pad, eos):
    order = TokenOrder(pad, eos)
    own = order.to_own(range(10))
    assert own[:2] == [pad, eos] and sorted(own) == list(range(10))
    assert order.from_own(own) == list(range(10))
    untouched = set(range(10)) - {0, 1, pad, eos}
    assert all(own[token] == token for token in untouched)


def test_padding_is_what_never_occurs():
    assert order(pad=9) == TokenOrder(9, 2)
    # Padding with the end itself, as many files say, leaves the unknown or a spare token.
    assert order(pad=2, unk=0) == TokenOrder(0, 2)
    assert order(pad=2) == TokenOrder(9, 2)
    # A token that text may hold is none.
    assert order(pad=5, unk=0) == TokenOrder(0, 2)


def test_the_end_of_a_turn_ends():
    llama = {"<|begin_of_text|>": 8, "<|end_of_text|>": 9, "<|reserved_special_token_0|>": 10}
    llama |= {"<|eot_id|>": 12}
    assert order(llama, eos=9) == TokenOrder(10, 9)
    assert order(llama, eos=9, chat_template="... <|eot_id|>") == TokenOrder(10, 12)


def test_refused():
    with pytest.raises(UserError, match="names no end-of-sequence"):
        order(eos=None)
    with pytest.raises(UserError, match="might occur in text"):
        order(eos=5)
    with pytest.raises(UserError, match="has no padding token"):
        order({"</s>": 2})
    with pytest.raises(UserError, match="must be two different ids"):
        TokenOrder(2, 2)


def test_a_spare_token_pads_where_one_token_is_all_others():
    base = {
        "<|endoftext|>": 0,
        "<|im_start|>": 1,
        "<|im_end|>": 2,
        "<repo_name>": 3,
        "<jupyter>": 4,
    }
    roles = dict.fromkeys(("bos", "eos", "pad", "unk"), 0)
    assert order(base, **roles) == TokenOrder(4, 0)
    # Not one that a conversation has.
    assert order(base, **roles, chat_template="{{ '<jupyter>' }}") == TokenOrder(3, 0)
    with pytest.raises(UserError, match="has no padding token, and none to spare: its 3 special"):
        order({name: base[name] for name in list(base)[:3]}, **roles)
