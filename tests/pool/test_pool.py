from dataclasses import replace

import pytest
from shared_data import ACTIVE_IT, NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool import Example, Instance, Instruction, Task, TaskPool
from ait_jax.pool.splits import read_splits


def task(name, definition="d", outputs=("x",), positives=2):
    examples = tuple(Example(f"in{i}", f"out{i}") for i in range(positives))
    instances = tuple(
        Instance(f"{name}-{i}", f"q{i}", (output,)) for i, output in enumerate(outputs)
    )
    return Task(name, Instruction(definition, examples), instances)


def test_pool_is_a_mapping_in_the_order_given():
    pool = TaskPool([task("b"), task("a")], name="toy")
    assert list(pool) == ["b", "a"] and len(pool) == 2
    assert pool["a"].name == "a" and pool.get("c") is None
    assert "a" in pool and "c" not in pool
    assert [t.name for t in pool.values()] == ["b", "a"]


def test_unknown_name_gives_the_nearest():
    pool = TaskPool([task("task123_sorting"), task("task9_copy")], name="toy")
    with pytest.raises(
        UserError,
        match="'toy' has no task 'task123_sortin' among its 2. Did you mean 'task123_sorting'?",
    ):
        pool["task123_sortin"]


def test_pools_that_cannot_be():
    with pytest.raises(UserError, match="'toy' is empty"):
        TaskPool([], name="toy")
    with pytest.raises(UserError, match="two tasks named 'a'"):
        TaskPool([task("a"), task("a")])
    with pytest.raises(UserError, match="path separator"):
        TaskPool([task("a/b")])


def test_labels_are_the_given_ones_else_derived():
    closed = task("closed", "Answer yes or no.", ["yes", "no"])
    opened = task("opened", "Answer yes or no.", ["yes", "maybe"])
    pool = TaskPool([closed, opened, task("given")], {"given": True, "elsewhere": False})
    assert [pool.is_cls(n) for n in ("closed", "opened", "given")] == [True, False, True]
    assert not TaskPool([closed], {"closed": False}).is_cls("closed")
    with pytest.raises(UserError, match="no task 'elsewhere'"):
        pool.is_cls("elsewhere")


def test_fingerprint_depends_on_content_not_on_order():
    a, b = task("a"), task("b")
    fingerprint = TaskPool([a, b]).fingerprint()
    assert len(bytes.fromhex(fingerprint)) == 32
    assert TaskPool([b, a], {"a": True}, "other").fingerprint() == fingerprint
    assert TaskPool([replace(a, instances=list(a.instances)), b]).fingerprint() == fingerprint
    instance = a.instances[0]
    example = a.instruction.positive_examples[0]
    changed = [
        replace(a, name="c"),
        replace(a, instruction=replace(a.instruction, definition="e")),
        replace(a, instruction=replace(a.instruction, negative_examples=(example,))),
        replace(a, instruction=replace(a.instruction, positive_examples=(example,))),
        replace(a, instances=()),
        replace(a, instances=(replace(instance, id="i"),)),
        replace(a, instances=(replace(instance, input="i"),)),
        replace(a, instances=(replace(instance, outputs=("x", "")),)),
        replace(a, instances=(replace(instance, input=instance.input + "x", outputs=("",)),)),
    ]
    fingerprints = {TaskPool([other, b]).fingerprint() for other in changed}
    assert len(fingerprints) == len(changed) and fingerprint not in fingerprints


def test_fingerprint_golden():
    # A run directory holds this value; a change would refuse every old run.
    assert (
        TaskPool([task("a")]).fingerprint()
        == "40eace53c9f82c1c8d3541242488d3f2636a68fa24b8f6c77451411e10414ee1"
    )


@needs_shared
def test_released_splits_on_the_folder_at_hand():
    names = [p.stem for p in (NIV2 / "tasks").glob("*.json")]
    splits = read_splits(
        ACTIVE_IT / "TLAL_Exp0_all_10" / "init", ACTIVE_IT / "default_dev" / "test_tasks.txt"
    )
    kept, missing = splits.restrict_to(names, "drop")
    assert len(kept.train + kept.remain + kept.dev) == 122 and len(kept.test) == 15
    assert missing == 68 + 620 + 68 + 119 - 122 - 15
