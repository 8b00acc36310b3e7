"""Names for TFDS splits and SeqIO tasks: distinct, legal, and stable."""

from ait_jax.tasks.task_names import word_names


def test_word_names_are_distinct_and_legal():
    names = [
        "a.b",
        "a-b",
        "a_b",
        "A_B",
        "all",
        "ALL",
        "漢",
        "é",
        "x" * 199,
        "x" * 198 + ".",
        "task1_plain",
        "_",
        "-",
        "даже",
    ]
    words = word_names(names)
    assert len({word.lower() for word in words.values()}) == len(names)
    assert all(
        word.isascii() and word.isidentifier() and len(word) <= 180 for word in words.values()
    )
    assert all(any(c.isalnum() for c in word) for word in words.values()), "as TFDS demands"
    assert words["task1_plain"] == "task1_plain" and words["a_b"] != "all"
    assert "all" not in {word.lower() for word in words.values()}
    assert word_names(reversed(names)) == words
    assert word_names(["task1529_scitail1.1_classification"]) == {
        "task1529_scitail1.1_classification": "task1529_scitail1_1_classification"
    }
