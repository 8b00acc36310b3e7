"""The limits of devices: for model-FLOP utilization, and for plans of devices not at hand."""

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Chip(NamedTuple):
    """The limits of one JAX device: a chip, but half of one on TPU v2 and v3.

    Attributes:
      flops: dense bf16 FLOP/s.
      memory: bytes of HBM.
      memory_bandwidth: bytes/s to and from HBM.
      link_bandwidth: bytes/s that a chip sends in a ring of chips: both directions of one
        axis of a TPU's torus; one direction of NVLink on GPUs.
    """

    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float


_GIB = 2**30
# By JAX's device_kind; the longest matching name wins.
#
# FLOP/s, HBM and its bandwidth, of TPUs: docs.cloud.google.com/tpu/docs/v2, v3 (halved, a device is
# one of two cores), v4, v5e, v5p and v6e. The pages say GB or GiB; XLA has 15.75 GiB of v5e's 16.
# Links of TPUs: jax-ml.github.io/scaling-book/tpus, both directions of an axis: v4 and v5e 2 x 45
# GB/s, v5p and v6e 2 x 90, nine tenths of what Google's pages give for all axes (v5e 400, v5p 1200,
# v6e 800 GB/s a chip in both senses, over 4, 6 and 4 links). v2 and v3: four links of 62 and 82
# GB/s a chip (Norrie et al., The Design Process for Google's Training Chips: TPUv2 and TPUv3).
# This holds for an axis that closes to a ring: on v5e and v6e only one of 16 chips, on v4 and v5p
# multiples of 4. Collectives over shorter axes take up to twice as long, over several axes less.
# GPUs: NVIDIA's data sheets of A100, H100 and H200; SXM modules unless the name says another.
CHIPS = {
    "TPU v2": Chip(22.5e12, 8 * _GIB, 350e9, 60e9),
    "TPU v3": Chip(61.5e12, 16 * _GIB, 450e9, 80e9),
    "TPU v4": Chip(275e12, 32 * _GIB, 1228e9, 90e9),
    "TPU v5 lite": Chip(197e12, 16 * _GIB, 819e9, 90e9),
    "TPU v5e": Chip(197e12, 16 * _GIB, 819e9, 90e9),
    "TPU v5": Chip(459e12, 95 * _GIB, 2765e9, 180e9),
    "TPU v5p": Chip(459e12, 95 * _GIB, 2765e9, 180e9),
    "TPU v6 lite": Chip(918e12, 32 * _GIB, 1600e9, 180e9),
    "TPU v6e": Chip(918e12, 32 * _GIB, 1600e9, 180e9),
    "NVIDIA A100": Chip(312e12, 80e9, 2039e9, 300e9),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40e9, 1555e9, 300e9),
    "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 450e9),
    "NVIDIA H100 PCIe": Chip(756e12, 80e9, 2000e9, 300e9),
    "NVIDIA H100 NVL": Chip(835e12, 94e9, 3900e9, 300e9),
    "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 450e9),
}


def known_chip(device_kind: str) -> Chip | None:
    """Returns the table's row for JAX's name of a device, None if it has none."""
    names = [name for name in CHIPS if device_kind.startswith(name)]
    return CHIPS[max(names, key=len)] if names else None


def local_chip() -> Chip:
    """Returns the limits of one of this process's devices, measured if the table lacks it.

    Virtual CPU devices share cores and memory, so each counts only its part.
    """
    device = jax.devices()[0]
    chip = known_chip(device.device_kind)
    if chip is None:
        bandwidth = _measured_copy_bandwidth()
        shared = jax.device_count() if device.platform == "cpu" else 1
        flops, memory = peak_flops() / jax.device_count(), _host_memory() / shared
        chip = Chip(flops, memory, bandwidth / shared, bandwidth / shared)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return chip._replace(memory=limit) if limit and device.platform != "cpu" else chip


def target_platform() -> str:
    """Returns "cpu", "gpu" or "tpu": the platform that a program traced now is compiled for.

    That is the platform of the mesh in use (`jax.set_mesh`), whose devices need not be at hand,
    or the default one.
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return platform_of(device.device_kind) if device is not None else jax.default_backend()


def platform_of(device_kind: str) -> str:
    """Returns the platform for JAX's name of a kind of device."""
    kind = device_kind.lower()
    return "tpu" if kind.startswith("tpu") else "cpu" if kind == "cpu" else "gpu"


def options_of_large_products(platform: str, dtype: Any) -> dict[str, str]:
    """Returns XLA's options for programs that spend their time on large products of `dtype`.

    On a CPU, XLA gives products and reductions to YNNPACK. Float32 products of thousands of rows
    are faster in Eigen (2 cores of an Intel Xeon with AVX-512: 2,080 and 3,700 x 576 x 1,536 at 225
    and 245 instead of 200 and 180 GFLOP/s); a dozen rows times a token table, and reductions, are
    not. Bfloat16 products were not tried. The rule is fixed, because the choice changes last bits.
    """
    if platform != "cpu" or jnp.dtype(dtype) != jnp.float32:
        return {}
    option = ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
    return dict([option]) if _is_known(*option) else {}


@cache
def _is_known(option: str, value: str) -> bool:
    """Says whether this version of XLA has an option; experimental ones may go."""
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def devices_held() -> dict[str, int | str]:
    """Returns how many devices all processes hold together, and JAX's name of their kind."""
    return {"devices": jax.device_count(), "device_kind": jax.devices()[0].device_kind}


@cache
def peak_flops() -> float:
    """Returns the FLOP/s of all devices together.

    They come from the table for known accelerators, and from one large float32 matrix
    multiplication (a quarter of a second, once per process) for CPUs and unknown devices.
    """
    device = jax.devices()[0]
    chip = known_chip(device.device_kind)
    if chip is not None:
        return chip.flops * jax.device_count()
    # Virtual CPU devices share cores: one measurement covers the whole machine.
    return _measured_matmul_flops() * (1 if device.platform == "cpu" else jax.device_count())


def _measured_matmul_flops(size: int = 1536, repeats: int = 3) -> float:
    matmul = jax.jit(jnp.dot)
    a = jnp.ones((size, size), jnp.float32)
    matmul(a, a).block_until_ready()
    return 2 * size**3 / _shortest(lambda: matmul(a, a).block_until_ready(), repeats)


@cache
def _measured_copy_bandwidth(size: int = 2**26, repeats: int = 5) -> float:
    values, copy = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / _shortest(lambda: np.copyto(copy, values), repeats)


def _shortest(work: Callable[[], Any], repeats: int) -> float:
    """Returns the seconds of the fastest call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _host_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
