"""The embedded trainer: exact resume, the chosen checkpoint, meshes, and what stops it."""

import contextlib
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared_data import SUPPORT
from tiny_training import (
    DROPPING,
    FirstTokens,
    Killed,
    OnDevices,
    assert_trees_equal,
    killing_at,
    metric_lines,
    model_and_params,
    train,
    trainer,
)

from ait_jax.errors import UserError
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.trainer.data import batches
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.metrics import TrainingWork
from ait_jax.trainer.optimizer import adafactor, constant_with_warmup


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """6 uninterrupted steps with dropout."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory, config=DROPPING)


def test_what_a_training_leaves(whole):
    directory, trained = whole
    assert trained.step == 6 and trained.directory == directory / "checkpoint_6"
    assert [p.name for p in directory.glob("checkpoint_*")] == ["checkpoint_6"]
    assert list((directory / "train").glob("events.out.tfevents.*"))
    assert_trees_equal(open_checkpoint(trained.directory).load(), trained.params)
    _, initial = model_and_params(DROPPING)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != np.asarray(b))), initial, trained.params)
    assert all(jax.tree.leaves(changed))


def test_what_a_training_says_of_its_work(whole):
    work = whole[1].work
    assert work.steps == 6 and work.seconds > 0 and 0 <= work.host_wait <= work.seconds
    assert work.padded_tokens == 6 * 8 * (8 + 4) and work.evaluation_seconds == 0
    rows = [row for (row,) in batches(FirstTokens(), batch_size=8, seed=3, start=0, stop=6)]
    assert work.tokens == sum(np.count_nonzero(ids) for row in rows for ids in row.values())
    forward = model_and_params()[0].config.flops_per_example(5, 3) * 6 * 8
    assert forward < work.flops < 5 * forward


@pytest.mark.parametrize("step", [1, 5])
def test_killed_and_continued_is_the_same_run(whole, tmp_path, step):
    directory, trained = whole
    with pytest.raises(Killed):
        train(tmp_path, config=DROPPING, report=killing_at(step))
    said = []
    continued = train(tmp_path, config=DROPPING, report=said.append)
    if step > 2:
        assert said[0] == f"continuing from step {step // 2 * 2}"
    assert_trees_equal(continued.params, trained.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()
    assert [p.name for p in tmp_path.glob("checkpoint_*")] == ["checkpoint_6"]


KILLED_PROCESS = """
import sys, time
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/.."]
import conftest
from pathlib import Path
from tiny_training import DROPPING, train

def report(line):
    print(line, flush=True)
    if line.startswith("step 5/"):
        time.sleep(300)

