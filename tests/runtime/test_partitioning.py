"""One mesh, one table of rules: shapes, specs, and errors that name what to change."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from flax.linen import partitioning as flax_partitioning
from jax.sharding import PartitionSpec
from tiny_training import TINY, FirstTokens, OnDevices, assert_trees_equal, model_and_params

from ait_jax.config import configuration
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.models import layers, parameters, t5
from ait_jax.models.layers import with_sharding_constraint
from ait_jax.runtime.partitioning import (
    ACTIVATION_AXES,
    STANDARD_LOGICAL_AXIS_RULES,
    Partitioner,
    model_info,
)
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.optimizer import adafactor, adamw
from ait_jax.trainer.step import StepScalars, init_state, state_shardings

# gin/partitioning -> size of the 'model' axis on 8 devices.
REGIMES = {"data_parallel": 1, "tensor_parallel": 2, "fsdp_2d": 2}


def partitioner_of(regime):
    """The partitioner that an experiment gets from gin/partitioning, on this mesh."""
    files = ("experiments/mini.gin", f"partitioning/{regime}.gin")
    bindings = (f"NUM_PARTITIONS = {REGIMES[regime]}",)
    configuration.parse(GinFlags(files, bindings), "experiments/mini.gin")
    return configuration.build(Partitioner)


@pytest.fixture(autouse=True)
def leave_gin_as_it_was(clean_gin):
    pass


@pytest.mark.parametrize("num_partitions, data", [(1, 8), (2, 4), (8, 1)])
def test_mesh_of_8_devices(num_partitions, data):
    partitioner = Partitioner(num_partitions)
    assert dict(partitioner.mesh.shape) == {"data": data, "model": num_partitions}
    assert partitioner.data_size == data
    # Neighbouring devices, with the fastest links, share a model.
    first = [device.id for device in partitioner.mesh.devices[0]]
    assert first == list(range(num_partitions))


@pytest.mark.parametrize("num_partitions", [0, 3, 16, -1])
def test_mesh_that_the_devices_do_not_fill(num_partitions):
    message = f"num_partitions = {num_partitions} does not divide the 8"
    with pytest.raises(UserError, match=message):
        _ = Partitioner(num_partitions).mesh


def test_logical_axes_become_mesh_axes():
    partitioner = Partitioner(2)
    assert partitioner.spec(("embed", "mlp")) == PartitionSpec(None, "model")
    assert partitioner.spec(("vocab", "embed")) == PartitionSpec("model", None)
    assert partitioner.spec(("batch", "length", None)) == PartitionSpec("data", None, None)
    assert partitioner.batch_sharding.spec == PartitionSpec("data")
    assert partitioner.replicated.is_fully_replicated


def test_rules_of_ones_own():
    rules = [("embed", "data"), *STANDARD_LOGICAL_AXIS_RULES]
    assert Partitioner(2, rules).spec(("embed", "mlp")) == PartitionSpec("data", "model")


@pytest.mark.parametrize(
    "axes, message",
    [
        (("embed", "mpl"), "wi/kernel: no rule for logical axis 'mpl'.*Did you mean 'mlp'"),
        (
            ("mlp", "heads"),
            r"wi/kernel: logical axes 'heads' and 'mlp' collide on mesh axis 'model' in "
            r"\('mlp', 'heads'\); .*partitioning.Partitioner.logical_axis_rules.*\('heads', None\)",
        ),
    ],
)
def test_wrong_axes(axes, message):
    with pytest.raises(UserError, match=message):
        Partitioner(2).spec(axes, "wi/kernel")


def test_a_rule_to_no_mesh_axis():
    with pytest.raises(UserError, match="'modle'.*'data', 'model'"):
        Partitioner(2, (("mlp", "modle"),))


def test_a_rule_that_is_never_reached():
    message = r"\('embed', 'data'\) after \('embed', None\).*put it before"
    with pytest.raises(UserError, match=message):
        Partitioner(2, (*STANDARD_LOGICAL_AXIS_RULES, ("embed", "data")))


def test_parameters_on_the_mesh():
    model = t5.Transformer(TINY)
    shapes, axes = parameters.abstract_params(model)
    shardings = Partitioner(2).param_shardings(shapes, axes)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    params = jax.device_put(parameters.init_params(model, 0)[0], shardings)
    embedding = params["token_embedder"]["embedding"]
    assert embedding.sharding.shard_shape(embedding.shape) == (32, 16)
    out = params["decoder"]["layers_0"]["self_attention"]["out"]["kernel"]
    assert out.sharding.shard_shape(out.shape) == (8, 16)
    assert params["decoder"]["decoder_norm"]["scale"].sharding.is_fully_replicated


def test_a_dimension_that_the_mesh_does_not_divide():
    shapes, axes = parameters.abstract_params(t5.Transformer(TINY))
    # 2 heads over 8 parts; alphabetically the decoder's table is met first.
    message = (
        r"rel_embedding: dimension 2 \('heads'\) of \(2, 32\).*'model' axis of 8; set "
        r"NUM_PARTITIONS \(partitioning.Partitioner.num_partitions\) = 2, not 8"
    )
    with pytest.raises(UserError, match=message):
        Partitioner(8).param_shardings(shapes, axes)


def test_batch_sizes():
    partitioner = Partitioner(2)
    partitioner.check_batch_size(4, "x")
    partitioner.check_batch_size(12, "x")
    for rows, near in ((0, 4), (2, 4), (7, 8), (13, 12)):
        message = rf"Trainer.batch_size = {rows} is not a multiple.*of 4 .* is {near}\."
        with pytest.raises(UserError, match=message):
            partitioner.check_batch_size(rows, "Trainer.batch_size")


def test_rows_lie_over_data():
    batch = Partitioner(2).shard_batch({"inputs": np.arange(24).reshape(8, 3)})
    inputs = batch["inputs"]
    assert inputs.sharding.shard_shape(inputs.shape) == (2, 3)
    np.testing.assert_array_equal(inputs, np.arange(24).reshape(8, 3))


def test_constraints_hold_inside_activate():
    partitioner = Partitioner(2)
    with partitioner.activate():
        spread = jax.jit(lambda x: with_sharding_constraint(x, ("batch", "mlp")))(np.ones((4, 4)))
    assert spread.sharding.shard_shape((4, 4)) == (1, 2)
    outside = jax.jit(lambda x: with_sharding_constraint(x, ("batch", "mlp")))(np.ones((4, 4)))
    assert len(outside.sharding.device_set) == 1


def test_model_info():
    shapes, axes = parameters.abstract_params(t5.Transformer(TINY))
    text = model_info(shapes, axes, Partitioner(2).param_shardings(shapes, axes))
    lines = text.splitlines()
    assert len(lines) == len(jax.tree.leaves(shapes)) + 1
    assert lines[-1] == f"Total number of parameters: {parameters.num_params(shapes)}"
    embedding = next(line for line in lines if line.startswith("token_embedder/embedding "))
    assert embedding.split(maxsplit=1)[1].split() == [
        "(64,", "16)", "('vocab',", "'embed')", "('model',", "None)",
    ]  # fmt: skip


def test_a_taken_mesh_axis_is_passed_over_as_flax_does():
    for regime in REGIMES:
        partitioner = partitioner_of(regime)
        rules = partitioner.logical_axis_rules
        _, axes = parameters.abstract_params(t5.Transformer(TINY))
        every = jax.tree.leaves(axes, is_leaf=lambda leaf: isinstance(leaf, tuple))
        for logical in [*every, *ACTIVATION_AXES]:
            expected = flax_partitioning.logical_to_mesh_axes(logical, rules)
            assert partitioner.spec(logical) == expected


def test_parameters_and_activations_in_2d():
    partitioner = partitioner_of("fsdp_2d")
    assert partitioner.spec(("embed", "mlp")) == PartitionSpec("data", "model")
    assert partitioner.spec(("joined_kv", "embed")) == PartitionSpec("model", "data")
    assert partitioner.spec(("vocab", "embed")) == PartitionSpec("model", "data")
    assert partitioner.spec(("batch", "length", "embed")) == PartitionSpec("data", None, "model")
    assert partitioner.spec(("batch", "length", "mlp")) == PartitionSpec("data", None, "model")


def test_an_activation_without_a_place_is_named():
    rules = [("embed", "data"), *(r for r in STANDARD_LOGICAL_AXIS_RULES if r[0] != "embed")]
    message = "an activation: .*'batch' and 'embed' collide.*'data'"
    with pytest.raises(UserError, match=message), Partitioner(2, rules).activate():
        pass


def test_the_activations_are_those_that_the_model_constrains(monkeypatch):
    seen = set()
    monkeypatch.setattr(layers, "with_sharding_constraint", lambda x, axes: seen.add(axes) or x)
    parameters.traced_params(t5.Transformer(TINY))
    assert seen == set(ACTIVATION_AXES)


def one_step(partitioner, optimizer, rate, config):
    """Trains one step and scores with the result; returns loss, parameters and scores."""
    model, params = model_and_params(config)
    trainer = EmbeddedTrainer(batch_size=8, num_microbatches=2, optimizer=optimizer)
    step, (abstract,) = trainer.compiled_step(model, partitioner)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    with partitioner.activate():
        state = jax.jit(lambda p: init_state(p, trainer.any_rate), out_shardings=where)(params)
        batch = partitioner.shard_batch(FirstTokens().batch(range(8)))
        state, metrics = step(state, [batch], StepScalars(np.uint32(0), np.float32(rate)))
    engine = Engine(model, partitioner, LengthBuckets((8,), (4,)), tokens_per_batch=64)
    prompts, targets = zip(*(FirstTokens()[i] for i in range(12)), strict=True)
    placed = engine.place(state.params)
    scores = engine.log_likelihoods(placed, prompts, targets)
    answers = engine.decode(placed, prompts)
    return metrics["loss"], jax.device_get(state.params), scores, answers


@pytest.mark.benchmark  # half a minute each
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_every_regime_gives_what_one_device_gives(name):
    optimizer, rate = {
        "adamw": (adamw, 1e-3),
        # Factored moments of these small matrices, too.
        "adafactor": (partial(adafactor, min_dim_size_to_factor=8), 1e-2),
    }[name]
    config = dataclasses.replace(TINY, remat_policy="minimal", scan_layers=name == "adafactor")
    loss, params, scores, answers = one_step(OnDevices(), optimizer, rate, config)
    for regime in REGIMES:
        partitioner = partitioner_of(regime)
        other_loss, other_params, other_scores, other_answers = one_step(
            partitioner, optimizer, rate, config
        )
        np.testing.assert_allclose(other_loss, loss, atol=1e-5)
        assert_trees_equal(other_params, params, atol=1e-5)
        np.testing.assert_allclose(other_scores, scores, atol=1e-5)
        np.testing.assert_allclose(
            other_answers.log_likelihoods, answers.log_likelihoods, atol=1e-5
        )
        assert other_answers.tokens == answers.tokens


def test_2d_rules_spread_parameters_and_moments_over_all_devices():
    partitioner = partitioner_of("fsdp_2d")
    optimizer = adafactor(lambda step: 1e-2, min_dim_size_to_factor=8)
    shapes, axes = parameters.abstract_params(t5.Transformer(TINY))
    shardings = partitioner.param_shardings(shapes, axes)
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
        parts = np.prod(leaf.shape) // np.prod(sharding.shard_shape(leaf.shape))
        matrix = len(leaf.shape) == 2 and leaf.shape != (2, 32)  # not a table of position biases
        assert parts == (8 if matrix else 2)
    state = jax.eval_shape(lambda p: init_state(p, optimizer), shapes)
    where = state_shardings(state, optimizer, shardings, partitioner.replicated)
    flat = jax.tree_util.tree_flatten_with_path(where.opt_state)[0]
    specs = {jax.tree_util.keystr(path): tuple(leaf.spec) for path, leaf in flat}
    kernel = "['encoder']['layers_0']['mlp']['wi_0']['kernel']"
    factors = [spec for path, spec in specs.items() if ".v_" in path and path.endswith(kernel)]
    assert sorted(factors) == [("data",), ("model",)]
