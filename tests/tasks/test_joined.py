import dataclasses
import json

import pytest
from ait_jax.tasks import joined
from tiny_experiment import tiny_pool

from ait_jax.cli import main
from ait_jax.config import configuration
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.pool import Splits, TaskPool
from ait_jax.pool.initial import Drawn
from ait_jax.rounds import experiment


def renamed(pool, prefix, splits=None, instances=None):
    tasks = [
        dataclasses.replace(task, name=f"{prefix}_{task.name}")
        if instances is None
        else dataclasses.replace(task, name=f"{prefix}_{task.name}", instances=instances)
        for task in pool.values()
    ]
    return TaskPool(tasks, {task.name: True for task in tasks}, name=prefix, splits=splits)


@pytest.fixture(scope="module")
def own():
    return tiny_pool(6)


def test_tasks_labels_and_splits_of_all(own):
    other = renamed(own, "other")
    whole = joined.load_pool([own, other])
    assert list(whole) == [*own, *other] and whole.name == "joined"
    assert whole.splits.test == own.splits.test
    assert whole.splits.remain == (*own.splits.remain, *other)
    assert all(whole.is_cls(name) for name in other)
    assert [whole.is_cls(name) for name in own] == [own.is_cls(name) for name in own]


def test_tasks_without_instances_cannot_be_chosen(own):
    bare = renamed(own, "bare", Splits(remain=tuple(f"bare_{n}" for n in own)), instances=())
    whole = joined.load_pool([own, bare])
    assert len(whole) == 12 and set(whole.splits.names) == set(own.splits.names)
    splits, dropped = Drawn(initial_tasks=2, dev_tasks=0).draw(whole, 0)
    assert dropped == 0 and not [name for name in splits.names if name.startswith("bare")]


def test_the_fingerprint_follows_every_pool(own):
    other = renamed(own, "other")
    fingerprint = joined.load_pool([own, other]).fingerprint()
    assert joined.load_pool([own, renamed(own, "other")]).fingerprint() == fingerprint
    assert joined.load_pool([own, renamed(own, "other", instances=())]).fingerprint() != fingerprint
    assert joined.load_pool([other, own]).fingerprint() != fingerprint


def test_what_cannot_be_joined(own):
    with pytest.raises(UserError, match="is empty"):
        joined.load_pool([])
    twin = TaskPool(own.values(), name="twin")
    with pytest.raises(UserError, match="the pools 'tiny' and 'twin' both have a task"):
        joined.load_pool([own, twin])


def test_the_gin_file_joins_instructions_and_a_grown_pool(clean_gin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Count to {n}.", "input": "", "output": "1"} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = {"instruction": "Name a colour.", "input": "", "output": "red"}
    (tmp_path / "test.jsonl").write_text(json.dumps(test) + "\n")
    released = {
        "task_name": "colours-default",
        "instruction": "Say which colour the text names.",
        "input_fields": ["text"],
        "output_field": ["colour"],
    }
    (tmp_path / "released.json").write_text(json.dumps([released]))
    assert main(["grow", "--pool=grown", "--from=released.json"]) == 0
    flags = GinFlags(
        ("experiments/self_instruct_mini.gin", "pools/joined.gin"),
        (
            "SELF_INSTRUCT_FILES = 'rows.jsonl'",
            "TEST_FILES = 'test.jsonl'",
            "DATA_DIR = 'data'",
            "DYNOSAUR_DIR = 'grown'",
            "INITIAL_TASKS = 2",
        ),
    )
    configuration.parse(flags, "")
    pool = configuration.build(experiment.Experiment).pool
    assert len(pool) == 11 and len(pool.splits.remain) == 9 and len(pool.splits.test) == 1
    (bare,) = [name for name, task in pool.items() if not len(task.instances)]
    assert bare not in pool.splits.names
