"""A grown pool as a pool to run, score and register."""

import json
import pickle

import pytest
from ait_jax.tasks import dynosaur
from ait_jax.tasks.grow.growth import Growth, grow
from tiny_datasets import instruction, reviews, write_lines

from ait_jax.config import configuration
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.pool import TaskPool, read_task
from ait_jax.rounds import experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 tasks with instances and one without."""
    folder = tmp_path_factory.mktemp("grown")
    names = [f"shop_{i}" for i in range(12)]
    data = write_lines(
        folder / "data.jsonl", [reviews(name, 20 + i) for i, name in enumerate(names)]
    )
    released = folder / "instructions.json"
    released.write_text(json.dumps([instruction(name) for name in (*names, "no_rows")]))
    grow(Growth(folder / "pool", [str(released)], rows=[str(data)]))
    return folder / "pool"


def test_tasks_without_instances_are_left_out(folder):
    pool = dynosaur.load_pool(folder)
    assert len(pool) == 12 and pool.splits is None and pool.name == "dynosaur"
    assert all(len(task.instances) for task in pool.values())
    with_all = dynosaur.load_pool(folder, include_without_instances=True)
    assert len(with_all) == 13
    (extra,) = set(with_all) - set(pool)
    assert len(with_all[extra].instances) == 0 and "no_rows" in extra


def test_instances_are_read_when_asked_for(folder):
    pool = dynosaur.load_pool(folder)
    for index, task in enumerate(pool.values()):
        assert len(task.instances) == 20 + index
        whole = read_task(folder / "tasks" / f"{task.name}.json")
        assert task.instances == whole.instances and task.instances[-1] == whole.instances[-1]
        assert pickle.loads(pickle.dumps(task)) == task
        assert pool.is_cls(task.name)


def test_the_fingerprint_is_that_of_the_content(folder):
    pool = dynosaur.load_pool(folder)
    assert pool.fingerprint() == TaskPool(list(pool.values())).fingerprint()


def test_labels_may_be_given(folder):
    name = next(iter(dynosaur.load_pool(folder)))
    assert not dynosaur.load_pool(folder, {name: False}).is_cls(name)


def test_whole_datasets_are_held_out(folder):
    pool = dynosaur.load_pool(folder, test_fraction=0.3)
    assert 0 < len(pool.splits.test) < 12
    assert set(pool.splits.test) | set(pool.splits.remain) == set(pool)
    held_out = {pool[name].metadata["Source"] for name in pool.splits.test}
    assert not held_out & {pool[name].metadata["Source"] for name in pool.splits.remain}


def test_errors(folder, tmp_path):
    with pytest.raises(UserError, match="no grown pool: set the gin name DYNOSAUR_DIR"):
        dynosaur.load_pool(tmp_path)
    with pytest.raises(UserError, match="TEST_FRACTION is 1"):
        dynosaur.load_pool(folder, test_fraction=1.0)
    (tmp_path / "i.json").write_text(json.dumps([instruction()]))
    grow(Growth(tmp_path / "pool", [str(tmp_path / "i.json")]))
    with pytest.raises(UserError, match="none of the 1 tasks .* has instances"):
        dynosaur.load_pool(tmp_path / "pool")


def test_a_file_that_was_changed_is_refused(folder, tmp_path):
    pool = dynosaur.load_pool(folder)
    task = list(pool.values())[3]
    path = folder / "tasks" / f"{task.name}.json"
    before = path.read_text()
    dynosaur._read_instances.cache_clear()
    try:
        path.write_text(before.replace("kettle", "teapot"))
        with pytest.raises(UserError, match="is not what was grown"):
            task.instances[0]
        path.unlink()
        with pytest.raises(UserError, match="cannot read the task"):
            task.instances[0]
    finally:
        path.write_text(before)


@pytest.mark.usefixtures("clean_gin")
def test_the_gin_pool_fits_an_experiment(folder):
    values = (f"DYNOSAUR_DIR = '{folder}'", "INITIAL_TASKS = 3", "DEV_TASKS = 2")
    files = ("experiments/mini.gin", "pools/dynosaur.gin")
    configuration.parse(GinFlags(files, values), "experiments/mini.gin", ())
    built = configuration.build(experiment.Experiment)
    splits, dropped = built.initial_splits.draw(built.pool, 0)
    assert len(splits.train) == 3 and len(splits.dev) == 2 and dropped == 0


def test_seqio(folder):
    seqio = pytest.importorskip("seqio")
    from ait_jax.tasks import registry

    from ait_jax import assets

    registered = registry.register(
        dynosaur.load_pool(folder), "dyn", vocabulary=assets.mini_vocabulary()
    )
    assert registered.mixtures == ("dyn_default_train",) and len(registered.task_names) == 12
    name = next(iter(registered.task_names.values()))
    examples = seqio.TaskRegistry.get(name).get_dataset({"inputs": 64, "targets": 8}, split="train")
    assert len(list(examples.as_numpy_iterator())) == 20


def test_a_copy_in_a_bucket_is_the_same_pool(folder, bucket):
    for path in (p for p in folder.rglob("*") if p.is_file()):
        bucket.put(f"bucket/grown/{path.relative_to(folder)}", path.read_bytes())
    local, there = dynosaur.load_pool(folder), dynosaur.load_pool("gs://bucket/grown")
    assert there.fingerprint() == local.fingerprint() and list(there) == list(local)
    name = list(local)[3]
    assert tuple(there[name].instances) == tuple(local[name].instances)
    with pytest.raises(UserError, match="grow into a local folder"):
        grow(Growth("gs://bucket/grown", [str(folder.parent / "instructions.json")]))
