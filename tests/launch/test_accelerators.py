"""launch/accelerators.py: names, chips, hosts, and the nearest valid one."""

import pytest
from ait_jax.launch import accelerators

from ait_jax.errors import UserError


@pytest.mark.parametrize(
    "name, api_name, chips, hosts, topology, image",
    [
        ("v4-8", "v4-8", 4, 1, "2x2x1", "tpu-ubuntu2204-base"),
        ("v4-64", "v4-64", 32, 8, "2x4x4", "tpu-ubuntu2204-base"),
        ("v5litepod-8", "v5litepod-8", 8, 1, "2x4", "v2-alpha-tpuv5-lite"),
        ("v5e-16", "v5litepod-16", 16, 4, "4x4", "v2-alpha-tpuv5-lite"),
        ("v5e-256", "v5litepod-256", 256, 64, "16x16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v5p-8", 4, 1, "2x2x1", "v2-alpha-tpuv5"),
        ("v5p-128", "v5p-128", 64, 16, "4x4x4", "v2-alpha-tpuv5"),
        ("v6e-1", "v6e-1", 1, 1, "1x1", "v2-alpha-tpuv6e"),
        ("v6e-256", "v6e-256", 256, 64, "16x16", "v2-alpha-tpuv6e"),
    ],
)
def test_slices(name, api_name, chips, hosts, topology, image):
    slice_ = accelerators.parse(name)
    assert (slice_.name, slice_.chips, slice_.hosts, slice_.topology) == (
        api_name, chips, hosts, topology,
    )  # fmt: skip
    assert slice_.generation.runtime_version == image


@pytest.mark.parametrize("generation", accelerators.GENERATIONS.values())
def test_the_table_holds_together(generation):
    sizes = []
    for topology in generation.topologies:
        slice_ = accelerators.Accelerator(generation, topology)
        assert slice_.chips_per_host * slice_.hosts == slice_.chips
        assert accelerators.parse(slice_.name) == slice_
        sizes.append(slice_.chips)
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("v5e-250", "Did you mean 'v5litepod-256'?"),
        ("v4-4", "Did you mean 'v4-8'? The number counts TensorCores, two per chip"),
        ("v5p-100", "Did you mean 'v5p-128'?"),
        ("v5-8", "Did you mean 'v5p'?"),
        ("tpu7x-128", "only GKE has"),
        ("v5e", "Give GENERATION-SIZE"),
        ("v2-8", "generations: v4"),
        ("", "Give GENERATION-SIZE"),
        ("v4-8; rm -rf /", "is not a TPU slice"),
    ],
)
def test_others_name_the_nearest(name, expected):
    with pytest.raises(UserError) as raised:
        accelerators.parse(name)
    assert expected in str(raised.value)
