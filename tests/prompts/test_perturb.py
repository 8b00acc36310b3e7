from dataclasses import replace

import pytest

from ait_jax.errors import UserError
from ait_jax.pool import Example, Instance, Instruction, Task, TaskPool
from ait_jax.prompts.perturb import (
    ExampleResampling,
    MCDropout,
    WordDrop,
    WordDropMix,
    WordMask,
    changes_original,
    for_task,
    kept_words,
    perturbed_instruction,
)
from ait_jax.randomness import Key, uniform


def make_task(name="task1_a", words=12, positives=3, instances=30):
    return Task(
        name,
        Instruction(
            "  " + " ".join(f"d{i}" for i in range(words)) + "\n ending. ",
            tuple(Example(f"e{i} " * 8, f"out {i} here", f"why {i} so") for i in range(positives)),
            (Example("negative input words", "negative output"),),
        ),
        tuple(
            Instance(f"{name}-{i}", f"input {i}", (f"gold {i}", "other")) for i in range(instances)
        ),
    )


TASK = make_task()


def draw(perturbation, k=10, task=TASK, seed=42, round_index=0, used_instances=()):
    draws = (Key(seed, round_index), used_instances)
    return tuple(perturbed_instruction(task, perturbation, j, *draws) for j in range(k + 1))


def dropped_by_hand(text, rate, *key):
    words = text.split()
    return " ".join(words[i] for i in range(len(words)) if uniform(*key, i) > rate)


def test_the_original_comes_first_and_untouched():
    for perturbation in (WordDrop(), WordMask(), WordDropMix(1), WordDropMix(2)):
        instructions = draw(perturbation, k=3)
        assert len(instructions) == 4
        assert instructions[0] is TASK.instruction
        assert TASK.instruction not in instructions[1:]
    assert draw(WordDrop(), k=0) == (TASK.instruction,)


def test_word_drop_by_hand():
    instructions = draw(WordDrop(rate=0.4), k=5, round_index=3)
    for j in range(1, 6):
        key = (42, "perturb", 3, "task1_a", j)
        examples = TASK.instruction.positive_examples
        assert instructions[j] == replace(
            TASK.instruction,
            definition=dropped_by_hand(TASK.instruction.definition, 0.4, *key, "definition"),
            positive_examples=(
                replace(
                    examples[0],
                    input=dropped_by_hand(examples[0].input, 0.4, *key, "example 0 input"),
                ),
                replace(
                    examples[1],
                    input=dropped_by_hand(examples[1].input, 0.4, *key, "example 1 input"),
                ),
                examples[2],
            ),
        )


def test_word_drop_golden():
    """Pins the draws: scores of an interrupted run must continue under a later version."""
    task = replace(
        TASK, instruction=Instruction("Say yes if the text is kind and no if it is not.")
    )
    assert (
        draw(WordDrop(), k=1, task=task)[1].definition == "Say yes the text is and no if it is not."
    )


@pytest.mark.parametrize("make", [WordDrop, WordMask])
def test_parts(make):
    original = TASK.instruction
    for j in range(1, 6):
        td, te, both = (draw(make(0.5, parts), k=5)[j] for parts in ("TD", "EXAMPLES", "TDTE"))
        assert td.positive_examples == original.positive_examples
        assert te.definition == original.definition
        assert td.definition == both.definition != original.definition
        assert te.positive_examples == both.positive_examples
        for i, example in enumerate(both.positive_examples):
            changed = example.input != original.positive_examples[i].input
            assert changed == (i < 2)
            assert (example.output, example.explanation) == (f"out {i} here", f"why {i} so")
        assert both.negative_examples == original.negative_examples


def test_the_rate_is_the_rate_and_parts_are_independent():
    task = make_task(words=500, positives=1)
    kept_definition = kept_example = 0
    for instruction in draw(WordDrop(0.2), k=100, task=task)[1:]:
        kept_definition += len(instruction.definition.split())
        kept_example += len(instruction.positive_examples[0].input.split())
    # 50,100 words: standard deviation 90; 800 words: 11.3
    assert abs(kept_definition - 0.8 * 50100) < 4 * 90
    assert abs(kept_example - 0.8 * 800) < 4 * 11.3


def test_draws_differ_by_j_seed_round_and_task():
    definitions = {
        draw(
            WordDrop(0.5), k=2, seed=seed, round_index=round_index, task=make_task(name, words=60)
        )[j].definition
        for seed in (1, 2)
        for round_index in (0, 1)
        for name in ("a", "b")
        for j in (1, 2)
    }
    assert len(definitions) == 16


