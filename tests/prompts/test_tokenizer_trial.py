"""Strangers' tokenizers: what would end this process ends another, and is one line."""

import base64
import json
import os

import pytest
from tiny_llama import needs_tokenizers, tokenizer_json, write_tokenizer

from ait_jax.errors import UserError
from ait_jax.prompts import tokenizer_trial
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary

pytestmark = needs_tokenizers


def charsmap(data):
    text = base64.b64encode(data).decode()
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}}


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
HOSTILE = {
    # The process aborts: memory of the size that the first bytes state.
    "abort": (charsmap(b"\xff" * 16), "the library ends with code -"),
    "panic": (charsmap(b"\x10\x00\x00\x00" + b"\xff" * 16), "index out of bounds"),
    "backtracking": (
        {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(a+)+$b|(a|aa)+c"}}}, "retry-limit"
    ),
    "regex": ({"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(("}}}, "tokenizers cannot read"),
    "id": (
        {"model": {"type": "BPE", "vocab": {"a": 2**32 - 1, "b": 1}, "merges": [["a", "b"]]}},
        "out of range",
    ),
    "no model": ({"model": {"type": "?"}}, "tokenizers cannot read"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_one_line(tmp_path, case, capfd):
    change, problem = HOSTILE[case]
    write_tokenizer(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem) as caught:
        TokenizersVocabulary(str(tmp_path)).encode("x")
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_one_that_never_returns_is_ended(monkeypatch):
    monkeypatch.setattr(tokenizer_trial, "_PROGRAM", "while True: pass")
    monkeypatch.setattr(tokenizer_trial, "_SECONDS", 1)
    with pytest.raises(UserError, match="x.json: .*takes more than 1 s on a short text"):
        tokenizer_trial.load(tokenizer_json() + " ", "x.json")


def test_a_trial_runs_nothing_of_the_working_folder_and_once(tmp_path, monkeypatch):
    (tmp_path / "tokenizers.py").write_text("open('ran', 'w')")
    (tmp_path / "json.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    text = tokenizer_json() + "  "
    tokenizer_trial.load(text, "x.json")
    assert not os.path.exists("ran")
    monkeypatch.setattr(tokenizer_trial, "_try", None)
    tokenizer_trial.load(text, "x.json")


def test_sizes_that_a_file_cuts_or_pads_to_are_not_used(tmp_path):
    write_tokenizer(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["padding"] = {
        "strategy": {"Fixed": 10**13}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    content["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    vocabulary = TokenizersVocabulary(str(tmp_path))
    assert len({tuple(vocabulary.encode("Definition: In this task")) for _ in range(9)}) == 1