train(Path(sys.argv[1]), config=DROPPING, report=report)
"""


@pytest.mark.benchmark  # whole runs are killed by signal in test_active.py
def test_sigkill_loses_nothing(whole, tmp_path):
    directory, trained = whole
    arguments = [sys.executable, "-c", KILLED_PROCESS, str(tmp_path), str(SUPPORT)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 5/"):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    continued = train(tmp_path, config=DROPPING)
    assert_trees_equal(continued.params, trained.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()


def test_a_finished_training_is_not_repeated(whole):
    directory, trained = whole
    said = []
    again = train(directory, config=DROPPING, report=said.append)
    assert said == [] and again.step == 6 and again.work == TrainingWork()
    assert_trees_equal(again.params, trained.params)


def test_the_mesh_does_not_matter(whole, tmp_path):
    partitioner = OnDevices(num_partitions=2, num_devices=8)
    assert dict(partitioner.mesh.shape) == {"data": 4, "model": 2}
    trained = train(tmp_path, config=DROPPING, partitioner=partitioner)
    kernel = trained.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 16)
    assert_trees_equal(trained.params, whole[1].params, atol=1e-5)


def test_the_seed_matters(whole, tmp_path):
    other = train(tmp_path, config=DROPPING, seed=4)
    wi = [t.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"] for t in (whole[1], other)]
    assert np.abs(wi[0] - wi[1]).max() > 1e-4


def test_the_loss_falls_and_the_caller_keeps_its_parameters(tmp_path):
    _, initial = model_and_params()
    # Computed on the device: what merely views host memory could not be donated.
    params = jax.jit(lambda tree: jax.tree.map(lambda x: x * 1, tree))(initial)
    settings = trainer(
        steps=None,
        epochs=40,
        batch_size=20,
        schedule=optax.constant_schedule(1e-2),
        checkpoint_period=1000,
        eval_period=1000,
        log_period=20,
    )
    train(tmp_path, settings, params=params)
    lines = metric_lines(tmp_path)
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[-1]["loss"] < 1.5 < 0.6 * np.log(64) and lines[-1]["loss"] < lines[0]["loss"]
    # FirstTokens has 20 examples: 7 with 2 target tokens, 13 with 3.
    assert lines[-1]["tokens"] == 7 * 2 + 13 * 3
    assert_trees_equal(params, initial)


def test_adafactor_on_a_mesh_keeps_factored_moments(tmp_path):
    settings = trainer(
        steps=2,
        optimizer=lambda schedule: adafactor(schedule, min_dim_size_to_factor=8),
        schedule=optax.constant_schedule(1e-2),
    )
    sharded = train(
        tmp_path / "sharded", settings, partitioner=OnDevices(num_partitions=2, num_devices=8)
    )
    single = train(tmp_path / "single", settings)
    assert_trees_equal(sharded.params, single.params, atol=1e-5)
    _, initial = model_and_params()
    moved = np.abs(
        initial["token_embedder"]["embedding"] - single.params["token_embedder"]["embedding"]
    )
    assert moved.max() > 1e-3


DEV = {2: 0.5, 4: 0.9, 6: 0.9, 8: 0.1}


def best_run(directory, **changes):
    seen = {}

    def evaluate(params):
        step = sorted(DEV)[len(seen) + changes.get("evaluated", 0)]
        seen[step] = jax.tree.map(np.array, params)
        return {"rougeL": DEV[step]}

    arguments = {"report": changes["report"]} if "report" in changes else {}
    settings = trainer(steps=8, eval_period=2, checkpoint_period=3, best_metric="rougeL")
    trained = None
    with contextlib.suppress(Killed):
        trained = train(directory, settings, evaluate=evaluate, **arguments)
    return trained, seen


def test_the_best_checkpoint_is_kept_and_returned(tmp_path):
    trained, seen = best_run(tmp_path)
    assert sorted(seen) == [2, 4, 6, 8]
    # 4 and 6 are equally good: the earlier one counts.
    assert trained.step == 4
    assert_trees_equal(trained.params, seen[4])
    assert sorted(p.name for p in tmp_path.glob("checkpoint_*")) == ["checkpoint_4", "checkpoint_8"]
    assert_trees_equal(open_checkpoint(tmp_path / "checkpoint_8").load(), seen[8])
    assert [line for line in metric_lines(tmp_path) if "dev/rougeL" in line] == [
        {"step": step, "dev/rougeL": value} for step, value in DEV.items()
    ]


def test_the_best_checkpoint_survives_a_kill(tmp_path):
    killed, _ = best_run(tmp_path, report=killing_at(7))
    assert killed is None
    trained, seen = best_run(tmp_path, evaluated=3)
    assert sorted(seen) == [8] and trained.step == 4
    again, seen = best_run(tmp_path)
    assert not seen and again.step == 4
    assert_trees_equal(again.params, trained.params)


def test_without_dev_tasks_the_last_checkpoint_counts(tmp_path):
    assert train(tmp_path, trainer(steps=2, best_metric="rougeL")).step == 2


def test_unknown_best_metric(tmp_path):
    with pytest.raises(UserError, match="BEST_METRIC.*'rougel'.*Did you mean 'rougeL'"):
        train(tmp_path, trainer(best_metric="rougel"), evaluate=lambda params: {"rougeL": 1.0})


def test_running_away_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    def schedule(count):
        return jnp.where(count >= 4, 1e30, 1e-3)

    with pytest.raises(UserError, match=r"step 5 is inf.*checkpoint_4 is kept.*LEARNING_RATE"):
        train(tmp_path / "wild", trainer(schedule=schedule))
    good = train(tmp_path / "calm", trainer(steps=4))
    assert_trees_equal(open_checkpoint(tmp_path / "wild" / "checkpoint_4").load(), good.params)
    assert [line["step"] for line in metric_lines(tmp_path / "wild")] == [1, 2, 3, 4]


def test_nan_parameters_stop_at_once(tmp_path):
    _, params = model_and_params()
    params["decoder"]["decoder_norm"]["scale"] = np.full(16, np.nan, np.float32)
    with pytest.raises(UserError, match="loss at step 1 is nan.*no checkpoint was made"):
        train(tmp_path, params=params)
    assert not list(tmp_path.glob("checkpoint_*"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_continues(whole, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, config=DROPPING, report=killing_at(5))
    for file in (tmp_path / "checkpoint_4" / "default" / "d").iterdir():
        os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match="checkpoint_4 cannot be read.*Delete that folder"):
        train(tmp_path, config=DROPPING)
    (tmp_path / "checkpoint_4").rename(tmp_path / "damaged")
    said = []
    continued = train(tmp_path, config=DROPPING, report=said.append)
    assert said[0] == "continuing from step 2"
    assert_trees_equal(continued.params, whole[1].params)


def test_fewer_steps_than_already_made(whole):
    with pytest.raises(UserError, match="checkpoint_6, but the training ends at step 4"):
        train(whole[0], trainer(steps=4), config=DROPPING)


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MODEL_DIR"):
        train(tmp_path / "file" / "run")


def test_nothing_to_train_on(tmp_path, monkeypatch):
    monkeypatch.setattr(FirstTokens, "__len__", lambda self: 0)
    with pytest.raises(UserError, match="nothing to train on"):
        train(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epochs": 2, "steps": 3}, "one of epochs and steps"),
        ({"epochs": None, "steps": None}, "one of epochs and steps"),
        ({"batch_size": 8, "num_microbatches": 3}, "not a multiple of num_microbatches = 3"),
        ({"num_microbatches": 0}, "EmbeddedTrainer.num_microbatches = 0"),
        ({"epochs": 0}, "EmbeddedTrainer.epochs = 0 must be at least 1"),
        ({"log_period": 0}, "EmbeddedTrainer.log_period"),
        ({"checkpoint_period": 0}, "EmbeddedTrainer.checkpoint_period"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        EmbeddedTrainer(**changes)


def test_a_batch_that_the_mesh_does_not_divide(tmp_path):
    with pytest.raises(UserError, match=r"batch_size / num_microbatches = 2 is not a multiple.*8"):
        train(tmp_path, trainer(num_microbatches=4), partitioner=OnDevices(num_devices=8))


def test_epochs_steps_and_periods():
    settings = EmbeddedTrainer(batch_size=8, epochs=3)
    assert settings.steps_per_epoch(17) == 3 and settings.total_steps(17) == 9
    assert EmbeddedTrainer(epochs=None, steps=5).total_steps(17) == 5


def test_one_evaluation_an_epoch_and_the_learning_rate_of_the_update(tmp_path):
    seen = []
    settings = trainer(steps=None, epochs=2, schedule=constant_with_warmup(1e-3, 2))
    train(tmp_path, settings, evaluate=lambda params: seen.append(1) or {"rougeL": 0.0})
    lines = metric_lines(tmp_path)
    # 20 examples in batches of 8: 3 steps an epoch.
    assert [line["step"] for line in lines if "dev/rougeL" in line] == [3, 6]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    np.testing.assert_allclose(rates, [0, 5e-4, 1e-3, 1e-3, 1e-3, 1e-3], rtol=1e-6)
    norms = [line["param_norm"] for line in lines if "loss" in line]
    _, initial = model_and_params()
    expected = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(initial)))
    # The first update has learning rate 0 and so leaves the parameters as they are.
    assert norms[0] == pytest.approx(expected, rel=1e-6) and norms[1] != norms[0]


def test_the_step_log(tmp_path):
    said = []
    train(tmp_path, trainer(steps=2), report=said.append)
    assert len(said) == 2
    for step, line in enumerate(said, start=1):
        assert line.startswith(f"step {step}/2  loss ")
        assert "tokens/s" in line and "MFU" in line