@pytest.mark.parametrize("perturbation", [WordDrop(), WordMask(), ExampleResampling()])
def test_draws_do_not_depend_on_what_was_drawn_before(perturbation):
    tasks = [make_task(name) for name in "abc"]
    forwards = {t.name: draw(perturbation, k=4, task=t) for t in tasks}
    backwards = {t.name: draw(perturbation, k=4, task=t) for t in reversed(tasks)}
    assert forwards == backwards
    assert draw(perturbation, k=9, task=tasks[0])[:5] == forwards["a"]


def test_everything_dropped_is_the_empty_text():
    task = replace(TASK, instruction=Instruction("one two", (Example("three", "o"),)))
    instructions = draw(WordDrop(0.999999), k=3, task=task)
    assert instructions[1] == Instruction("", (Example("", "o"),))


def test_no_words_and_no_examples():
    task = replace(TASK, instruction=Instruction(" "))
    assert draw(WordDrop(), k=1, task=task)[1] == Instruction("")
    assert draw(WordMask(), k=1, task=task)[1] == Instruction("")


def test_rate_zero_keeps_the_words():
    assert draw(WordDrop(0), k=1)[1].definition.split() == TASK.instruction.definition.split()


def test_word_mask_replaces_what_word_drop_drops():
    for dropped, masked in zip(draw(WordDrop(0.4))[1:], draw(WordMask(0.4))[1:], strict=True):
        texts = [(dropped.definition, masked.definition, TASK.instruction.definition)]
        for i in range(2):
            examples = (dropped, masked, TASK.instruction)
            texts.append(tuple(instruction.positive_examples[i].input for instruction in examples))
        for drop_text, mask_text, original in texts:
            words = mask_text.split(" ")
            assert len(words) == len(original.split())
            sentinels = [word for word in words if word.startswith("<extra_id_")]
            assert sentinels == [f"<extra_id_{i}>" for i in range(len(sentinels))]
            assert " ".join(word for word in words if word not in sentinels) == drop_text


def test_word_mask_has_a_hundred_sentinels():
    masked = draw(WordMask(0.999), k=1, task=make_task(words=120))[1].definition
    assert (
        masked.count("<extra_id_0>") == 2
        and "<extra_id_100>" not in masked
        and "<extra_id_99>" in masked
    )


def test_example_resampling_draws_from_positives_and_twenty_unused_instances():
    used = {f"task1_a-{i}" for i in range(5)}
    seen = set()
    firsts = []
    for instruction in draw(ExampleResampling(), k=400, used_instances=used)[1:]:
        assert replace(instruction, positive_examples=()) == replace(
            TASK.instruction, positive_examples=()
        )
        assert len(set(instruction.positive_examples)) == 2
        seen.update(instruction.positive_examples)
        firsts.append(instruction.positive_examples[0])
    instances = seen - set(TASK.instruction.positive_examples)
    assert len(seen) == 23 and len(instances) == 20
    unused = {Example(f"input {i}", f"gold {i}") for i in range(5, 30)}
    assert instances < unused
    # each candidate comes first in 400 / 23 = 17.4 of the draws, standard deviation 4.1
    assert all(abs(firsts.count(example) - 17.4) < 4.5 * 4.1 for example in seen)


def test_example_resampling_with_few_candidates():
    task = make_task(positives=0, instances=3)
    assert {len(i.positive_examples) for i in draw(ExampleResampling(), task=task)[1:]} == {2}
    ids = [i.id for i in task.instances]
    one = draw(ExampleResampling(), task=task, used_instances=ids[:2])[1]
    assert one.positive_examples == (Example("input 2", "gold 2"),)
    assert draw(ExampleResampling(), task=task, used_instances=ids)[1].positive_examples == ()
    own = draw(ExampleResampling(max_unused_instances=0), k=30)[1:]
    assert {e for i in own for e in i.positive_examples} == set(TASK.instruction.positive_examples)


@pytest.mark.parametrize("make", [WordDrop, WordMask])
def test_bad_options(make):
    for rate in (1, -0.1, float("nan"), "0.2", True, None):
        with pytest.raises(UserError, match=rf"{make.__name__}.rate is {rate!r}"):
            make(rate=rate)
    with pytest.raises(UserError, match=f"{make.__name__}.parts is 'TDT'.*Did you mean 'TDTE'"):
        make(parts="TDT")
    with pytest.raises(UserError, match="parts is None"):
        make(parts=None)


