"""Plans of TPU slices that nobody holds: T5 XXL fits, and does the model's FLOPs and no more.

XXL's own widths and rules, on 8 chips with two layers of each stack. Every layer is the same
program, one compiled body that is looped, so the share of FLOPs beyond the ideal is that of 24
layers; eight chips are the mesh's 'model' axis, so parameters lie over that alone. With
-m benchmark (minutes of compiling) all 24 layers go to v5e-256 and to v5p slices of 64 chips
(Google's v5p-128) and 128.
"""

import importlib.util

import pytest

from ait_jax.config.gin_flags import GinFlags
from ait_jax.plan import plan
from ait_jax.plan.planned import FORCE, TRAIN

pytestmark = [
    pytest.mark.usefixtures("clean_gin"),
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="needs the TPU compiler: pip install 'ait-jax[plan]'",
    ),
]

FILES = ("experiments/niv2_paper.gin", "models/xxl.gin", "partitioning/fsdp_2d.gin")


def planned(topology, *bindings):
    values = ("OPTIMIZER = @optimizer.adafactor", *bindings)
    options = plan.Options(topology=topology, stages=[TRAIN, FORCE], search=False, quick=True)
    return plan.run(GinFlags(FILES, values), options)


def check(made):
    for program in made.programs.values():
        assert program.fits
        assert abs(program.over_ideal) < 0.05, program.name
    train = made.programs[TRAIN]
    assert 0.2 < train.recomputed_flops / train.ideal_flops < 1 / 3
    assert {"all-gather", "collective-permute"} <= train.collectives.keys()


@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x2"])
def test_xxl_stays_at_its_flops(topology):
    made = planned(
        topology,
        "T5Config.num_encoder_layers = 2",
        "T5Config.num_decoder_layers = 2",
        "DROPOUT_RATE = 0.0",
        "BATCH_SIZE = 8",
        "TOKENS_PER_BATCH = 8192",
    )
    check(made)
    # What a layer keeps for the backward pass is its input; the other 22 of both stacks, whose
    # weights 256 or 128 chips share, leave room.
    train = made.programs[TRAIN]
    kept = 22 * 8 * (1024 + 128) * 4096 * 2 / 8
    assert train.memory.total + kept < train.memory.capacity


@pytest.mark.benchmark
@pytest.mark.parametrize(
    "topology, chips", [("v5e:16x16", 256), ("v5p:4x4x4", 64), ("v5p:4x4x8", 128)]
)
def test_xxl_on_pods(topology, chips):
    made = planned(topology, f"BATCH_SIZE = {chips}", f"TOKENS_PER_BATCH = {1024 * chips}")
    check(made)
    assert {program.chips for program in made.programs.values()} == {chips}


def test_what_cannot_fit_is_told_by_how_much(said):
    values = ("OPTIMIZER = @optimizer.adafactor", "NUM_PARTITIONS = 4", "BATCH_SIZE = 4")
    options = plan.Options(topology="v5e:2x2", stages=[TRAIN], search=False)
    made = plan.run(GinFlags(FILES, values), options)
    program = made.programs[TRAIN]
    assert not program.fits and program.memory.excess > 2**30
    text = "\n".join(said)
    assert "GiB TOO MUCH" in text and "use 16 such chips or more" in text
