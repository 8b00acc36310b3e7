"""The built-in pool: structure, splits, labels, noise, and the same content on every machine."""

import collections
import hashlib
import re

import pytest
from ait_jax.tasks import mini
from ait_jax.tasks.mini import lexicon
from ait_jax.tasks.mini.generator import DIFFICULTIES, Draw, TaskSpec, build_task

INSTANCES = 120
NOISE_FAMILIES = ("Random Labels", "Random Answers")


@pytest.fixture(scope="module")
def pool():
    return mini.load_pool(INSTANCES)


@pytest.fixture(scope="module")
def table():
    return mini.specs()


def test_size_families_and_balance(pool):
    families = {task.category for task in pool.values()}
    num_cls = sum(pool.is_cls(name) for name in pool)
    assert len(pool) >= 90 and len(families) >= 16
    assert 0.35 < num_cls / len(pool) < 0.65
    assert [int(name[4:7]) for name in pool] == list(range(1, len(pool) + 1))


def test_schema_of_every_task(pool, table):
    for name, task in pool.items():
        assert re.fullmatch(r"mini\d{3}_[a-z_]+", name)
        assert 8 <= len(task.instruction.definition.split()) <= 40, name
        assert (
            len(task.instruction.positive_examples) == 3 and task.instruction.negative_examples
        ), name
        assert all(example.explanation for example in task.instruction.positive_examples), name
        assert len(task.instances) == INSTANCES
        assert table[name][1].difficulty in DIFFICULTIES
        assert name.endswith("_classification") == pool.is_cls(name), name


def test_inputs_are_distinct_short_and_no_example_is_an_instance(pool):
    for name, task in pool.items():
        inputs = [instance.input for instance in task.instances]
        shown = [
            e.input for e in task.instruction.positive_examples + task.instruction.negative_examples
        ]
        assert len({*inputs, *shown}) == len(inputs) + len(shown), name
        assert len({instance.id for instance in task.instances}) == len(inputs), name
        assert max(len(text.split()) for text in inputs) <= 22, name
        assert all(instance.outputs and all(instance.outputs) for instance in task.instances), name


def test_labels_are_in_the_definition_and_two_of_them_are_shown(pool, table):
    for name in filter(pool.is_cls, pool):
        row, task = table[name][1], pool[name]
        given = collections.Counter(instance.outputs[0] for instance in task.instances)
        assert set(given) <= set(row.labels), name
        assert all(re.search(rf"\b{label}\b", row.definition) for label in row.labels), name
        if name.split("_", 1)[1] == "always_yes_classification":
            continue
        assert set(given) == set(row.labels), name
        assert max(given.values()) <= 0.75 * INSTANCES, (name, given)
        assert len({example.output for example in task.instruction.positive_examples[:2]}) == 2, (
            name
        )


def test_negative_examples_are_wrong(pool):
    """The wrong output differs from the right one, which the explanation names."""
    for task in pool.values():
        wrong = task.instruction.negative_examples[0]
        right = wrong.explanation.removeprefix("This is wrong. The answer should be ").removesuffix(
            "."
        )
        assert right and right != wrong.output, task.name


def test_default_splits(pool, table):
    splits = pool.splits
    names = [*splits.train, *splits.remain, *splits.dev, *splits.test]
    assert sorted(names) == sorted(pool) and len(names) == len(set(names))
    assert not splits.train and len(splits.remain) >= 60
    families = {
        part: {table[name][0] for name in getattr(splits, part)}
        for part in ("remain", "dev", "test")
    }
    assert len(families["test"]) >= 5 and not families["test"] & (
        families["remain"] | families["dev"]
    )
    assert families["dev"] <= families["remain"]
    assert len(splits.dev) == 12
    assert not (families["test"] | families["dev"]) & set(NOISE_FAMILIES)
    for part in (splits.remain, splits.dev, splits.test):
        assert 0 < sum(pool.is_cls(name) for name in part) < len(part)


def test_noise_is_near_uniform_and_has_no_rule(pool, table):
    noise = [name for name, (_, row) in table.items() if row.difficulty == "noise"]
    assert {table[name][0] for name in noise} == set(NOISE_FAMILIES)
    assert (
        sum(pool.is_cls(name) for name in noise) >= 4
        and sum(not pool.is_cls(name) for name in noise) >= 4
    )
    for name in noise:
        labels = table[name][1].labels
        given = collections.Counter(instance.outputs[0] for instance in pool[name].instances)
        for label in labels:  # four standard deviations of a fair draw
            expected = INSTANCES / len(labels)
            assert abs(given[label] - expected) < 4 * (expected * (1 - 1 / len(labels))) ** 0.5, (
                name,
                given,
            )
        if not labels:
            assert len(given) > 0.7 * INSTANCES, name


