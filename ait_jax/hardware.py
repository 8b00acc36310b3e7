"""What the devices at hand can do at most, for model-FLOP utilisation."""

import time
from functools import cache

import jax
import jax.numpy as jnp

# Dense bf16 FLOP/s of one JAX device, from the makers' data sheets; the longest matching name
# wins. A device is a chip, but half of one on TPU v2 and v3.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


@cache
def peak_flops() -> float:
    """Returns the FLOP/s of all devices together.

    From the table above for known accelerators; measured with one large float32 matrix
    multiplication (a quarter of a second, once per process) for CPUs and unknown devices.
    """
    device = jax.devices()[0]
    known = [name for name in PEAK_FLOPS if device.device_kind.startswith(name)]
    if known:
        return PEAK_FLOPS[max(known, key=len)] * jax.device_count()
    # Virtual CPU devices share the same cores: one measurement is the whole machine.
    return _measured_matmul_flops() * (1 if device.platform == "cpu" else jax.device_count())


def _measured_matmul_flops(size: int = 1536, repeats: int = 3) -> float:
    matmul = jax.jit(jnp.dot)
    a = jnp.ones((size, size), jnp.float32)
    matmul(a, a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
