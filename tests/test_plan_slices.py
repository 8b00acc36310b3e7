"""Plans of TPU slices that nobody holds: T5 XXL fits, and does the model's FLOPs and no more.

XXL's own widths and rules on 16 chips (v5e) and 8 chips (v5p) instead of 256 and 128, with two
layers of each stack: every layer's program is the same, one compiled body that is looped, so the
share of FLOPs beyond the ideal is that of 24 layers. Memory is held against the chip's for all 24.
"""

import importlib.util

import pytest

from ait_jax import plan
from ait_jax.configuration import GinFlags
from ait_jax.plan_stages import DECODE, FORCE, TRAIN

pytestmark = [
    pytest.mark.usefixtures("clean_gin"),
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="needs the TPU compiler: pip install 'ait-jax[plan]'",
    ),
]

FILES = ("experiments/niv2_paper.gin", "models/xxl.gin", "partitioning/fsdp_2d.gin")
LAYERS = 2


def planned(topology, *bindings, stages):
    values = (
        "OPTIMIZER = @optimizer.adafactor",
        f"T5Config.num_encoder_layers = {LAYERS}",
        f"T5Config.num_decoder_layers = {LAYERS}",
        "DROPOUT_RATE = 0.0",
        *bindings,
    )
    options = plan.Options(topology=topology, stages=stages, search=False)
    return plan.run(GinFlags(FILES, values), options, lambda line: None)


@pytest.mark.parametrize(
    "topology, partitions, rows", [("v5e:4x4", 8, 16), ("v5p:2x2x2", 4, 8)]
)
def test_xxl_trains_and_scores(topology, partitions, rows):
    made = planned(
        topology,
        f"NUM_PARTITIONS = {partitions}",
        f"BATCH_SIZE = {rows}",
        f"TOKENS_PER_BATCH = {1024 * rows}",
        stages=[TRAIN, FORCE],
    )
    for stage in made.stages.values():
        assert stage.fits
        assert abs(stage.over_ideal) < 0.05, stage.name
    train = made.stages[TRAIN]
    assert train.recomputed_flops > 0.2 * train.ideal_flops
    assert {"all-gather", "reduce-scatter"} & train.collectives.keys()
    # 24 layers on as many chips as the goal names: weights, gradients and moments shrink with
    # the chips; what a layer keeps for the backward pass (its input) does not.
    chips = {"v5e:4x4": 256, "v5p:2x2x2": 128}[topology]
    state = 2 * 4 * 11.14e9 / chips
    kept = (24 - LAYERS) * 2 * rows / train.chips * 1152 * 4096 * 2
    assert state + train.memory.temporaries + kept < 0.8 * train.memory.capacity


def test_what_cannot_fit_is_told_by_how_much():
    lines = []
    values = ("OPTIMIZER = @optimizer.adafactor", "NUM_PARTITIONS = 4", "BATCH_SIZE = 4")
    options = plan.Options(topology="v5e:2x2", stages=[TRAIN], search=False)
    made = plan.run(GinFlags(FILES, values), options, lines.append)
    stage = made.stages[TRAIN]
    assert not stage.fits and stage.memory.excess > 2**30
    text = "\n".join(lines)
    assert "GiB TOO MUCH" in text and "use 16 such chips or more" in text
