"""`ait-jax plan` on the devices at hand: what it compiles, says, suggests and adds up."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.plan import plan, programs
from ait_jax.plan import planned as planned_parts
from ait_jax.plan.planned import DECODE, FORCE, TRAIN, hours_of
from ait_jax.runtime import hardware, reporter

pytestmark = pytest.mark.usefixtures("clean_gin")

# T5X's tiny model, whose vocabulary is not there: nothing asks for it.
FILES = ("experiments/mini.gin", "models/t5_1_1_tiny.gin")
SMALL = (
    "mini.load_pool.instances_per_task = 2",
    "TOKENS_PER_BATCH = 2048",
    "INPUT_LENGTHS = (96,)",
    "MAX_SOURCE_LENGTH = 96",
)
CHIP = hardware.Chip(1e12, 2**30, 1e11, 1e10)


@pytest.fixture(autouse=True)
def chip(monkeypatch):
    monkeypatch.setattr(plan, "local_chip", lambda: CHIP)


def planned(*bindings, files=FILES, **options):
    lines: list[str] = []
    with reporter.using(reporter.Reporter(line=lines.append)):
        made = plan.run(GinFlags(files, (*SMALL, *bindings)), plan.Options(**options))
    return made, "\n".join(lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The plan of the module's configuration, what it printed, and its JSON."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    original, plan.local_chip = plan.local_chip, lambda: CHIP
    try:
        found, text = planned("NUM_PARTITIONS = 2", search=False, json=str(path))
    finally:
        plan.local_chip = original
    return found, text, json.loads(path.read_text())


def test_every_program_is_compiled_for_the_whole_mesh(made):
    found, text, _ = made
    assert list(found.programs) == [TRAIN, FORCE, DECODE]
    assert {program.chips for program in found.programs.values()} == {jax.device_count()} == {8}
    assert found.programs[TRAIN].rows == 16
    # 2048 tokens are 21 rows of 96, of which the mesh's 4 shards divide 20; decoding takes 42.
    assert (found.programs[FORCE].rows, found.programs[DECODE].rows) == (20, 40)
    assert "mesh data 4 x model 2" in text and text.count(": fits") == 3


def test_the_flops_are_the_models_own(made):
    found, _, _ = made
    train, config = found.programs[TRAIN], found.planned.model.config
    assert train.ideal_flops == 3 * config.flops_per_example(96, 16) * 16 / 8
    # So small a model has parts that every device does alike.
    assert -0.01 < train.over_ideal < 0.25
    assert -0.1 < found.programs[DECODE].over_ideal < 0.5
    assert found.programs[FORCE].seconds["FLOPs"] == found.programs[FORCE].flops / CHIP.flops


def test_the_weights_are_the_parameters(made):
    found, _, _ = made
    bytes_of_all = 4 * num_params(abstract_params(found.planned.model)[0])
    memory = found.programs[TRAIN].memory
    # Over 2 parts, but for the norms; Adafactor's state of small matrices is as large again.
    assert bytes_of_all / 2 < memory.weights < bytes_of_all / 2 * 1.05
    assert memory.weights * 0.9 < memory.optimizer < memory.weights * 1.2
    assert memory.temporaries > 0 and memory.capacity == CHIP.memory


def test_collectives_are_counted(made):
    train = made[0].programs[TRAIN]
    assert train.collectives["all-reduce"]["count"] > 2
    sent = sum(entry["sent_bytes"] for entry in train.collectives.values())
    assert train.seconds["links"] == pytest.approx(sent / CHIP.link_bandwidth)
    # The gradients, at least, meet over 'data'.
    assert train.collectives["all-reduce"]["bytes"] > train.memory.weights


def test_a_decoder_only_model_is_planned():
    """Its sizes made small; its vocabulary need not be there."""
    sizes = {"vocab_size": 128, "emb_dim": 32, "num_heads": 4, "num_kv_heads": 1, "head_dim": 16,
             "num_layers": 2, "mlp_dim": 96}  # fmt: skip
    found, text = planned(
        "NUM_PARTITIONS = 2",
        "VOCABULARY_PATH = 'absent'",
        *(f"llama.LlamaConfig.{name} = {value}" for name, value in sizes.items()),
        files=("experiments/mini.gin", "models/smollm2_135m.gin"),
        search=False,
    )
    config, train = found.planned.model.config, found.programs[TRAIN]
    assert list(found.programs) == [TRAIN, FORCE, DECODE] and text.count(": fits") == 3
    assert train.ideal_flops == 3 * config.flops_per_example(96, 16) * 16 / 8
    assert -0.01 < train.over_ideal < 0.4
    assert -0.1 < found.programs[FORCE].over_ideal < 0.4
    assert "only the pool tells how much that is: not counted" in text


def test_what_prompts_share_is_measured_on_the_pool(made):
    words = ("VOCABULARY = @vocabulary.Vocabulary()", "VOCABULARY_PATH = @assets.mini_vocabulary()")
    files = ("experiments/mini.gin", "models/smollm2_135m.gin")
    wanted = planned_parts.planned(GinFlags(files, (*SMALL, *words)), "")
    # Every form of an instruction stands before 2 instances; half of what it costs is saved.
    assert 0.3 < wanted.workload.shared_decoded < 0.5
    assert 0.3 < wanted.workload.shared_forced < 0.5
    alone = dataclasses.replace(wanted.workload, shared_forced=0.0, shared_decoded=0.0)
    compiled = {name: made[0].programs[name] for name in (TRAIN, FORCE, DECODE)}
    with_sharing = hours_of(wanted, compiled, 0.5)
    without = hours_of(dataclasses.replace(wanted, workload=alone), compiled, 0.5)
    assert without.by_stage["train"] == with_sharing.by_stage["train"]
    assert 0.5 < with_sharing.by_stage["score"] / without.by_stage["score"] < 0.7


def test_json_has_what_is_printed(made):
    found, text, saved = made
    assert saved["device"] == "8 x cpu" and saved["topology"] is None
    train = saved["stages"][TRAIN]
    assert train["fits"] and train["memory"]["total"] == found.programs[TRAIN].memory.total
    assert train["bound"] in text and train["settings"]["BATCH_SIZE"] == 16
    hours = saved["chip_hours"]
    assert hours["total"] == pytest.approx(sum(hours["by_stage"].values()))
    assert f"{saved['workload']['tasks']:,} tasks" in text


def test_chip_hours_add_up(made):
    found, _, _ = made
    compiled, work = found.programs, found.planned.workload
    half = hours_of(found.planned, compiled, 0.5)
    whole = hours_of(found.planned, compiled, 1.0)
    assert half.total == pytest.approx(2 * whole.total)
    assert half.tasks_per_chip_hour == pytest.approx(whole.tasks_per_chip_hour / 2)
    # 3 rounds on 16, 40 and 64 tasks of 24 instances, 2 epochs of batches of 16.
    steps = sum(2 * int(np.ceil(tasks * 24 / 16)) for tasks in (16, 40, 64))
    assert whole.by_stage["train"] == pytest.approx(steps * compiled[TRAIN].roofline * 8 / 3600)
    # Two selections, from what the training tasks leave.
    left = sum(work.tasks - work.dev_tasks - chosen for chosen in (16, 40))
    assert whole.by_stage["score"] == pytest.approx(left / whole.tasks_per_chip_hour)


def test_a_missing_pool_is_assumed_and_numbers_may_be_given():
    found, _text = planned(
        "DATA_DIR = 'nowhere'",
        files=("experiments/mini.gin", "pools/niv2.gin", "models/t5_1_1_tiny.gin"),
        stages=[DECODE],
        search=False,
        tasks=1000,
        prompt_tokens=50,
    )
    work = found.planned.workload
    assert (work.tasks, work.prompt_tokens, work.test_tasks) == (1000, 50, 119)
    assert "NIV2 is not prepared in 'nowhere'" in work.source
    assert "given: prompt_tokens, tasks" in work.source
    assert found.hours is None and list(found.programs) == [DECODE]


def test_what_does_not_fit_is_told_by_how_much(monkeypatch):
    small = CHIP._replace(memory=2**20)
    monkeypatch.setattr(plan, "local_chip", lambda: small)
    found, text = planned(stages=[FORCE], search=False)
    program = found.programs[FORCE]
    assert not program.fits
    assert program.memory.excess == program.memory.total - 2**20 > 0
    assert "GiB TOO MUCH" in text and "teacher forcing does not fit." in text
    assert "TOKENS_PER_BATCH" in text and found.hours is None


@pytest.mark.benchmark
def test_what_fits_is_found_by_compiling(monkeypatch):
    whole, _ = planned("BATCH_SIZE = 64", stages=[TRAIN], search=False)
    memory = whole.programs[TRAIN].memory.total * 0.7
    monkeypatch.setattr(programs, "REMAT_POLICIES", ("none", "full"))
    monkeypatch.setattr(plan, "local_chip", lambda: CHIP._replace(memory=memory))
    found, text = planned("BATCH_SIZE = 64", stages=[TRAIN])
    assert not found.programs[TRAIN].fits
    best = found.suggestions[TRAIN]
    assert best.fits and best.rows == 64 and best.memory.total <= memory
    settings = best.settings
    assert settings["NUM_MICROBATCHES"] > 1 or settings["REMAT_POLICY"] != "none"
    assert f"--gin.NUM_MICROBATCHES={settings['NUM_MICROBATCHES']}" in text
    assert "tried train step" in text


def test_the_largest_scoring_batch(monkeypatch):
    monkeypatch.setattr(plan, "local_chip", lambda: CHIP._replace(memory=64 * 2**20))
    found, text = planned(stages=[FORCE])
    best = found.suggestions[FORCE]
    assert best.fits and best.settings["TOKENS_PER_BATCH"] > 2048
    assert f"teacher forcing: --gin.TOKENS_PER_BATCH={best.settings['TOKENS_PER_BATCH']}" in text


def test_scoring_and_pretraining_have_the_programs_that_they_run():
    score, _ = planned(files=("experiments/score.gin",), stages=[TRAIN], search=False)
    assert not score.programs and score.planned.trainer is None
    files = ("experiments/mini_base.gin", "models/t5_1_1_tiny.gin")
    found = plan.run(GinFlags(files, ()), plan.Options(search=False))
    assert list(found.programs) == [TRAIN] and found.programs[TRAIN].lengths == (64, 24)
    assert list(found.hours.by_stage) == ["train"]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"stages": ["train"]},
            "--stages=train must be one or more of .*Did you mean 'train step'",
        ),
        ({"efficiency": 1.5}, "--efficiency=1.5"),
        ({"tasks": 0}, "--tasks=0 must be at least 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        plan.Options(**options)


def test_a_configuration_of_nothing(tmp_path):
    (tmp_path / "empty.gin").write_text("# nothing\n")
    with pytest.raises(UserError, match="configure no experiment"):
        plan.run(GinFlags((str(tmp_path / "empty.gin"),), ()), plan.Options())
