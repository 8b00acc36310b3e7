"""Stages drawn from a pool or read from files, and instances held out of their tasks."""

import pytest
from tiny_experiment import tiny_pool

from ait_jax.errors import UserError
from ait_jax.rounds.task_stages import DrawnStages, StageFiles, hold_out

POOL = tiny_pool()


def test_stages_are_equal_parts_without_test_and_dev_tasks():
    stages = DrawnStages(2).draw(POOL, 0)
    assert [len(stage) for stage in stages] == [5, 4]
    assert sorted(stages[0] + stages[1]) == sorted(POOL.splits.remain)
    assert stages == DrawnStages(2).draw(POOL, 0) != DrawnStages(2).draw(POOL, 1)
    fewer = DrawnStages(2, max_tasks_per_stage=2).draw(POOL, 0)
    assert fewer == [stage[:2] for stage in stages]


def test_too_many_stages_are_refused():
    with pytest.raises(
        UserError, match="NUM_STAGES = 10 needs as many training tasks; the pool has 9"
    ):
        DrawnStages(10).draw(POOL, 0)
    with pytest.raises(UserError, match="NUM_STAGES = 0 must be at least 1"):
        DrawnStages(0)


def test_stages_from_files(tmp_path):
    names = POOL.splits.remain
    (tmp_path / "a.txt").write_text(f"{names[3]}\n{names[0]}\n")
    (tmp_path / "b.txt").write_text(f"{names[1]}\n")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert StageFiles(files).draw(POOL, 0) == [(names[3], names[0]), (names[1],)]
    for text, error in (
        (names[0], "b.txt: task .* is also in .*a.txt"),
        (POOL.splits.test[0], "is a test task"),
        ("nothing", "has no task 'nothing'"),
        ("", "must list files with at least one task each"),
    ):
        (tmp_path / "b.txt").write_text(f"{text}\n")
        with pytest.raises(UserError, match=error):
            StageFiles(files).draw(POOL, 0)


def test_held_out_instances_are_not_trained_on():
    task = POOL[POOL.splits.remain[0]]
    kept, out = hold_out(task, 3, 0)
    assert (len(kept.instances), len(out.instances)) == (5, 3)
    ids = {i.id for i in kept.instances} | {i.id for i in out.instances}
    assert ids == {i.id for i in task.instances}
    assert out.instances[:2] == tuple(out.instances)[:2] and out.instances[-1] in task.instances
    assert [i.id for i in hold_out(task, 3, 0)[1].instances] == [i.id for i in out.instances]
    assert {i.id for i in hold_out(task, 3, 1)[1].instances} != {i.id for i in out.instances}
    kept, out = hold_out(task, 99, 0)
    assert (len(kept.instances), len(out.instances)) == (4, 4), "at most half"
