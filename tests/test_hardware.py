"""Peak FLOP/s: the table for known accelerators, a measurement for the rest."""

from types import SimpleNamespace

import jax
import pytest

from ait_jax import hardware


@pytest.fixture
def devices(monkeypatch):
    def set_devices(kind, count=1, platform="tpu"):
        device = SimpleNamespace(device_kind=kind, platform=platform)
        monkeypatch.setattr(jax, "devices", lambda: [device] * count)
        monkeypatch.setattr(jax, "device_count", lambda: count)
        hardware.peak_flops.cache_clear()

    yield set_devices
    hardware.peak_flops.cache_clear()


@pytest.mark.parametrize(
    "kind, tera",
    [
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
    ],
)
def test_known_devices(devices, kind, tera):
    devices(kind)
    assert hardware.peak_flops() == pytest.approx(tera * 1e12)
    devices(kind, count=8)
    assert hardware.peak_flops() == pytest.approx(8 * tera * 1e12)


def test_unknown_devices_are_measured_and_cpus_share_their_cores(devices, monkeypatch):
    monkeypatch.setattr(hardware, "_measured_matmul_flops", lambda: 5e9)
    devices("Some accelerator", count=4, platform="gpu")
    assert hardware.peak_flops() == 20e9
    devices("cpu", count=8, platform="cpu")
    assert hardware.peak_flops() == 5e9


def test_the_measurement_counts_multiplications_and_additions(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(ticks) / 4)
    assert hardware._measured_matmul_flops(size=8, repeats=2) == 2 * 8**3 * 4


def test_a_real_measurement_is_plausible():
    assert 1e8 < hardware._measured_matmul_flops(size=256, repeats=2) < 1e15
