"""LoRA: the branch against full kernels' gradients, the merged model, resume, meshes, messages."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_llama
from flax import traverse_util
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

from ait_jax.errors import UserError
from ait_jax.models import adapters, parameters, t5
from ait_jax.models.checkpoints import checkpoints, loaded_model
from ait_jax.models.llama import LlamaTransformer
from ait_jax.trainer.lora import LoRATrainer
from ait_jax.trainer.step import supervised_sums

LLAMA = tiny_llama.config_of(vocab_size=64, emb_dim=16, num_heads=2, num_kv_heads=1, mlp_dim=32)
RANK, SCALE = 3, 1.5
BATCH = {name: jnp.asarray(rows) for name, rows in FirstTokens().batch(range(8)).items()}
KEY = jax.random.key(0)
SCHEDULE = optax.constant_schedule(1e-2)


def lora(**changes):
    arguments = {f.name: getattr(trainer(), f.name) for f in dataclasses.fields(trainer())}
    arguments |= {"rank": RANK, "alpha": RANK * SCALE, "schedule": SCHEDULE}
    return LoRATrainer(**(arguments | changes))


def model_of(kind, **changes):
    """Returns a model of two layers and its parameters."""
    if kind == "llama":
        config = dataclasses.replace(LLAMA, **changes)
        separate = tiny_llama.random_params(dataclasses.replace(config, scan_layers=False))
        model = LlamaTransformer(config)
    else:
        config = dataclasses.replace(TINY, num_encoder_layers=2, num_decoder_layers=2, **changes)
        separate = model_and_params(dataclasses.replace(config, scan_layers=False))[1]
        model = t5.Transformer(config)
    return model, parameters.match_layout(separate, config.scan_layers)


def drawn_adapters(model, targets=("*",)):
    """Adapters of which B is not 0, either."""
    kernels = adapters.targeted(adapters.kernels_of(model), targets, "LORA_TARGETS")
    drawn = adapters.init_adapters(kernels, RANK, seed=1)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + random.normal(0, 0.1, x.shape).astype(np.float32), drawn)


def loss_of(model, params):
    return jax.jit(supervised_sums(model))(params, BATCH, KEY)[0]


@pytest.mark.parametrize("kind, scan_layers", [("t5", False), ("t5", True), ("llama", True)])
def test_gradients_are_those_of_the_full_kernels(kind, scan_layers):
    model, params = model_of(kind, scan_layers=scan_layers, remat_policy="full")
    learned = drawn_adapters(model)
    whole = adapters.merged(params, learned, SCALE)

    def adapted_loss(learned):
        return loss_of(adapters.Adapted(model, params, SCALE), learned)

    value, gradient = jax.jit(jax.value_and_grad(adapted_loss))(learned)
    expected, full = jax.jit(jax.value_and_grad(lambda p: loss_of(model, p)))(whole)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    full, gradient = (traverse_util.flatten_dict(tree) for tree in (full, gradient))
    learned = traverse_util.flatten_dict(learned)
    assert len(gradient) == 2 * sum(path[-1] == "kernel" for path in full)
    for path in {path[:-1] for path in learned}:
        d_w = np.asarray(full[*path, "kernel"], np.float64)
        a, b = (np.asarray(learned[*path, name], np.float64) for name in "ab")
        by_hand = {"a": SCALE * d_w @ b.swapaxes(-1, -2), "b": SCALE * a.swapaxes(-1, -2) @ d_w}
        for name, right in by_hand.items():
            size = np.abs(right).max()
            assert size > 0, path
            np.testing.assert_allclose(gradient[*path, name], right, rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_the_merged_model_is_the_adapted_one(kind):
    model, params = model_of(kind, scan_layers=True, dtype=jnp.float32)
    learned = drawn_adapters(model)
    call = (BATCH["inputs"], BATCH["targets"], BATCH["targets"])
    adapted = adapters.Adapted(model, params, SCALE)
    logits = jax.jit(partial(adapted.apply, enable_dropout=False))({"params": learned}, *call)
    whole = adapters.merged(params, learned, SCALE)
    forward = jax.jit(partial(model.apply, enable_dropout=False))
    ordinary, base = forward({"params": whole}, *call), forward({"params": params}, *call)
    np.testing.assert_allclose(logits, ordinary, rtol=0, atol=1e-5 * np.abs(ordinary).max())
    assert np.abs(base - ordinary).max() > 0.1
    for path, leaf in traverse_util.flatten_dict(whole).items():
        same = leaf is traverse_util.flatten_dict(params)[path]
        assert same == (path[-1] != "kernel")


def test_the_first_model_is_the_base_and_layers_scanned_begin_alike():
    drawn = {}
    for scan_layers in (False, True):
        model, params = model_of("t5", scan_layers=scan_layers)
        kernels = adapters.targeted(adapters.kernels_of(model), ("query",), "LORA_TARGETS")
        drawn[scan_layers] = adapters.init_adapters(kernels, RANK, seed=1)
        assert_trees_equal(adapters.merged(params, drawn[scan_layers], SCALE), params)
        adapted = loss_of(adapters.Adapted(model, params, SCALE), drawn[scan_layers])
        assert float(adapted) == float(loss_of(model, params))
    assert_trees_equal(parameters.match_layout(drawn[False], True), drawn[True])
    a = drawn[True]["encoder"]["layers"]["attention"]["query"]["a"]
    assert a.shape == (2, 16, RANK) and np.std(a) == pytest.approx(1 / 4, rel=0.3)
    assert np.abs(a[0] - a[1]).max() > 0.1


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_frozen_bfloat16_does_not_change_a_bit(kind):
    model, params = model_of(kind, dtype=jnp.bfloat16, scan_layers=True)
    kernels = adapters.kernels_of(model)
    dtypes = adapters.frozen_dtypes(model, kernels)
    frozen = jax.tree.map(jnp.asarray, params, dtypes)
    assert frozen["decoder"]["layers"]["mlp"]["wo"]["kernel"].dtype == jnp.bfloat16
    assert frozen["decoder"]["decoder_norm"]["scale"].dtype == jnp.float32
    learned = drawn_adapters(model)
    losses = [loss_of(adapters.Adapted(model, p, SCALE), learned) for p in (params, frozen)]
    assert float(losses[0]) == float(losses[1])


def test_dropout_is_of_the_branch_alone():
    model, params = model_of("t5", scan_layers=True)
    learned = drawn_adapters(model)
    dropping = adapters.Adapted(model, params, SCALE, dropout=0.5)
    loss = jax.jit(supervised_sums(dropping))
    losses = [float(loss(learned, BATCH, jax.random.key(i))[0]) for i in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    nothing = jax.tree.map(jnp.zeros_like, learned)
    assert float(loss_of(dropping, nothing)) == float(loss_of(model, params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """6 uninterrupted steps with dropout of both kinds."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory, lora(dropout=0.1), config=DROPPING)


