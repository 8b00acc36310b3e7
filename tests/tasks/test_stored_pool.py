"""Stored pools: what comes back, what a row costs, what damage does, and how they grow."""

import contextlib
import json
import os
import pickle
import re
import resource

import pytest
from ait_jax.tasks import stored_pool, stored_rows
from test_niv2 import task_json

from ait_jax.errors import UserError
from ait_jax.pool import (
    Instance,
    Instruction,
    Splits,
    Task,
    TaskPool,
    task_from_json,
    task_to_json,
)

NAMES = ("task1", "task2.1_dots", "aufgabe_é")


def small_pool(names=NAMES, num_instances=7):
    tasks = [task_from_json(task_json(name, num_instances), name, "test") for name in names]
    splits = Splits(remain=names[:1], test=names[1:])
    return TaskPool(tasks, {names[0]: True}, name="small", splits=splits)


def one_instance_tasks(count, start=0):
    return [
        Task(f"t{i}", Instruction(f"Do {i}"), (Instance(f"i{i}", f"in {i}", (f"out {i}",)),))
        for i in range(start, start + count)
    ]


def test_every_field_label_and_split_comes_back(tmp_path):
    pool = small_pool()
    stored_pool.write(pool, tmp_path / "pool")
    read = stored_pool.load(tmp_path / "pool")
    assert list(read) == list(pool) and read.name == "small" and read.splits == pool.splits
    for name in pool:
        assert task_to_json(read[name]) == task_to_json(pool[name])
        assert read[name] == pool[name]
    assert read.given_labels == {"task1": True}
    assert stored_pool.load(tmp_path / "pool", {"task1": False}).is_cls("task1") is False


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    pool = small_pool()
    stored_pool.write(pool, tmp_path / "pool")
    read = stored_pool.load(tmp_path / "pool")
    assert read.fingerprint() == pool.fingerprint()
    assert TaskPool(read.values()).fingerprint() == pool.fingerprint(), "read from the instances"


def test_instances_are_lazy_and_pickle_small(tmp_path):
    stored_pool.write(small_pool(num_instances=300), tmp_path / "pool")
    instances = stored_pool.load(tmp_path / "pool")["task1"].instances
    whole = tuple(instances)
    assert len(instances) == len(whole) == 300
    assert instances[-1] == whole[299] and instances[2:5] == whole[2:5] and instances[5:2] == ()
    assert (
        pickle.loads(pickle.dumps(instances))[3] == whole[3] and len(pickle.dumps(instances)) < 500
    )
    with pytest.raises(IndexError):
        instances[300]


def test_rows_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_rows, "ROWS_PER_BATCH", 4)
    for count in (1, 3, 4, 5, 8, 11):
        tasks = one_instance_tasks(count)
        stored_pool.write(tasks, tmp_path / f"pool{count}", "many")
        read = stored_pool.load(tmp_path / f"pool{count}")
        assert [task.instances[0] for task in read.values()] == [t.instances[0] for t in tasks]
        assert read.splits is None and not read.given_labels


def test_tasks_may_have_no_instance_or_no_reference(tmp_path):
    tasks = [
        Task("none", Instruction("Nothing."), ()),
        Task("open", Instruction("Write."), (Instance("1", "", ()),)),
    ]
    stored_pool.write(tasks, tmp_path / "pool")
    read = stored_pool.load(tmp_path / "pool")
    assert len(read["none"].instances) == 0 and read["open"].instances[0].outputs == ()


