"""T5X as the trainer: the embedded trainer's losses, exact resume, and one line without T5X."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_llama
from tiny_training import (
    DROPPING,
    TINY,
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

from ait_jax import cli
from ait_jax.errors import UserError
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.models.llama import LlamaTransformer
from ait_jax.models.parameters import match_layout
from ait_jax.trainer import t5x
from ait_jax.trainer.optimizer import CosineOfTraining, adafactor, adamw
from ait_jax.trainer.t5x import NETWORKS

# Of losses around 4, over 20 steps: both sides compute in float32, in another order.
LOSS_TOLERANCE = 1e-4
SETTINGS = {
    "batch_size": 8,
    "epochs": None,
    "steps": 6,
    "optimizer": adafactor,
    "schedule": optax.constant_schedule(1e-2),
    "checkpoint_period": 2,
    "log_period": 1,
}


def t5x_trainer(**changes):
    return t5x.T5XTrainer(**(SETTINGS | changes))


def values(directory, name):
    return [line[name] for line in metric_lines(directory) if name in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """6 uninterrupted steps with dropout."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory, t5x_trainer(), config=DROPPING)


@pytest.mark.t5x
def test_what_a_training_leaves(whole):
    directory, trained = whole
    assert trained.step == 6 and trained.directory == directory / "checkpoint_6"
    assert [p.name for p in directory.glob("checkpoint_*")] == ["checkpoint_6"]
    assert list((directory / "train").glob("events.out.tfevents.*"))
    assert_trees_equal(open_checkpoint(trained.directory).load(), trained.params)
    _, initial = model_and_params(DROPPING)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != np.asarray(b))), initial, trained.params)
    assert all(jax.tree.leaves(changed))
    assert [line["step"] for line in metric_lines(directory)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.t5x
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", [adafactor, adamw], ids=["adafactor", "adamw"])
def test_losses_are_the_embedded_trainers(tmp_path, network, optimizer):
    settings = {"steps": 20, "optimizer": optimizer, "schedule": optax.linear_schedule(0, 1e-2, 5)}
    ours = train(tmp_path / "ours", trainer(**(SETTINGS | settings)))
    theirs = train(tmp_path / "theirs", t5x_trainer(**settings, network=network))
    losses = [np.array(values(tmp_path / name, "loss")) for name in ("ours", "theirs")]
    assert len(losses[0]) == 20 and losses[0][-1] < losses[0][0] - 0.2
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=LOSS_TOLERANCE)
    rates = [values(tmp_path / name, "learning_rate") for name in ("ours", "theirs")]
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-6)
    assert_trees_equal(theirs.params, ours.params, atol=2e-3)


@pytest.mark.t5x
@pytest.mark.parametrize("step", [1, 5])
def test_interrupted_and_continued_is_the_same_run(whole, tmp_path, step):
    directory, trained = whole
    with pytest.raises(Killed):
        train(tmp_path, t5x_trainer(), config=DROPPING, report=killing_at(step))
    said = []
    continued = train(tmp_path, t5x_trainer(), config=DROPPING, report=said.append)
    if step > 2:
        assert said[0] == "continuing from step 4"
    assert_trees_equal(continued.params, trained.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()
    assert [p.name for p in tmp_path.glob("checkpoint_*")] == ["checkpoint_6"]


@pytest.mark.t5x
def test_a_finished_training_is_not_repeated(whole):
    directory, trained = whole
    said = []
    again = train(directory, t5x_trainer(), config=DROPPING, report=said.append)
    assert said == [] and again.step == 6
    assert_trees_equal(again.params, trained.params)


@pytest.mark.t5x
def test_more_steps_than_asked_for(whole):
    with pytest.raises(UserError, match="checkpoint_6, but the training ends at step 4"):
        train(whole[0], t5x_trainer(steps=4), config=DROPPING)


@pytest.mark.t5x
def test_the_best_checkpoint_is_kept(tmp_path):
    dev = {2: 1.0, 4: 3.0, 6: 3.0, 8: math.nan}
    given = iter(dev.values())
    trained = train(
        tmp_path,
        t5x_trainer(steps=8, eval_period=2, checkpoint_period=3, best_metric="rougeL"),
        evaluate=lambda params: {"rougeL": next(given)},
    )
    assert trained.step == 4
    assert {p.name for p in tmp_path.glob("checkpoint_*")} == {"checkpoint_4", "checkpoint_8"}
    assert [line["step"] for line in metric_lines(tmp_path) if "dev/rougeL" in line] == list(dev)


@pytest.mark.t5x
@pytest.mark.parametrize("network", NETWORKS)
def test_the_mesh_does_not_matter(tmp_path, network):
    on_mesh = OnDevices(num_partitions=2, num_devices=8)
    _one, many = (
        train(tmp_path / name, t5x_trainer(network=network), **extra)
        for name, extra in (("one", {}), ("many", {"partitioner": on_mesh}))
    )
    kernel = many.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 16)
    losses = [values(tmp_path / name, "loss") for name in ("one", "many")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=LOSS_TOLERANCE)


