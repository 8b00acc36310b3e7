import collections
import string

import pytest
from shared_data import NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool import Example, Instruction, read_task
from ait_jax.prompts.prompts import (
    AlpacaEncoding,
    Prompt,
    SelfInstructMixture,
    TkInstructEncoding,
    TkInstructMixture,
)


def count(text):
    """Whitespace tokens and an end of sequence."""
    return len(text.split()) + 1


def truncate(text, n):
    return " ".join(text.split()[:n])


def encode(instruction, input, task_name="", **options):
    return TkInstructEncoding(**options).encode(instruction, input, count, truncate, task_name)


INSTRUCTION = Instruction(
    " Say whether it is good. ",
    (
        Example("I like it", "yes", "because"),
        Example("Bad!", "no.", "clear;"),
        Example("So so", "maybe"),
    ),
    (Example("Fine", "perhaps", "not an answer"), Example("Hm", "")),
)


def test_the_papers_form_to_the_character():
    prompt = encode(INSTRUCTION, "  Great stuff\n")
    assert prompt.text == (
        "Definition: Say whether it is good.\n\n"
        " Positive Example 1 -\nInput: I like it.\n Output: yes.\n\n"
        " Positive Example 2 -\nInput: Bad!\n Output: no.\n\n"
        "Now complete the following example -\nInput: Great stuff.\nOutput: "
    )
    assert prompt == Prompt(
        text=prompt.text, positive_examples=2, tokens=count(prompt.text), tokens_cut=0
    )


def test_everything_switched_on():
    prompt = encode(
        INSTRUCTION,
        "x?",
        task_name="task1_a",
        add_task_name=True,
        add_explanation=True,
        num_positive_examples=1,
        num_negative_examples=2,
    )
    assert prompt.text == (
        "task1_a. Definition: Say whether it is good.\n\n"
        " Positive Example 1 -\nInput: I like it.\n Output: yes.\n Explanation: because.\n\n"
        " Negative Example 1 -\nInput: Fine.\n Output: perhaps.\n Explanation: not an answer.\n\n"
        " Negative Example 2 -\nInput: Hm.\n Output: .\n Explanation: .\n\n"
        "Now complete the following example -\nInput: x?\nOutput: "
    )
    assert (prompt.positive_examples, prompt.negative_examples) == (1, 2)


def test_nothing_but_the_input():
    prompt = encode(INSTRUCTION, "x", add_task_definition=False, num_positive_examples=0)
    assert prompt.text == "Now complete the following example -\nInput: x.\nOutput: "


def test_empty_texts_get_their_full_stop():
    prompt = encode(Instruction(" \n", (Example("", ""),)), "")
    assert prompt.text == (
        "Definition: .\n\n Positive Example 1 -\nInput: .\n Output: .\n\n"
        "Now complete the following example -\nInput: .\nOutput: "
    )
    assert prompt.positive_examples == 1 and prompt.examples_left_out == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a)", "a)"),
        ("a。", "a。."),
        ("a…", "a…."),
        ("a~", "a~"),
        ("a —", "a —."),
        ("é", "é."),
        ("a\u00a0", "a."),
    ],
)
def test_only_ascii_punctuation_ends_a_text(text, expected):
    assert encode(Instruction("d"), text).text.endswith(f"\nInput: {expected}\nOutput: ")


def test_an_example_that_does_not_fit_ends_the_examples():
    definition = "Definition: d.\n\n"
    first = " Positive Example 1 -\nInput: a a a.\n Output: b.\n\n"
    second = " Positive Example 2 -\nInput: " + "long " * 9 + "long.\n Output: b.\n\n"
    task_input = "Now complete the following example -\nInput: x.\nOutput: "
    examples = (Example("a a a", "b"), Example("long " * 10, "b"), Example("c", "b"))
    instruction = Instruction("d", examples)
    both = count(definition + first + second + task_input)
    for limit, shown in [(both, 2), (both - 1, 1), (count(definition + first + task_input), 1)]:
        prompt = encode(instruction, "x", max_source_length=limit)
        assert prompt.text == definition + "".join([first, second][:shown]) + task_input
        assert (prompt.positive_examples, prompt.examples_left_out) == (shown, 2 - shown)
    # the third is short and would fit, but is not tried after the second failed
    prompt = encode(instruction, "x", max_source_length=both - 1, num_positive_examples=3)
    assert (prompt.positive_examples, prompt.examples_left_out) == (1, 2)


