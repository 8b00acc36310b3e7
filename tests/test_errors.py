"""Messages: the nearest name, also among very many, and what was given on one line."""

import time

from ait_jax.errors import UserError, first_line, nearest, shown, shown_path


def test_the_nearest_name():
    assert nearest("strategy", ["strategies", "rounds"]) == " Did you mean 'strategies'?"
    assert nearest("x", ["strategies"]) == nearest("x", []) == ""


def test_among_50_000_names_it_is_found_at_once():
    names = [f"rewrite_the_sentence_number_{i * 7919 % 50_000:05d}" for i in range(50_000)]
    start = time.perf_counter()
    assert (
        nearest("rewrite_the_sentence_number_01234x", names)
        == " Did you mean 'rewrite_the_sentence_number_01234'?"
    )
    assert time.perf_counter() - start < 5


def test_what_was_given_is_one_line():
    assert shown("a'b") == '"a\'b"' and shown("задача") == "'задача'"
    assert shown("a\nb\x1b[31m\u202e\ud800") == r"'a\nb\x1b[31m\u202e\ud800'"
    assert len(shown("x" * 1000)) == 200 and shown("x" * 1000).endswith("x...")
    assert len(shown("\x00" * 190)) == 200
    assert shown({"a": [1, None]}) == "{'a': [1, None]}" and shown(2.5) == "2.5"
    assert len(shown({"a": "x" * 10**6, "b": [["y" * 500] * 500] * 500})) <= 200
    assert shown(10**5000) == "an integer of thousands of digits"


def test_a_path_is_one_line():
    assert shown_path("a/b c.json") == "a/b c.json"
    assert shown_path("a\nb\udce9") == r"a\nb\udce9"
    long = "/start/" + "x" * 500 + "/end.json"
    assert len(shown_path(long)) <= 200
    assert shown_path(long).startswith("/start/x") and shown_path(long).endswith("x/end.json")


def test_a_message_is_one_line_that_ends():
    message = str(UserError("a\nait-jax: forged \x1b[2J" + "x " * 10_000))
    assert message.startswith(r"a\nait-jax: forged \x1b[2Jx x") and len(message) == 4000
    message = str(UserError("/start/" + "x" * 10_000 + "/end.json: damaged."))
    assert message.startswith("/start/x") and message.endswith("x/end.json: damaged.")
    assert len(message) == 209
    assert first_line(ValueError("a\x1b\nb")) == r"a\x1b" and first_line(OSError()) == "OSError"