def test_two_tasks_of_one_input_kind_and_opposite_instructions(table):
    """First and last word, larger and smaller number: only the instruction differs."""
    rows = {row.name: row for _, row in table.values()}
    for one, other in (
        ("first_word", "last_word"),
        ("larger_number", "smaller_number"),
        ("remove_the_first_word", "remove_the_last_word"),
        ("older_person", "younger_person"),
    ):
        differ = 0
        for index in range(30):
            text_one, answer_one = rows[one].draw(Draw("t", index))
            text_other, answer_other = rows[other].draw(Draw("t", index))
            assert text_one == text_other
            differ += answer_one != answer_other
        assert differ == 30


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("spell_backwards", r"(\w+)", lambda match: match[1][::-1]),
        ("first_word", r"(\w+) .*", lambda match: match[1]),
        ("reverse_the_words", r"(.*)", lambda match: " ".join(reversed(match[1].split()))),
        ("larger_number", r"(\d+) and (\d+)", lambda match: str(max(int(match[1]), int(match[2])))),
        ("replace_the_person", r"\w+ (.*)", lambda match: f"Somebody {match[1]}"),
        ("even_or_odd_classification", r"(\d+)", lambda match: ("even", "odd")[int(match[1]) % 2]),
        (
            "word_in_list_classification",
            r"(\w+): (.*)",
            lambda match: "found" if match[1] in match[2].split() else "missing",
        ),
        (
            "premise_hypothesis_classification",
            r"Premise: (.*) Hypothesis: (.*)",
            lambda match: (
                "entailment"
                if re.split(r"\W+", match[2])[-2] in re.split(r"\W+", match[1])
                else "contradiction"
            ),
        ),
    ],
)
def test_answers_against_a_rule_written_here(pool, task, text, answer):
    found = next(one for one in pool.values() if one.name.split("_", 1)[1] == task)
    for instance in found.instances:
        assert instance.outputs[0] == answer(re.fullmatch(text, instance.input)), instance


def test_lexicon_classes_do_not_overlap_where_tasks_contrast_them():
    kinds = (
        "animal",
        "plant",
        "tool",
        "vehicle",
        "job",
        "clothing",
        "furniture",
        "body part",
        "colour",
        "fruit",
        "vegetable",
    )
    words = [(word, kind) for kind in kinds for word in lexicon.CLASSES[kind]]
    twice = [
        word for word, count in collections.Counter(word for word, _ in words).items() if count > 1
    ]
    assert not twice
    assert not set(lexicon.GOOD) & set(lexicon.BAD) and not set(lexicon.WOMEN) & set(lexicon.MEN)


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("dog", "dogs"),
        ("mouse", "mice"),
        ("fox", "foxes"),
        ("berry", "berries"),
        ("donkey", "donkeys"),
        ("sheep", "sheep"),
        ("postman", "postmen"),
    ],
)
def test_plural(noun, plural):
    assert lexicon.plural(noun) == plural


def test_stateless_and_seeded(pool):
    again = mini.load_pool(INSTANCES)
    assert again.fingerprint() == pool.fingerprint()
    assert mini.load_pool(20, seed=1).fingerprint() != mini.load_pool(20, seed=0).fingerprint()
    spec = mini.specs()["mini006_first_word"][1]
    alone = build_task(spec, 1, "Word Position", 20, 0)
    inside = next(task for task in mini.generate_tasks(20) if task.name.endswith("_first_word"))
    assert [i.input for i in alone.instances] == [i.input for i in inside.instances]


def test_golden_content(pool):
    """The pool is part of what a run's numbers mean: a change of it is to be seen here."""
    digest = hashlib.sha256()
    for task in pool.values():
        instruction = task.instruction
        digest.update(f"{task.name}\n{instruction.definition}\n".encode())
        for example in instruction.positive_examples:
            digest.update(f"{example.input}\t{example.output}\n".encode())
        for instance in task.instances[:3]:
            digest.update(f"{instance.id}\t{instance.input}\t{instance.outputs}\n".encode())
    assert digest.hexdigest()[:16] == "eec4aa57f279668a"


def test_more_instances_than_there_are_inputs():
    spec = TaskSpec("two_inputs", "x", lambda draw: (draw.pick(("a", "b")), "c"))
    with pytest.raises(ValueError, match="'two_inputs' has only 2 distinct inputs, not 14"):
        build_task(spec, 1, "Family", 10, 0)


def test_draw_is_reproducible_and_samples_without_repeats():
    assert [Draw("a", 1).integer(0, 100), Draw("a", 1).integer(0, 100)] == [
        Draw("a", 1).integer(0, 100)
    ] * 2
    assert sorted(Draw("b").sample(range(5), 5)) == list(range(5))
    assert 0 not in Draw("c").sample(range(3), 2, without=[0])
    with pytest.raises(ValueError, match="cannot draw 4 distinct items from 3"):
        Draw("d").sample(range(3), 4)
