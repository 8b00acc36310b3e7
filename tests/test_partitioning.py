"""One mesh, one table of rules: shapes, specs, and errors that name what to change."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_training import TINY

from ait_jax.errors import UserError
from ait_jax.models import parameters, t5
from ait_jax.models.layers import with_sharding_constraint
from ait_jax.partitioning import STANDARD_LOGICAL_AXIS_RULES, Partitioner, model_info


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
    with pytest.raises(UserError, match=rf"num_partitions = {num_partitions} does not divide the 8"):
        Partitioner(num_partitions).mesh


def test_logical_axes_become_mesh_axes():
    partitioner = Partitioner(2)
    assert partitioner.spec(("embed", "mlp")) == PartitionSpec(None, "model")
    assert partitioner.spec(("vocab", "embed")) == PartitionSpec("model", None)
    assert partitioner.spec(("batch", "length", None)) == PartitionSpec("data", None, None)
    assert partitioner.batch_sharding.spec == PartitionSpec("data")
    assert partitioner.replicated.is_fully_replicated


def test_rules_of_ones_own():
    rules = [*STANDARD_LOGICAL_AXIS_RULES[:-1], ("embed", "data")]
    assert Partitioner(2, rules).spec(("embed", "mlp")) == PartitionSpec("data", "model")


@pytest.mark.parametrize(
    "axes, message",
    [
        (("embed", "mpl"), "wi/kernel: no rule for logical axis 'mpl'.*Did you mean 'mlp'"),
        (("mlp", "heads"), r"wi/kernel: logical axes \('mlp', 'heads'\) collide.*'model', 'model'"),
    ],
)
def test_wrong_axes(axes, message):
    with pytest.raises(UserError, match=message):
        Partitioner(2).spec(axes, "wi/kernel")


def test_a_rule_to_no_mesh_axis():
    with pytest.raises(UserError, match="'modle'.*'data', 'model'"):
        Partitioner(2, (("mlp", "modle"),)).spec(("mlp",))


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
    message = r"rel_embedding: dimension 2 of \(2, 32\).*'model' axis of 8.*num_partitions"
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
