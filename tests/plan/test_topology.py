"""TPU slices by name."""

import importlib.util

import pytest

from ait_jax.errors import UserError
from ait_jax.plan import topology
from ait_jax.runtime.partitioning import Partitioner


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5:4x4", "'v5' must be one of v4, v5e, v5p, v6e. Did you mean"),
        ("v5e-256", "must be one of v4, v5e, v5p, v6e"),
        ("v5e:4x4x4", "a slice of v5e chips has 2 sizes, as in v5e:16x16"),
        ("v5p:4x4", "a slice of v5p chips has 3 sizes, as in v5p:4x4x8"),
        ("v5e:0x4", "2 sizes"),
    ],
)
def test_malformed_names(name, message):
    with pytest.raises(UserError, match=message):
        topology.devices_of(name)


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ait-jax\[plan\]'"):
        topology.devices_of("v5e:4x4")


def test_the_rules_on_other_devices():
    partitioner = topology.PlannedPartitioner(2, given_devices=Partitioner().devices[:4])
    assert dict(partitioner.mesh.shape) == {"data": 2, "model": 2}
    assert partitioner.logical_axis_rules == Partitioner().logical_axis_rules


def test_slices():
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install 'ait-jax[plan]'")
    for name, chips in (("v4:2x2x2", 8), ("v5e:4x4", 16), ("v5p:2x2x1", 4), ("v6e:1x1", 1)):
        assert len(topology.devices_of(name)) == chips
    with pytest.raises(UserError, match="v5e:3x7 is not a slice that libtpu knows"):
        topology.devices_of("v5e:3x7")
