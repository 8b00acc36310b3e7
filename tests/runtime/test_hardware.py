"""Peak FLOP/s: the table for known accelerators, a measurement for the rest."""

from types import SimpleNamespace

import jax
import pytest

from ait_jax.runtime import hardware


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
        ("NVIDIA H100 PCIe", 756),
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


@pytest.mark.parametrize(
    "kind, axes, gigabytes",
    # Google's pages: bidirectional interconnect of a chip, over all its links.
    [("TPU v5e", 2, 400), ("TPU v5p", 3, 1200), ("TPU v6e", 2, 800)],
)
def test_links_are_what_one_axis_has_of_a_chips(kind, axes, gigabytes):
    sent_on_an_axis = gigabytes * 1e9 / 2 / axes
    assert hardware.CHIPS[kind].link_bandwidth == pytest.approx(0.9 * sent_on_an_axis)


def test_every_chip_has_all_its_limits():
    for name, chip in hardware.CHIPS.items():
        assert chip.flops > 2e13 and chip.memory >= 8 * 2**30, name
        # FLOPs per byte of memory, and bytes of memory per byte of links, are of an order.
        assert 30 < chip.flops / chip.memory_bandwidth < 700, name
        assert 3 < chip.memory_bandwidth / chip.link_bandwidth < 25, name
    assert hardware.known_chip("TPU v5 lite") == hardware.CHIPS["TPU v5e"]
    assert hardware.known_chip("cpu") is None


def test_a_cpu_is_measured_and_shared():
    chip = hardware.local_chip()
    assert chip.flops == pytest.approx(hardware.peak_flops() / jax.device_count())
    assert chip.memory * jax.device_count() == hardware._host_memory() > 2**28
    assert 1e7 < chip.memory_bandwidth < 1e13


def test_what_is_traced_is_for_the_mesh_in_use(monkeypatch):
    assert hardware.target_platform() == "cpu"
    kinds = {"cpu": "cpu", "TPU v5 lite": "tpu", "NVIDIA H100 80GB HBM3": "gpu"}
    assert {kind: hardware.platform_of(kind) for kind in kinds} == kinds
    elsewhere = SimpleNamespace(abstract_device=SimpleNamespace(device_kind="TPU v5 lite"))
    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda: elsewhere)
    assert hardware.target_platform() == "tpu"


def test_options_are_for_float32_on_a_cpu_and_known(monkeypatch):
    found = hardware.options_of_large_products("cpu", "float32")
    assert found  # of the version that is tested
    product = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((512, 512), "float32"))
    assert "ynn" not in product.compile(compiler_options=found).as_text()
    sums = jax.jit(lambda x: x.sum(0)).lower(jax.ShapeDtypeStruct((64, 512), "float32"))
    of_training = hardware.options_of_training("cpu", "float32")
    assert "ynn" in sums.compile().as_text()
    assert "ynn" not in sums.compile(compiler_options=of_training).as_text()
    for options in (hardware.options_of_large_products, hardware.options_of_training):
        assert not options("cpu", "bfloat16") and not options("tpu", "float32")
    monkeypatch.setattr(hardware, "_is_known", lambda option, value: False)
    assert not hardware.options_of_large_products("cpu", "float32")
    assert not hardware.options_of_training("cpu", "float32")


def test_an_option_that_xla_does_not_know_is_not_known():
    assert not hardware._is_known("xla_cpu_no_such_option", "1")
