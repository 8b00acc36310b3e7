"""What a run says of its references: other scripts, characters that the vocabulary lacks."""

import types

import pytest

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.pool import Instance, Instruction, Task, TaskPool
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.rounds import references
from ait_jax.runtime import reporter


def pool_of(**texts):
    return TaskPool(
        [
            Task(
                name,
                Instruction("x"),
                tuple(Instance(str(i), "x", (t,)) for i, t in enumerate(each)),
            )
            for name, each in texts.items()
        ]
    )


POOL = pool_of(en=["yes", "no {a}"], json=["{}", "{", "a"], hi=["पानी", "जल"])


def run_of(choice="auto", stages=None):
    directory = types.SimpleNamespace(state={"stages": stages or {}}, path="runs/a")
    experiment = types.SimpleNamespace(rouge_tokenizer=choice)
    return types.SimpleNamespace(directory=directory, experiment=experiment, pool=POOL)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(reporter, "say", lines.append)
    return lines


def test_measured_tasks_settle_the_rouge(said):
    assert references.settled(run_of(), ["en", "json"]) == {"rouge_tokenizer": "english"}
    assert references.settled(run_of(), ["en", "hi"]) == {"rouge_tokenizer": "unicode"}
    assert references.settled(run_of("english"), ["hi"]) == {"rouge_tokenizer": "english"}
    begun = run_of(stages={"round_000/splits": {"rouge_tokenizer": "unicode"}})
    assert references.rouge_of(begun).scores("जल", ["जल"])["rougeL"] == 1.0
    references.say_rouge(begun, ["en", "hi"])
    assert len(said) == 1 and "1 of 2 tasks have references in other scripts, such as hi" in said[0]
    references.say_rouge(run_of(), ["en"])
    assert len(said) == 1


def test_runs_of_earlier_versions_are_english():
    assert references.rouge_of(run_of(stages={"round_000/splits": {}})).name == "english"
    begun = run_of("unicode", {"round_000/splits": {"rouge_tokenizer": "english"}})
    with pytest.raises(UserError, match="is unicode, but runs/a began with english"):
        references.rouge_of(begun)


def test_lacking_characters_are_counted(said):
    class Small(Vocabulary):
        def lacks(self, text):
            return not set(text) <= set("abcdefghijklmnopqrstuvwxyz ")

    references.say_lacking(POOL, Small("x"), ["en", "json"])
    assert said == [
        "3 of 5 references hold characters that the vocabulary lacks, such as 2 of json: no answer "
        "can have them, and training reads them as unknown"
    ]
    references.say_lacking(POOL, Small("x"), [])
    # One that falls back to bytes lacks nothing.
    references.say_lacking(POOL, Vocabulary(assets.mini_vocabulary()), POOL)
    assert len(said) == 1


def test_large_pools_are_sampled():
    pool = pool_of(a=["x"] * 300, b=["y"])
    counts = {name: len(texts) for name, texts in references.sampled(pool, pool).items()}
    assert counts == {"a": 100, "b": 1}