def test_the_length_test_joins_examples_by_spaces_and_ignores_the_name():
    """With characters as tokens the one space between two examples decides."""

    def encode_chars(limit, **options):
        encoding = TkInstructEncoding(max_source_length=limit, **options)
        return encoding.encode(instruction, "x", len, lambda text, n: text[:n], "a name")

    instruction = Instruction("d", tuple(Example("i", "o") for _ in range(3)))
    three = encode_chars(10**6, num_positive_examples=3)
    assert three.positive_examples == 3 and three.tokens == len(three.text)
    # examples 1 and 2 are joined by one space when the third is tested
    assert encode_chars(three.tokens + 1, num_positive_examples=3).positive_examples == 3
    assert encode_chars(three.tokens, num_positive_examples=3).positive_examples == 2
    named = encode_chars(three.tokens + 1, num_positive_examples=3, add_task_name=True)
    assert named.positive_examples == 3 and named.tokens_cut == len("a name. ") - 1


def test_negative_examples_are_tried_after_positive_ones_failed():
    instruction = Instruction("d", (Example("p " * 50, "o"),), (Example("n", "o"),))
    prompt = encode(instruction, "x", num_negative_examples=1, max_source_length=30)
    assert (prompt.positive_examples, prompt.negative_examples, prompt.examples_left_out) == (
        0,
        1,
        1,
    )


def test_what_is_too_long_loses_its_end_and_says_how_much():
    prompt = encode(INSTRUCTION, "w " * 100, max_source_length=50)
    whole = encode(INSTRUCTION, "w " * 100, num_positive_examples=0)
    assert prompt.text == " ".join(whole.text.split()[:50])
    assert prompt.tokens_cut == whole.tokens - 50 > 0
    assert prompt.tokens == 51  # 50 pieces and the end of sequence, see Prompt.tokens
    assert (prompt.positive_examples, prompt.examples_left_out) == (0, 2)
    exact = encode(INSTRUCTION, "w " * 100, max_source_length=whole.tokens)
    assert exact.tokens_cut == 0 and exact.text == whole.text


def test_fewer_examples_than_asked_for_are_not_left_out():
    prompt = encode(Instruction("d", (Example("i", "o"),)), "x")
    assert (prompt.positive_examples, prompt.examples_left_out) == (1, 0)


@pytest.mark.parametrize(
    "name", ["num_positive_examples", "num_negative_examples", "max_source_length"]
)
@pytest.mark.parametrize("value", [-1, 1.5, "2", True])
def test_bad_options_name_themselves(name, value):
    with pytest.raises(UserError, match=f"TkInstructEncoding.{name} is"):
        TkInstructEncoding(**{name: value})


def reference(data, instance_input, name, positives, negatives, explain, limit):
    """The encoding written again from the facts, on the raw JSON, step by step."""

    def stop(text):
        return "" if text and text[-1] in string.punctuation else "."

    x = instance_input.strip()
    tail = "Now complete the following example -\nInput: " + x + stop(x) + "\nOutput: "
    d = data["Definition"][0].strip()
    head = "Definition: " + d + stop(d) + "\n\n"
    kept = {"Positive": [], "Negative": []}
    for kind, number in (("Positive", positives), ("Negative", negatives)):
        for i in range(min(number, len(data[f"{kind} Examples"]))):
            e = {k: v.strip() for k, v in data[f"{kind} Examples"][i].items()}
            block = f" {kind} Example {i + 1} -\nInput: " + e["input"] + stop(e["input"]) + "\n"
            block += " Output: " + e["output"] + stop(e["output"]) + "\n"
            if explain:
                block += " Explanation: " + e["explanation"] + stop(e["explanation"]) + "\n"
            block += "\n"
            candidate = (
                head + " ".join(kept["Positive"]) + " ".join(kept["Negative"]) + block + tail
            )
            if len(candidate.split()) + 1 > limit:
                break
            kept[kind].append(block)
    whole = (
        (name + ". " if name else "") + head + "".join(kept["Positive"] + kept["Negative"]) + tail
    )
    if len(whole.split()) + 1 > limit:
        whole = " ".join(whole.split()[:limit])
    return whole


@needs_shared
@pytest.mark.parametrize(
    "positives, negatives, explain, named, limit",
    [
        (2, 0, False, False, 1024),
        (2, 2, True, True, 1024),
        (3, 1, False, True, 150),
        (2, 0, False, False, 60),
    ],
)
def test_real_tasks_against_a_second_encoder(positives, negatives, explain, named, limit):
    import json

    shown = set()
    for path in sorted((NIV2 / "tasks").glob("*.json"))[::4]:
        data = json.loads(path.read_text())
        read = read_task(path)
        for instance, raw in list(zip(read.instances, data["Instances"], strict=True))[:5]:
            prompt = encode(
                read.instruction,
                instance.input,
                task_name=read.name,
                num_positive_examples=positives,
                num_negative_examples=negatives,
                add_explanation=explain,
                add_task_name=named,
                max_source_length=limit,
            )
            name = read.name if named else ""
            assert prompt.text == reference(
                data, raw["input"], name, positives, negatives, explain, limit
            )
            shown.add((prompt.positive_examples, prompt.tokens_cut > 0))
    # the limits are such that the interesting cases occur
    assert (2, False) in shown if limit > 100 else {(0, True), (0, False)} <= shown