def test_what_a_training_leaves(whole):
    directory, trained = whole
    assert trained.step == 6 and trained.directory == directory / "checkpoint_6"
    assert sorted(p.name for p in directory.glob("checkpoint_*")) == ["checkpoint_6"]
    opened = checkpoints.open_checkpoint(directory)
    assert opened.place.name == "checkpoint_6" and opened.stored.num_others == 0
    assert_trees_equal(checkpoints.open_checkpoint(directory).load(), trained.params)
    _, initial = model_and_params(DROPPING)
    assert loaded_model.t5_config(trained.params) == dataclasses.replace(DROPPING, dropout_rate=0.1)
    for path, leaf in traverse_util.flatten_dict(trained.params).items():
        base = traverse_util.flatten_dict(initial)[path]
        adapted = path[-1] == "kernel" and path[-2] != "logits_dense"
        assert np.array_equal(leaf, base) != adapted, path
    small = checkpoints.open_checkpoint(directory / "adapters" / "checkpoint_6").load()
    assert {path[-1] for path in traverse_util.flatten_dict(small)} == {"a", "b"}


@pytest.mark.parametrize("step", [1, 5])
def test_killed_and_continued_is_the_same_run(whole, tmp_path, step):
    directory, trained = whole
    with pytest.raises(Killed):
        train(tmp_path, lora(dropout=0.1), config=DROPPING, report=killing_at(step))
    assert not list(tmp_path.glob("checkpoint_*"))
    said = []
    continued = train(tmp_path, lora(dropout=0.1), config=DROPPING, report=said.append)
    assert (step == 5) == (said[0] == "continuing from step 4")
    assert_trees_equal(continued.params, trained.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()


def test_a_finished_training_is_read_and_a_lost_sum_made_again(whole):
    directory, trained = whole
    said = []
    # Nothing is asked of the base where the sum is there.
    nowhere = jax.tree.map(np.zeros_like, model_and_params(DROPPING)[1])
    again = train(directory, lora(dropout=0.1), DROPPING, params=nowhere, report=said.append)
    assert said == []
    assert_trees_equal(again.params, trained.params)
    (directory / "checkpoint_6").rename(directory / "lost")
    made = train(directory, lora(dropout=0.1), config=DROPPING)
    assert_trees_equal(made.params, trained.params)


def test_the_mesh_does_not_matter(whole, tmp_path):
    partitioner = OnDevices(num_partitions=2, num_devices=8)
    trained = train(tmp_path, lora(dropout=0.1), config=DROPPING, partitioner=partitioner)
    kernel = trained.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 16)
    assert_trees_equal(trained.params, whole[1].params, atol=1e-5)


