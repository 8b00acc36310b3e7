"""compiled_program.py: what XLA says of programs that do not fit."""

import jax
import pytest

from ait_jax.plan.compiled_program import bytes_per_chip, measure
from ait_jax.runtime.hardware import Chip
from ait_jax.runtime.partitioning import Partitioner

GIB = 2**30
CHIP = Chip(1e12, 16 * GIB, 1e12, 1e11)
DESCRIBED = {"rows": 8, "lengths": (16, 4), "chips": 8, "ideal_flops": 1.0}


@pytest.mark.parametrize(
    "message, total",
    [
        ("Ran out of memory in memory space hbm. Used 34.50G of 15.75G hbm. Too much.", 34.5),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (20.00G) "
            "exceeds available HBM (15.75G).",
            22.0,
        ),
    ],
)
def test_by_how_much_a_program_does_not_fit(message, total):
    def compile():
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")

    program = measure("decode", compile, CHIP, weights=2 * GIB, **DESCRIBED)
    assert not program.fits and program.flops is None
    assert program.memory.total == pytest.approx(total * GIB)
    assert program.memory.excess == pytest.approx((total - 15.75) * GIB)


def test_other_errors_stay_errors():
    def compile():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        measure("decode", compile, CHIP, weights=0.0, **DESCRIBED)


def test_bytes_of_a_chip_are_those_of_its_parts():
    partitioner = Partitioner(2)
    leaves = [
        jax.ShapeDtypeStruct((8, 6), "float32", sharding=partitioner.batch_sharding),
        jax.ShapeDtypeStruct((10,), "bfloat16", sharding=partitioner.replicated),
    ]
    assert bytes_per_chip(leaves) == 2 * 6 * 4 + 10 * 2
