"""hlo.py and hlo_cost.py: costs of compiled programs against sums done by hand and XLA's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_training import TINY, OnDevices, model_and_params

from ait_jax.models.t5 import Transformer
from ait_jax.plan import hlo, hlo_cost
from ait_jax.runtime.partitioning import Partitioner


def cost(function, *arguments, unknown_trips=1):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return hlo_cost.cost_of(hlo.parse(text), unknown_trips)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_product_is_what_xla_says_too():
    compiled = jax.jit(jnp.dot).lower(floats(64, 128), floats(128, 32)).compile()
    counted = hlo_cost.cost_of(hlo.parse(compiled.as_text()))
    assert counted.flops == 2 * 64 * 128 * 32 == compiled.cost_analysis()["flops"]
    assert counted.bytes == 4 * (64 * 128 + 128 * 32 + 64 * 32)
    assert not counted.collectives


def test_a_loop_counts_as_often_as_it_runs():
    def scanned(x, w):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0]

    assert cost(scanned, floats(32, 16), floats(6, 16, 16)).flops == 6 * 2 * 32 * 16 * 16
    nested = cost(
        lambda x, w: jax.lax.fori_loop(0, 5, lambda _, x: scanned(x, w), x),
        floats(32, 16),
        floats(6, 16, 16),
    )
    assert nested.flops == 5 * 6 * 2 * 32 * 16 * 16


def test_a_slice_of_a_stacked_array_is_what_a_step_reads():
    def scanned(x, w):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0]

    few, many = (cost(scanned, floats(8, 256), floats(n, 256, 256)).bytes for n in (4, 8))
    # Twice as many layers are about twice the traffic, not four times.
    assert 1.8 < many / few < 2.2


def test_a_loop_that_the_data_ends_runs_as_often_as_asked():
    def decoding(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: x @ w, x)

    for trips in (1, 7):
        counted = cost(decoding, floats(16, 16), floats(16, 16), unknown_trips=trips)
        assert counted.flops == trips * 2 * 16**3


@pytest.mark.parametrize("members", [2, 4])
def test_collectives_of_a_mesh(members):
    mesh = Partitioner(members).mesh

    def placed(shape, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    summed = jax.jit(jnp.dot, out_shardings=NamedSharding(mesh, PartitionSpec()))
    compiled = summed.lower(placed((8, 64), None, "model"), placed((64, 16), "model", None))
    counted = hlo_cost.cost_of(hlo.parse(compiled.compile().as_text()))
    assert list(counted.collectives) == ["all-reduce"]
    size = 8 * 16 * 4
    # A ring sends every part around twice, but for a device's own.
    sent = {"count": 1, "bytes": size, "sent_bytes": 2 * (members - 1) / members * size}
    assert counted.collectives["all-reduce"] == sent
    assert counted.flops == 2 * 8 * 64 * 16 / members


@pytest.mark.parametrize(
    "attributes, members",
    [
        (", replica_groups={{0,1,2},{3,4,5}}, dimensions={0}", 3),
        (", replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", 2),
        (", replica_groups=mesh['axis_0'=32,'axis_1'=8] {'axis_0'}, dimensions={1}", 32),
        (", replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b','c'}, x=1", 8),
        (", dimensions={1}", None),
    ],
)
def test_group_sizes(attributes, members):
    assert hlo_cost.group_size(attributes) == members


@pytest.mark.parametrize(
    "left, right, output, attributes, expected",
    [
        # As TPUs write a plain product, one with a batch axis, and one of a block-wise product.
        ((512, 1024), (1024, 256), (512, 256), "dim_labels=bf_io->bf", 2 * 512 * 1024 * 256),
        (
            (8, 4, 32, 16), (8, 4, 64, 16), (8, 4, 32, 64),
            "window={size=8x4 stride=7x3 lhs_dilate=8x4}, dim_labels=01bf_01oi->01bf",
            2 * 8 * 4 * 32 * 64 * 16,
        ),
        (
            (8, 128, 512, 1), (512, 2, 128, 1), (8, 128, 2, 128),
            "window={size=1x2 pad=0_0x1_1 rhs_reversal=0x1}, dim_labels=0bf1_i1o0->0b1f",
            2 * 8 * 128 * 512 * 128 * 2,
        ),
    ],
)  # fmt: skip
def test_products_that_are_written_as_convolutions(left, right, output, attributes, expected):
    left, right, output = (hlo.Shape("bf16", size, False) for size in (left, right, output))
    product = hlo.Instruction("p", "convolution", (output,), ("l", "r"), attributes, False)
    assert hlo_cost.convolution_flops(left, right, product) == expected


def test_a_convolution_against_xla():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2,), [(1, 2)], lhs_dilation=(3,))

    compiled = jax.jit(convolve).lower(floats(2, 3, 10), floats(4, 3, 5)).compile()
    counted = hlo_cost.cost_of(hlo.parse(compiled.as_text())).flops
    positions = sum(
        0 <= (at := 2 * o + k - 1) <= 27 and at % 3 == 0 for o in range(14) for k in range(5)
    )
    assert counted == 2 * 2 * 4 * 3 * positions == compiled.cost_analysis()["flops"]


@pytest.mark.parametrize(
    "kind, members, share",
    [
        ("all-gather", 4, 3 / 4),
        ("reduce-scatter", 8, 7 / 8),
        ("all-reduce", 4, 2 * 3 / 4),
        ("collective-permute", 4, 1),
        # Of 4 in a ring 0, 1, 2 and 1 steps to the others; of 3 in a ring 0, 1 and 1.
        ("all-to-all", 4, (0 + 1 + 2 + 1) / 4),
        ("all-to-all", 3, (0 + 1 + 1) / 3),
        ("all-reduce", None, 2),
    ],
)
def test_what_a_device_of_a_ring_sends(kind, members, share):
    assert hlo_cost.sent_share(kind, members) == pytest.approx(share)


# A product as TPUs have it: within the fusion, each operand goes through a fusion of its own.
NESTED = """\
%handed_on (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %b = bf16[8,4]{1,0} bitcast(%a)
}

