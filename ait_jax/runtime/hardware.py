"""The limits of devices: for model-FLOP utilization, and for plans of devices not at hand."""

import os
import time
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
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


_TABLE = tomllib.loads(Path(__file__).with_name("chips.toml").read_text(encoding="utf-8"))
# By JAX's device_kind; the longest matching name wins.
CHIPS = {name: Chip(*limits) for name, limits in _TABLE.items()}


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
    return _options_for_ynn(platform, dtype, "LIBRARY_FUSION_TYPE_REDUCE")


def options_of_training(platform: str, dtype: Any) -> dict[str, str]:
    """Returns XLA's options for a step of training in `dtype`.

    On a CPU, YNNPACK is slow at a backward pass's sums over rows: without them, a gradient takes
    0.78 (the mini model) or 0.85 (T5 1.1 small, 8 x 512 tokens) of the time. Only float32
    was tried; `options_of_large_products` tells why the rule is fixed.
    """
    return _options_for_ynn(platform, dtype, "LIBRARY_FUSION_TYPE_DOT")


def _options_for_ynn(platform: str, dtype: Any, fusions: str) -> dict[str, str]:
    if platform != "cpu" or jnp.dtype(dtype) != jnp.float32:
        return {}
    option = ("xla_cpu_experimental_ynn_fusion_type", fusions)
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
