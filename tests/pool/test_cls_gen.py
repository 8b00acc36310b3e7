import json
from collections import Counter

import pytest
from shared_data import ACTIVE_IT, NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool import Instance, Instruction, Task, read_task
from ait_jax.pool.cls_gen import MAX_LABELS, is_classification, labels_from_file


def task(definition, *outputs):
    instances = [
        Instance(str(i), "q", (o,) if isinstance(o, str) else o) for i, o in enumerate(outputs)
    ]
    return Task("t", Instruction(definition), instances)


@pytest.mark.parametrize(
    "definition, outputs, expected",
    [
        ("Answer Yes or No.", ["yes", "NO", " yes\n"], True),
        ("Answer Yes or No.", ["yes", "no", "maybe"], False),
        ("Answer Yes or No.", ["yes", ("no", "nope")], False),
        ("Answer Yes or No.", ["yes", ("no", "yes")], True),
        ("Answer yes if nothing follows.", ["yes", "no"], False),  # "no" only inside "nothing"
        ("Tag it as one of PRP, PRP$ or ','.", ["PRP$", ","], True),
        ("Tag it as one of PRP$s.", ["PRP$", "of"], False),
        ("Answer (A), (B) or (C).", ["A", "B", "C"], True),
        ("Repeat the word yes.", ["yes", "yes"], False),  # one label classifies nothing
        ("Answer yes, no or nothing.", ["yes", ""], False),
        ("Antworte groß oder klein.", ["GROSS", "klein"], True),
    ],
)
def test_rule(definition, outputs, expected):
    assert is_classification(task(definition, *outputs)) is expected


def test_number_of_labels_is_bounded():
    labels = [f"l{i}" for i in range(MAX_LABELS + 1)]
    definition = "One of " + ", ".join(labels)
    assert is_classification(task(definition, *labels[:-1]))
    assert not is_classification(task(definition, *labels))


def test_reading_stops_at_the_first_unnamed_output():
    def instances():
        yield Instance("0", "q", ("something else",))
        raise AssertionError("read on")

    class Lazy(list):
        def __iter__(self):
            return instances()

    assert not is_classification(Task("t", Instruction("yes or no"), Lazy()))


@needs_shared
def test_accuracy_on_the_recovered_labels():
    labels = labels_from_file(ACTIVE_IT / "cls_gen_train_pool.json")
    assert Counter(labels.values()) == {True: 279, False: 477}
    tasks = [read_task(p) for p in sorted((NIV2 / "tasks").glob("*.json")) if p.stem in labels]
    assert len(tasks) == 122
    agree = Counter((labels[t.name], is_classification(t) == labels[t.name]) for t in tasks)
    # Measured: 122 of 122. Each class apart, for "always GEN" would be right in 118.
    assert agree[False, True] >= 117
    assert agree[True, True] == 4


def test_labels_of_digests_of_names(tmp_path):
    path, digest = tmp_path / "labels.json", "sha256-104bdc6a97"  # of "task1_a", by sha256sum
    path.write_text(f'{{"b": "GEN", "{digest}": "CLS", "sha256-0123456789": "GEN"}}')
    found = labels_from_file(path, ["task1_a", "b"])
    assert list(found.items()) == [("b", False), ("task1_a", True), ("sha256-0123456789", False)]
    assert digest in labels_from_file(path)


def test_labels_from_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"a": "CLS", "b": "GEN"}')
    assert labels_from_file(path) == {"a": True, "b": False}


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": "CLS",\n "b" "GEN"}', r"labels\.json, line 2, column 6: malformed JSON"),
        ('["a"]', "JSON object"),
        ('{"a": "cls"}', "label of task 'a' is 'cls'.* Did you mean 'CLS'"),
        ('{"a": true}', "label of task 'a' is True"),
        ('{"a": ["CLS"]}', "label of task 'a' is"),
    ],
)
def test_bad_label_files(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        labels_from_file(path)


def test_no_label_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot read the CLS/GEN labels"):
        labels_from_file(tmp_path / "none.json")


def test_labels_serve_a_pool(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"t": "CLS"}))
    from ait_jax.pool import TaskPool

    assert TaskPool([task("d", "x")], labels_from_file(tmp_path / "labels.json")).is_cls("t")