@pytest.mark.t5x
def test_scanned_layers_train_and_are_refused_by_t5xs_own_network(tmp_path):
    # AdamW: T5X's Adafactor factors scanned layers of any size, layer by layer.
    settings = t5x_trainer(steps=2, optimizer=adamw)
    scanned = dataclasses.replace(TINY, scan_layers=True)
    _, initial = model_and_params(TINY)
    stacked = jax.tree.map(np.asarray, match_layout(initial, True))
    plain = train(tmp_path / "plain", settings)
    trained = train(tmp_path / "scanned", settings, config=scanned, params=stacked)
    assert_trees_equal(match_layout(trained.params, False), plain.params, atol=1e-3)
    with pytest.raises(UserError, match="scan_layers = False"):
        train(tmp_path / "t5x", t5x_trainer(network="t5x"), config=scanned, params=stacked)


@pytest.mark.t5x
def test_a_decoder_only_model_trains_as_with_the_embedded_trainer(tmp_path):
    config = tiny_llama.config_of(vocab_size=64, emb_dim=16, mlp_dim=32, scan_layers=True)
    extra = {"model": LlamaTransformer(config), "params": tiny_llama.random_params(config)}
    settings = {"steps": 5, "optimizer": adamw, "schedule": CosineOfTraining(1e-2, 0.2)}
    ours = train(tmp_path / "ours", trainer(**(SETTINGS | settings)), **extra)
    theirs = train(tmp_path / "theirs", t5x_trainer(**settings), **extra)
    losses, rates = (
        [values(tmp_path / name, metric) for name in ("ours", "theirs")]
        for metric in ("loss", "learning_rate")
    )
    assert len(losses[0]) == 5 and losses[0][-1] < losses[0][1] - 0.05
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=LOSS_TOLERANCE)
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-6)
    assert_trees_equal(theirs.params, ours.params, atol=2e-3)
    assert_trees_equal(open_checkpoint(theirs.directory).load(), theirs.params)
    with pytest.raises(UserError, match="no network of LLaMA's kind .* NETWORK = 'ait_jax'"):
        train(tmp_path / "t5x", t5x_trainer(network="t5x"), **extra)


@pytest.mark.t5x
def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(tmp_path):

    def schedule(step):
        return jnp.where(step < 3, 1e-2, jnp.inf)

    with pytest.raises(UserError, match=r"at step [45] is (nan|inf).* checkpoint_2 is kept"):
        train(tmp_path, t5x_trainer(schedule=schedule))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(open_checkpoint(tmp_path).load()))


@pytest.mark.t5x
def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, t5x_trainer(), report=killing_at(5))
    for path in (tmp_path / "checkpoint_4").rglob("*"):
        if path.is_file() and path.name != "_CHECKPOINT_METADATA":
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="cannot continue from .*checkpoint_4.* delete that folder"):
        train(tmp_path, t5x_trainer())


@pytest.mark.t5x
def test_errors_of_the_examples_come_through(tmp_path):
    class Broken(FirstTokens):
        def __getitem__(self, index):
            raise UserError("instance 3 has no output")

    with pytest.raises(UserError, match="^instance 3 has no output$"):
        train(tmp_path, t5x_trainer(), examples=Broken())


@pytest.mark.t5x
def test_another_t5x_is_refused(tmp_path, monkeypatch):
    from t5x import train as t5x_train

    def train_of_old(*, model, model_dir, total_steps):
        raise AssertionError

    monkeypatch.setattr(t5x_train, "train", train_of_old)
    with pytest.raises(
        UserError, match=r"T5X 0\.0\.0 in .* is too old.*train_state_initializer_cls"
    ):
        train(tmp_path, t5x_trainer())


def test_without_t5x_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys, clean_gin):
    monkeypatch.setattr(t5x, "_is_installed", lambda name: name not in ("t5x", "airio"))
    model_dir = tmp_path / "run"
    code = cli.main(
        ["run", "--gin_file=experiments/mini.gin", "--gin_file=trainers/t5x.gin",
         f"--gin.MODEL_DIR={model_dir}", "--gin.mini.load_pool.instances_per_task=2"]
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert error.startswith("ait-jax: The T5X trainer needs t5x, airio, not installed here; ")
    assert "pip install -e '.[t5x]' && pip install --no-deps -r requirements-t5x.txt" in error
    assert not model_dir.exists()


def test_a_folder_named_t5x_is_not_t5x(tmp_path, monkeypatch):
    (tmp_path / "t5x").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "t5x", raising=False)
    assert not t5x._is_installed("t5x")


def test_unknown_network(monkeypatch):
    monkeypatch.setattr(t5x, "require_t5x", lambda: None)
    with pytest.raises(
        UserError, match=r"network \(NETWORK\) = 'ait-jax' .* Did you mean 'ait_jax'"
    ):
        t5x_trainer(network="ait-jax")


def test_examples_that_are_no_pairs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(t5x, "require_t5x", lambda: None)

    class Packed:
        def __len__(self):
            return 8

    with pytest.raises(UserError, match="cannot train on Packed; use embedded.EmbeddedTrainer"):
        train(tmp_path, t5x_trainer(), examples=Packed())
