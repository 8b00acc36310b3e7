"""A pool extended during its run: nothing done is lost, and where the run stopped is no matter."""

import dataclasses
import json
import threading

import pytest
from ait_jax.tasks import stored_pool
from run_files import checkpoints, stable_files
from tiny_experiment import CONFIG, TRAINING, Stopped, tiny_experiment, tiny_pool

from ait_jax.errors import UserError
from ait_jax.pool import Splits, TaskPool
from ait_jax.pool.splits import read_names, read_splits
from ait_jax.rounds import active, stages
from ait_jax.rounds.generations import changes
from ait_jax.runtime import files
from ait_jax.scorer import likelihoods
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.embedded import EmbeddedTrainer

ALL = tiny_pool(16, 6)
HELD_OUT = ALL.splits.test + ALL.splits.dev
# The pool at the start, after one extension and after two; the last one has a test task, too.
FIRST, SECOND, THIRD = (ALL.splits.remain[:n] for n in (7, 10, 12))


def pool_of(remain, test=HELD_OUT[:2], reopen=None) -> TaskPool:
    splits = Splits(remain=remain, dev=HELD_OUT[2:], test=test)
    tasks = [ALL[name] for name in splits.names]
    labels = {name: ALL.is_cls(name) for name in splits.names}
    return TaskPool(tasks, labels, "tiny", splits, reopen=reopen)


def experiment(model_dir, pool, **changed):
    trainer = EmbeddedTrainer(**TRAINING | {"epochs": None, "steps": 2})
    sizes = {
        "rounds": 3,
        "tasks_per_round": 2,
        "evaluate_base": False,
        "grow_pool": True,
        "trainer": trainer,
    }
    return tiny_experiment(model_dir, pool=pool, **sizes | changed)


def run(model_dir, pool, **changed) -> list[str]:
    lines: list[str] = []
    active.run(experiment(model_dir, pool, **changed), CONFIG, lines.append)
    return lines


def stopped_run(model_dir, pool, owner, name, call=1, **changed):
    """Runs until the run's own `call`-th call of a function, which does not happen."""
    original, calls = getattr(owner, name), []

    def stop(*args, **kwargs):
        # What keeps the live status writes files, too, whenever it is time.
        if threading.current_thread().name != "live":
            calls.append(1)
            if len(calls) == call:
                raise Stopped
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(owner, name, stop)
        run(model_dir, pool, **changed)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """(Folder of a run whose pool was extended while round 0 was evaluated, its lines)."""
    model_dir = tmp_path_factory.mktemp("extended")
    stopped_run(model_dir, pool_of(FIRST), stages, "write_evaluation")
    return model_dir, run(model_dir, pool_of(SECOND))


def test_new_tasks_join_at_the_next_selection(extended):
    model_dir, lines = extended
    new = sorted(set(SECOND) - set(FIRST))
    assert read_names(model_dir / "round_000" / "joined_tasks.txt") == tuple(new)
    first, second = (read_splits(model_dir / f"round_00{n}") for n in (0, 1))
    assert not set(new) & set(first.names), "files of a finished stage stay as they are"
    selected = read_names(model_dir / "round_000" / "selected.txt")
    assert set(second.remain) == (set(first.remain) | set(new)) - set(selected)
    assert (second.dev, second.test) == (first.dev, first.test)
    scores = read_task_scores(model_dir / "round_000" / "task_scores.parquet")
    assert set(scores.tasks) == set(first.remain) | set(new)
    assert any("extended by 3 tasks; they join at the next selection" in line for line in lines)
    assert any("round_000: 3 new tasks joined; generation 1 of the pool" in line for line in lines)