def test_extending_changes_nothing_that_is_there(tmp_path):
    folder = tmp_path / "pool"
    stored_pool.write(one_instance_tasks(5), folder, "growing")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".arrow"}
    opened = stored_pool.load(folder)
    stored_pool.extend(folder, TaskPool(one_instance_tasks(3, 5), {"t6": True}))
    assert {name: (folder / name).read_bytes() for name in before} == before
    read = stored_pool.load(folder)
    assert (
        list(read) == [f"t{i}" for i in range(8)] and read.is_cls("t6") and read.name == "growing"
    )
    assert read["t7"].instances[0].outputs == ("out 7",)
    assert opened["t4"].instances[0].id == "i4", "what was open stays open"
    assert (
        read.fingerprint() == TaskPool(one_instance_tasks(8)).fingerprint() != opened.fingerprint()
    )
    with pytest.raises(UserError, match="two tasks named 't3'"):
        stored_pool.extend(folder, one_instance_tasks(1, 3))
    assert list(stored_pool.load(folder)) == list(read)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["pool.json", *(f"{t}-0000{n}.arrow" for t in ("tasks", "instances") for n in (0, 1))]
    )


def test_whole_or_not_at_all(tmp_path):
    def failing():
        yield from one_instance_tasks(3)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        stored_pool.write(failing(), tmp_path / "pool")
    with pytest.raises(UserError, match="two tasks named 't0'"):
        stored_pool.write([*one_instance_tasks(1), *one_instance_tasks(1)], tmp_path / "pool")
    with pytest.raises(UserError, match="no task to store"):
        stored_pool.write([], tmp_path / "pool")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is not a stored pool"):
        stored_pool.load(tmp_path / "pool")


@pytest.mark.parametrize("table", ["tasks", "instances"])
@pytest.mark.parametrize("damage", ["cut", "missing", "swapped", "garbage", "text"])
def test_damage_is_named(tmp_path, table, damage):
    folder = tmp_path / "pool"
    stored_pool.write(one_instance_tasks(50), folder)
    path = folder / f"{table}-00000.arrow"
    other = folder / f"{'tasks' if table == 'instances' else 'instances'}-00000.arrow"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        # Bytes in the middle are offsets of texts: read unchecked they would be wrong addresses.
        start = (
            0 if damage == "garbage" else data.find(b"Do 1" if table == "tasks" else b"out 1") - 250
        )
        path.write_bytes(
            {
                "cut": data[: len(data) // 2],
                "swapped": other.read_bytes(),
                "garbage": b"\xff" * len(data),
                "text": data[:start] + b"\xff" * 200 + data[start + 200 :],
            }[damage]
        )
    stored_rows.open_table.cache_clear()
    with pytest.raises((UserError, TypeError)) as caught:
        pool = stored_pool.load(folder)
        [tuple(task.instances) for task in pool.values()]
    # Type checks at run time read an instance, too, and raise a TypeError because of ours.
    error = caught.value
    while not isinstance(error, UserError):
        error = error.__cause__
    assert re.search("is damaged|other columns", str(error))


def test_damaged_and_foreign_records(tmp_path):
    folder = tmp_path / "pool"
    stored_pool.write(one_instance_tasks(2), folder)
    record = json.loads((folder / "pool.json").read_text())
    for text in (
        "{",
        "[]",
        json.dumps({**record, "shards": []}),
        json.dumps({**record, "shards": [1]}),
    ):
        (folder / "pool.json").write_text(text)
        with pytest.raises(UserError, match=r"pool\.json.*[Pp]repare the pool again"):
            stored_pool.load(folder)
    (folder / "pool.json").write_text(json.dumps({**record, "schema": 9}))
    with pytest.raises(UserError, match="schema 9"):
        stored_pool.load(folder)


def test_too_many_open_files_are_no_damage(tmp_path):
    stored_pool.write(one_instance_tasks(2), tmp_path / "pool")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(open(os.devnull))  # noqa: SIM115 - closed below
        with pytest.raises(UserError, match=r"[Tt]oo many open files") as error:
            stored_pool.load(tmp_path / "pool")
        taken.pop().close()
        with pytest.raises(UserError, match=r"Too many open files.*raise that limit") as error:
            stored_pool.load(tmp_path / "pool")
    finally:
        for file in taken:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "damaged" not in str(error.value)