def test_other_bad_options():
    with pytest.raises(UserError, match="ExampleResampling.num_examples is 0"):
        ExampleResampling(num_examples=0)
    with pytest.raises(UserError, match="ExampleResampling.max_unused_instances is -1"):
        ExampleResampling(max_unused_instances=-1)


def test_dropping_from_the_definition_alone_gives_the_same_definitions():
    task = Task("t", Instruction("one two three four five six", (Example("a b c d e f", "x"),)), ())
    both, alone = (draw(WordDrop(parts=parts), 5, task) for parts in ("TDTE", "TD"))
    assert [i.definition for i in both] == [i.definition for i in alone]
    assert {i.positive_examples for i in alone} == {task.instruction.positive_examples}
    assert WordDrop(parts="EXAMPLES").needs_examples and not WordDrop(parts="TD").needs_examples


def test_the_authors_te_resamples_under_prompt_0_too():
    used = [f"{TASK.name}-{i}" for i in range(5)]
    draws = draw(ExampleResampling(), k=200, used_instances=used)
    own = set(TASK.instruction.positive_examples)
    firsts = {i.positive_examples for i in draws}
    assert changes_original(ExampleResampling()) and draws[0] != TASK.instruction
    assert all(i.definition == TASK.instruction.definition for i in draws)
    assert all(len(i.positive_examples) == 2 for i in draws) and len(firsts) > 100
    # 3 positive examples and 20 unused instances: an example is one of the former 3 times in 23.
    share = sum(len(own.intersection(i.positive_examples)) for i in draws) / (2 * len(draws))
    assert share == pytest.approx(3 / 23, abs=0.05)
    with pytest.raises(UserError, match=r"'TE', the authors' .*example_resampling.gin.*'EXAMPLES'"):
        WordDrop(parts="TE")


def test_the_authors_mixed_drop_rates():
    task = make_task(words=4000, positives=2)
    definition = task.instruction.definition

    def rates(mix, forms, which=lambda i: i.definition):
        drop = WordDropMix(mix)
        whole = len(which(task.instruction).split())
        drawn = [perturbed_instruction(task, drop, j, Key(0, 0)) for j in forms]
        return [1 - len(which(i).split()) / whole for i in drawn]

    assert rates(1, (1, 10, 11, 20, 21, 85)) == pytest.approx(
        [0.1, 0.1, 0.2, 0.2, 0.3, 0.9], abs=0.025
    )
    assert rates(2, (1, 11, 50)) == pytest.approx([0.1] * 3, abs=0.025)
    pool = TaskPool([task], {task.name: True})
    of_cls, of_gen = (
        for_task(WordDropMix(3), TaskPool([task], {task.name: c}), task.name) for c in (True, False)
    )
    assert (of_cls, of_gen) == (WordDrop(0.2, "TD"), WordDrop(0.2, "TDTE"))
    assert for_task(WordDropMix(1), pool, task.name) == WordDropMix(1)
    assert for_task(WordDrop(), pool, task.name) == WordDrop()
    # The second rule alone: as WordDrop(0.1), word for word.
    assert draw(WordDropMix(2)) == draw(WordDrop(0.1))
    assert draw(WordDropMix(3, "TD")) == draw(WordDrop(0.2, "TD"))
    kept = kept_words(task, WordDropMix(1), 15, Key(0, 0))
    shown = perturbed_instruction(task, WordDropMix(1), 15, Key(0, 0)).definition.split()
    words = zip(definition.split(), kept, strict=True)
    assert [word for word, keeps in words if keeps] == shown
    for rate in (1, 2, 3.0):
        with pytest.raises(UserError, match=f"word_drop_mix.gin --gin.DROP_RATE_MIX={rate:.0f}"):
            WordDrop(rate)
    with pytest.raises(UserError, match=r"mix is 4 \(DROP_RATE_MIX\); give 1, 2 or 3"):
        WordDropMix(4)


def test_mc_dropout_changes_no_word():
    assert draw(MCDropout(), k=2) == (TASK.instruction,) * 3
    for rate in (0, 1.0, "0.1", True):
        with pytest.raises(UserError, match="MCDropout.dropout_rate is .*0 < rate < 1"):
            MCDropout(rate)