def test_run_json_says_which_generation_each_round_used(extended):
    model_dir, _ = extended
    state = json.loads((model_dir / "run.json").read_text())
    assert state["pool"]["fingerprint"] == pool_of(FIRST).fingerprint()
    rounds = [state["stages"][f"round_00{n}/pool"] for n in (0, 1)]
    fingerprint = pool_of(SECOND).fingerprint()
    assert [r["generation"] for r in rounds] == [1, 1]
    assert [r["fingerprint"] for r in rounds] == [fingerprint] * 2
    assert [r["joined"] for r in rounds] == [3, 0] and "round_002/pool" not in state["stages"]
    lines = (model_dir / "pool_001.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == sorted(set(SECOND) - set(FIRST))


def same_run(one, other) -> None:
    expected, found = stable_files(one), stable_files(other)
    assert list(expected) == list(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    wanted, there = checkpoints(one), checkpoints(other)
    assert list(wanted) == list(there)
    for name in wanted:
        for parameter, value in wanted[name].items():
            assert value.tobytes() == there[name][parameter].tobytes(), (name, parameter)


def test_stopped_after_the_extension_and_continued_is_the_same_run(extended, tmp_path):
    stopped_run(tmp_path, pool_of(FIRST), Checkpoints, "save", 2)
    stopped_run(tmp_path, pool_of(SECOND), likelihoods, "write_rows", 2)
    assert (tmp_path / "pool_001.txt").exists()
    stopped_run(tmp_path, pool_of(SECOND), files, "write_text", 3)
    run(tmp_path, pool_of(SECOND))
    same_run(extended[0], tmp_path)


def test_a_pool_that_grows_between_rounds_of_one_process_is_the_same_run(extended, tmp_path):
    run(tmp_path, pool_of(FIRST, reopen=lambda: pool_of(SECOND)))
    same_run(extended[0], tmp_path)


@pytest.mark.benchmark
def test_a_round_that_has_settled_keeps_its_generation(extended, tmp_path):
    stopped_run(tmp_path, pool_of(FIRST), stages, "write_evaluation")
    stopped_run(tmp_path, pool_of(SECOND), likelihoods, "write_rows", 2)
    lines = run(tmp_path, pool_of(THIRD, test=HELD_OUT[:2]))
    for name in ("selected.txt", "task_scores.parquet", "joined_tasks.txt"):
        path = f"round_000/{name}"
        assert (tmp_path / path).read_bytes() == (extended[0] / path).read_bytes(), name
    assert read_names(tmp_path / "round_001" / "joined_tasks.txt") == tuple(sorted(THIRD[10:]))
    assert any("round_001: 2 new tasks joined; generation 2" in line for line in lines)


@pytest.mark.benchmark
def test_new_test_tasks_stay_out(tmp_path):
    few = pool_of(FIRST, test=HELD_OUT[:1])
    stopped_run(tmp_path, few, stages, "write_evaluation")
    lines = run(tmp_path, pool_of(SECOND, test=HELD_OUT[:2]))
    assert any("3 new tasks joined, 1 are test or dev tasks" in line for line in lines)
    splits = read_splits(tmp_path / "round_002")
    assert splits.test == HELD_OUT[:1] and HELD_OUT[1] not in splits.names


def test_changed_and_removed_tasks_are_refused_by_name(extended, tmp_path):
    model_dir, _ = extended
    before = stable_files(model_dir)
    first = ALL[FIRST[0]]
    changed = dataclasses.replace(first, instances=first.instances[:-1])
    pool = pool_of(SECOND)
    tasks = [changed if task is first else task for task in pool.values()]
    with pytest.raises(UserError, match=f"task '{FIRST[0]}' of the pool was changed"):
        run(model_dir, TaskPool(tasks, name="tiny", splits=pool.splits))
    # The first pool lacks what a round has already used.
    with pytest.raises(UserError, match=f"task '{sorted(SECOND[7:])[0]}' of the pool was removed"):
        run(model_dir, pool_of(FIRST))
    assert stable_files(model_dir) == before
    smaller = pool_of(FIRST[1:])
    with pytest.raises(
        UserError, match=f"only extended.*\n  task '{FIRST[0]}' of the pool was removed"
    ):
        run(tmp_path, pool_of(FIRST, reopen=lambda: smaller))


def test_an_extension_after_the_last_selection_is_reported(extended):
    model_dir, _ = extended
    before = stable_files(model_dir)
    lines = run(model_dir, pool_of(THIRD))
    assert any("extended by 2 tasks; no selection is left" in line for line in lines)
    assert stable_files(model_dir) == before


def test_without_grow_pool_an_extended_pool_is_another_pool(tmp_path):
    stopped_run(tmp_path, pool_of(FIRST), stages, "training_job", grow_pool=False)
    assert not list(tmp_path.glob("pool_*.txt"))
    with pytest.raises(UserError, match="pool: was name tiny"):
        run(tmp_path, pool_of(SECOND), grow_pool=False)


def test_a_damaged_record_of_the_pool_is_named(tmp_path):
    stopped_run(tmp_path, pool_of(FIRST), stages, "training_job")
    (tmp_path / "pool_000.txt").write_text("task\n")
    with pytest.raises(UserError, match="pool_000.txt is missing or damaged"):
        run(tmp_path, pool_of(SECOND))


def test_many_changes_are_few_lines():
    known = {f"task{i}": bytes([i]) for i in range(9)}
    lines = changes(known, {"task0": b"\0", "task1": b"x", "new": b""})
    assert lines[0] == "task 'task1' of the pool was changed"
    assert lines[1] == "task 'task2' of the pool was removed"
    assert len(lines) == 6 and lines[-1] == "and 3 more tasks"
    assert changes(known, known | {"new": b""}) == []


def test_stored_pools_are_reopened_and_know_their_digests(tmp_path):
    pool = pool_of(FIRST)
    stored_pool.write(pool, tmp_path / "stored")
    opened = stored_pool.load(tmp_path / "stored")
    assert opened.digests() == pool.digests()
    more = ALL[SECOND[-1]]
    stored_pool.extend(tmp_path / "stored", [more])
    again = opened.reopened()
    assert again.digests() == pool.digests() | {more.name: ALL.digests()[more.name]}
    assert pool.reopened() is pool