def alpaca(instruction, input, limit=1000):
    """Alpaca's prompt of one input, with words for tokens."""
    text = Instruction(instruction)
    return AlpacaEncoding(limit).encode(
        text, input, lambda t: len(t.split()) + 1, lambda t, n: " ".join(t.split()[:n])
    )


def test_alpacas_template_with_and_without_an_input():
    with_input = (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd up.\n\n### Input:\n1 and {instruction}\n\n### Response:"
    )
    without = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{input} Add up.\n\n### Response:"
    )
    shown = alpaca("Add up.", "1 and {instruction}")
    assert shown == Prompt(text=with_input, tokens=len(with_input.split()) + 1, tokens_cut=0)
    assert alpaca("{input} Add up.", "").text == without == alpaca("{input} Add up.", " \n").text


def test_alpacas_prompt_is_cut_at_its_end_and_the_cut_is_counted():
    whole = alpaca("Add up these numbers.", "1 and 2")
    cut = alpaca("Add up these numbers.", "1 and 2", limit=30)
    assert cut.tokens_cut == whole.tokens - 30 and cut.text.split() == whole.text.split()[:30]
    assert (cut.positive_examples, cut.negative_examples, cut.examples_left_out) == (0, 0, 0)


def test_alpacas_template_shows_no_examples():
    task = Instruction("Add.", (Example("1 and 1", "2"),), (Example("1", "9"),))
    shown = AlpacaEncoding(1000).encode(task, "", len, lambda t, n: t[:n]).text
    assert "1 and 1" not in shown and "9" not in shown
    assert not AlpacaEncoding().shows_examples and TkInstructEncoding().shows_examples
    assert not TkInstructEncoding(num_positive_examples=0).shows_examples
    with pytest.raises(UserError, match="AlpacaEncoding.max_source_length is 0"):
        AlpacaEncoding(0)


def test_the_mixture_is_tk_instructs_five_encodings():
    mixture = TkInstructMixture(max_source_length=300)
    flags = ("add_task_definition", "num_positive_examples", "num_negative_examples")
    drawn = [mixture.drawn(0, "encoding", "task", str(i)) for i in range(2000)]
    counts = collections.Counter(
        (*(getattr(each, flag) for flag in flags), each.add_explanation) for each in drawn
    )
    assert set(counts) == {
        (True, 0, 0, False),
        (False, 2, 0, False),
        (True, 2, 0, False),
        (True, 2, 2, False),
        (True, 2, 0, True),
    }
    assert all(330 < count < 470 for count in counts.values())  # 400 are expected, +-4 sigma
    assert not any(each.add_task_name for each in drawn)
    assert {each.max_source_length for each in drawn} == {300}
    # Scored and evaluated prompts have one form.
    arguments = (Instruction("Say it."), "x", len, lambda text, most: text[:most])
    assert mixture.encode(*arguments) == TkInstructEncoding(max_source_length=300).encode(
        *arguments
    )


def test_self_instructs_forms():
    mixture = SelfInstructMixture(max_source_length=300)

    def text(encoding, given):
        arguments = (Instruction(" Add. "), given, len, lambda text, most: text[:most])
        return encoding.encode(*arguments).text

    # prepare_for_finetuning.py, encode_instance: with its draw, and without.
    for given, forms in (
        (
            " 1 2\n",
            {
                "Add.\nInput: 1 2\nOutput:",
                "Add.\n\nInput: 1 2\n\nOutput:",
                "Task: Add.\nInput: 1 2\nOutput:",
                "Add.\n\n1 2\n\nOutput:",
                "Add.\n\n1 2\n\n",
                "Add.\n1 2\n\n",
                "Task: Add.\n\n1 2\n\n",
            },
        ),
        (
            " ",
            {
                "Add. Output:",
                "Add.\nOutput:",
                "Add.\n\nOutput:",
                "Add.\n",
                "Add.\n\n",
                "Task: Add.\n\n",
            },
        ),
    ):
        drawn = [text(mixture.drawn(0, "encoding", "task", str(i)), given) for i in range(1400)]
        counts = collections.Counter(drawn)
        assert set(counts) == forms
        assert min(counts.values()) > 1400 / len(forms) * 0.7, "each as often"
    assert text(mixture, "1 2") == "Add.\n\n1 2\n\n" and text(mixture, "") == "Add.\n\n\n\n"
    assert mixture.drawn(1, "a") == mixture.drawn(1, "a") and not mixture.shows_examples
