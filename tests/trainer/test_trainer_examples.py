"""Training examples: which instances, which reference, and how they are cut."""

import numpy as np
import pytest

from ait_jax.assets import mini_vocabulary
from ait_jax.pool import Example, Instance, Instruction, Task, TaskPool
from ait_jax.prompts.prompts import TkInstructEncoding, TkInstructMixture
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.trainer.examples import InstructionExamples

VOCABULARY = Vocabulary(mini_vocabulary())
BUCKETS = LengthBuckets(inputs=(32, 128), targets=(4, 8))
ENCODING = TkInstructEncoding(max_source_length=128)


def task(name, num_instances=30):
    return Task(
        name=name,
        instruction=Instruction(
            definition=f"Say the number of {name}.",
            positive_examples=(Example("one", "1", ""), Example("two", "2", "")),
            negative_examples=(),
        ),
        instances=tuple(
            Instance(f"{name}-{i}", f"number {i}", (f"{i}", f"it is {i}"))
            for i in range(num_instances)
        ),
    )


@pytest.fixture(scope="module")
def pool():
    return TaskPool([task("apples"), task("pears"), task("plums", num_instances=5)])


def examples(pool, tasks=("apples", "pears", "plums"), count=20, seed=1, **changes):
    arguments = {"vocabulary": VOCABULARY, "encoding": ENCODING, "buckets": BUCKETS}
    return InstructionExamples(
        pool, tasks, max_instances_per_task=count, seed=seed, **(arguments | changes)
    )


def texts(source):
    return [tuple(VOCABULARY.decode(tokens) for tokens in source[i]) for i in range(len(source))]


def test_prompt_and_reference(pool):
    source = examples(pool)
    assert len(source) == 20 + 20 + 5
    inputs, targets = source[0]
    assert inputs.dtype == targets.dtype == np.int32 and inputs[-1] == targets[-1] == 1
    for name, shown in zip(
        ["apples"] * 20 + ["pears"] * 20 + ["plums"] * 5, texts(source), strict=True
    ):
        prompt, answer = shown
        assert prompt.startswith(f"Definition: Say the number of {name}.")
        assert "Positive Example 2" in prompt and prompt.endswith("Output:")
        number = prompt.rpartition("number ")[2].split(".")[0]
        assert answer in (number, f"it is {number}")


def test_a_task_brings_the_same_examples_in_every_round(pool):
    first = texts(examples(pool, ["apples"]))
    assert texts(examples(pool, ["pears", "apples"]))[20:] == first
    assert texts(examples(pool, ["apples"], count=5)) == first[:5]
    assert len(set(first)) == 20
    other = texts(examples(pool, ["apples"], seed=2))
    assert {prompt for prompt, _ in other} != {prompt for prompt, _ in first}
    # Both references are used.
    assert {answer.startswith("it is") for _, answer in first} == {True, False}


def test_every_epoch_draws_its_references(pool):
    source, once = examples(pool, redraws=True), examples(pool)
    epochs = [
        [tuple(VOCABULARY.decode(tokens) for tokens in source[e * 45 + i]) for i in range(45)]
        for e in range(6)
    ]
    assert epochs[0] == texts(once)  # the first epoch is that of a training of one
    for epoch in epochs:
        assert [prompt for prompt, _ in epoch] == [prompt for prompt, _ in epochs[0]]
    answers = np.array([[answer.startswith("it is") for _, answer in epoch] for epoch in epochs])
    assert 0.35 < answers.mean() < 0.65
    assert (answers.any(axis=0) & ~answers.all(axis=0)).mean() > 0.8  # 31/32 is expected
    assert source.references(45 * 3 + 2) == source.references(2) == once.references(2)
    again = examples(pool, redraws=True)
    np.testing.assert_array_equal(again[45 * 5 + 7][1], source[45 * 5 + 7][1])


def test_the_mixture_draws_one_of_five_forms_for_every_instance(pool):
    mixture = TkInstructMixture(max_source_length=128)
    source = examples(pool, ["apples", "pears"], encoding=mixture)
    prompts = [prompt for prompt, _ in texts(source)]
    forms = [
        (p.startswith("Definition:"), p.count("Positive Example"), p.count("Explanation:"))
        for p in prompts
    ]
    # No task here has negative examples, so two forms look alike.
    assert set(forms) == {(True, 0, 0), (False, 2, 0), (True, 2, 0), (True, 2, 2)}
    assert texts(examples(pool, ["pears", "apples"], encoding=mixture))[20:] == texts(source)[:20]
    later = examples(pool, ["apples", "pears"], encoding=mixture, redraws=True)
    assert texts(later) == texts(source)
    assert [VOCABULARY.decode(later[40 + i][0]) for i in range(40)] != prompts


def test_access_in_any_order_and_again(pool):
    source, again = examples(pool), examples(pool)
    for index in (7, 3, 7, 44):
        np.testing.assert_array_equal(source[index][0], again[index][0])
        np.testing.assert_array_equal(source[index][1], again[index][1])


def test_long_prompts_and_answers_are_cut_to_the_buckets(pool):
    short = TkInstructEncoding(max_source_length=16)
    source = examples(pool, encoding=short, buckets=LengthBuckets(inputs=(16,), targets=(2,)))
    for index in range(len(source)):
        inputs, targets = source[index]
        assert len(inputs) <= 16 and len(targets) <= 2 and inputs[-1] == targets[-1] == 1
    batch = source.collate([source[i] for i in range(4)])
    assert batch["inputs"].shape == (4, 16) and batch["targets"].shape == (4, 2)


def test_collate_pads_to_buckets(pool):
    source = examples(pool)
    batch = source.collate([source[0], source[1]])
    assert batch["inputs"].shape == (2, 128) and batch["targets"].shape[1] in (4, 8)
    np.testing.assert_array_equal(batch["inputs"][0][batch["inputs"][0] > 0], source[0][0])
