"""Counts by stage and reason."""

from ait_jax.tasks.grow.tally import Tally


def test_counts_keep_their_order_and_a_few_examples():
    tally = Tally()
    for i in range(1200):
        tally.add("read", "kept", f"name {i}")
    tally.add("read", "broken", "x" * 500)
    tally.add("made", "tasks", count=7)
    assert tally.count("read", "kept") == 1200 and tally.count("no", "such") == 0
    assert tally.table() == "read:\n  1,200  kept\n      1  broken\nmade:\n      7  tasks"
    report = tally.to_json()
    assert report["read"]["kept"] == {"count": 1200, "examples": ["name 0", "name 1", "name 2"]}
    assert len(report["read"]["broken"]["examples"][0]) == 120
    assert Tally().table() == ""