def test_the_loss_falls_microbatches_do_not_matter_and_the_best_is_kept(tmp_path):
    _, initial = model_and_params()
    seen = {}

    def evaluate(params):
        seen[10 * len(seen) + 10] = jax.tree.map(np.array, params)
        return {"rougeL": {10: 0.5, 20: 0.9}.get(10 * len(seen), 0.1)}

    settings = dict(steps=40, batch_size=20, eval_period=10, best_metric="rougeL")
    settings |= dict(checkpoint_period=10, log_period=10)
    params = jax.tree.map(jnp.array, initial)
    trained = train(tmp_path / "one", lora(**settings), params=params, evaluate=evaluate)
    losses = [line["loss"] for line in metric_lines(tmp_path / "one") if "loss" in line]
    assert losses[-1] < 0.8 * losses[0] and losses[-1] < 0.8 * math.log(64)
    assert trained.step == 20
    assert_trees_equal(trained.params, seen[20])
    assert_trees_equal(params, initial)
    other = train(
        tmp_path / "four",
        lora(**settings, num_microbatches=4),
        evaluate=lambda params: {"rougeL": 0.0},
    )
    assert other.step == 10
    assert_trees_equal(other.params, seen[10], atol=1e-4)


def test_only_adapters_have_moments_and_the_rank_is_whole():
    partitioner = OnDevices(num_partitions=2, num_devices=4)
    model, params = model_of("llama", scan_layers=True, dtype=jnp.bfloat16)
    settings = lora(targets=("query", "self_attention/out"))
    with partitioner.activate():
        _, (state, frozen) = settings.compiled_step(model, partitioner)
    attention = state.params["decoder"]["layers"]["self_attention"]
    assert set(attention) == {"query", "out"} and "mlp" not in state.params["decoder"]["layers"]
    shards = {
        (name, part): leaf.sharding.shard_shape(leaf.shape)
        for name, adapter in attention.items()
        for part, leaf in adapter.items()
    }
    assert shards == {
        ("query", "a"): (2, 16, RANK),
        ("query", "b"): (2, RANK, 8),
        ("out", "a"): (2, 8, RANK),
        ("out", "b"): (2, RANK, 16),
    }
    learn = parameters.num_params(state.params)
    assert parameters.num_params(state.opt_state) == 2 * learn + 2  # two counts
    assert frozen["decoder"]["layers"]["mlp"]["wo"]["kernel"].dtype == jnp.bfloat16
    assert parameters.num_params(frozen) == parameters.num_params(params) > 10 * learn


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rank": 0}, r"lora.LoRATrainer.rank \(LORA_RANK\) = 0 must be at least 1"),
        ({"alpha": 0.0}, "LORA_ALPHA.* = 0.0 must be above 0"),
        ({"dropout": 1.0}, "LORA_DROPOUT.* = 1.0 must be at least 0 and below 1"),
        ({"targets": ("quary",)}, "LORA_TARGETS.*'quary'.*Did you mean 'query'.*key, out, query"),
        ({"targets": ("decoder/*/attention/query",)}, "but the model has no such kernel"),
        ({"targets": "query"}, r"must be a tuple: write \('query',\)"),
        ({"targets": ()}, "names no kernel to adapt"),
    ],
)
def test_wrong_settings_are_named(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path, lora(**changes))
    assert not list(tmp_path.iterdir())


def test_targets_may_name_parts_of_the_path():
    kernels = adapters.kernels_of(model_of("t5")[0])

    def names(*targets):
        return [k.name for k in adapters.targeted(kernels, targets, "")]

    assert set(names("decoder/*/value")) == {
        "decoder/layers/self_attention/value",
        "decoder/layers/encoder_decoder_attention/value",
    }
    assert {name.split("/")[-1] for name in names("wi_?", "wo")} == {"wi_0", "wi_1", "wo"}
    assert len(names("*")) == len(kernels) == 2 * (4 + 3) + 2 * (8 + 3) + 1