%sliced (c: bf16[4,16]) -> bf16[4,2] {
  %c = bf16[4,16]{1,0} parameter(0)
  ROOT %d = bf16[4,2]{1,0} slice(%c), slice={[0:4], [0:2]}
}

%product (left: bf16[8,4], right: bf16[4,16]) -> bf16[8,2] {
  %left = bf16[8,4]{1,0} parameter(0)
  %right = bf16[4,16]{1,0} parameter(1)
  %e = bf16[8,4]{1,0} fusion(%left), kind=kLoop, calls=%handed_on
  %f = bf16[4,2]{1,0} fusion(%right), kind=kLoop, calls=%sliced
  ROOT %g = bf16[8,2]{1,0} convolution(%e, %f), dim_labels=bf_io->bf
}

%turned (h: bf16[8,2]) -> bf16[8,2] {
  %h = bf16[8,2]{1,0} parameter(0)
  ROOT %i = bf16[8,2]{0,1} copy(%h)
}

ENTRY %main (x: bf16[8,4], w: bf16[4,16]) -> bf16[8,2] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = bf16[4,16]{1,0} parameter(1)
  %j = bf16[8,2]{1,0} fusion(%x, %w), kind=kOutput, calls=%product
  ROOT %k = bf16[8,2]{0,1} fusion(%j), kind=kLoop, calls=%turned
}
"""


def test_fusions_within_fusions_read_what_they_are_given():
    counted = hlo_cost.cost_of(hlo.parse(NESTED))
    assert counted.flops == 2 * 8 * 4 * 2
    # All of x, a slice of w and the product; then the product again, and its copy.
    assert counted.bytes == 2 * (8 * 4 + 4 * 2 + 8 * 2) + 2 * (8 * 2 + 8 * 2)


def test_what_tpus_read_and_send_for_a_product():
    """By hand: 512 x 1024 and 1024 x 256 in bfloat16, contracted over four chips."""
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'ait-jax[plan]'")
    from ait_jax.plan import topology

    partitioner = topology.PlannedPartitioner(4, given_devices=topology.devices_of("v5e:2x2"))

    def placed(shape, *axes):
        sharding = NamedSharding(partitioner.mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)

    arguments = placed((512, 1024), None, "model"), placed((1024, 256), "model", None)
    everywhere = NamedSharding(partitioner.mesh, PartitionSpec())
    compiled = jax.jit(jnp.dot, out_shardings=everywhere).lower(*arguments).compile()
    counted = hlo_cost.cost_of(hlo.parse(compiled.as_text()))
    assert counted.flops == 2 * 512 * 256 * 1024 / 4
    assert counted.collectives["all-reduce"]["count"] == len(counted.collectives) == 1
    assert counted.collectives["all-reduce"]["sent_bytes"] == 2 * 3 / 4 * 512 * 256 * 2
    operands, result = (512 + 256) * 1024 / 4 * 2, 512 * 256 * 2
    # What is summed may lie beside the cores before.
    assert operands + result <= counted.bytes <= operands + 3 * result


def test_what_lies_beside_the_cores_is_no_traffic():
    (shape,) = hlo.shapes_in("bf16[6,512]{1,0:T(8,128)(2,1)S(1)}")
    assert shape.bytes == 6 * 512 * 2 and shape.memory_bytes == 0
    inside, outside = hlo.shapes_in("(f32[4]{0:S(1)}, /*index=1*/s32[2,2]{1,0:T(2,128)})")
    assert (inside.memory_bytes, outside.memory_bytes) == (0, 16)


KERNEL = """
ENTRY %main (q: bf16[8,64], k: bf16[32,64]) -> bf16[8,64] {
  %q = bf16[8,64]{1,0} parameter(0)
  %k = bf16[32,64]{1,0:S(1)} parameter(1)
  ROOT %out = bf16[8,64]{1,0} custom-call(%q, %k), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"body":"TUzvUg==","cost_estimate":{"flops":"65536",\
"transcendentals":"256","bytes_accessed":"6144"},"serialization_format":"1"}}
}
"""


def test_a_kernel_computes_what_it_says():
    counted = hlo_cost.cost_of(hlo.parse(KERNEL.replace("\\\n", "")))
    assert counted.flops == 65536
    assert counted.bytes == 2 * (8 * 64 + 8 * 64)  # the keys lie beside the cores


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("nothing here")


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_transformer_has_the_flops_that_are_said_of_it(scan_layers):
    config = dataclasses.replace(
        TINY, num_encoder_layers=3, num_decoder_layers=2, scan_layers=scan_layers
    )
    model, params = model_and_params(config)
    rows, source, target = 4, 24, 12

    def logits(params, prompts, answers):
        return model.apply({"params": params}, prompts, answers, answers, enable_dropout=False)

    tokens = [jax.ShapeDtypeStruct((rows, n), np.int32) for n in (source, target)]
    counted = cost(logits, params, *tokens).flops
    # The causal half of decoder self-attention is computed and masked.
    causal = 2.0 * rows * config.num_decoder_layers * target**2 * config.num_heads * config.head_dim
    assert counted == rows * config.flops_per_example(source, target) + causal


def test_devices_share_the_flops():
    model, params = model_and_params(TINY)
    partitioner = OnDevices(num_partitions=2, num_devices=8)
    tokens = jax.ShapeDtypeStruct((8, 16), np.int32, sharding=partitioner.batch_sharding)
    with partitioner.activate():
        encode = jax.jit(
            lambda params, x: model.apply(
                {"params": params}, x, enable_dropout=False, method=Transformer.encode
            )
        )
        text = encode.lower(params, tokens).compile().as_text()
    whole = cost(
        lambda params, x: model.apply(
            {"params": params}, x, enable_dropout=False, method=Transformer.encode
        ),
        params,
        jax.ShapeDtypeStruct((8, 16), np.int32),
    )
    assert hlo_cost.cost_of(hlo.parse(text)).flops == pytest.approx(whole.flops / 8, rel=0.01)
