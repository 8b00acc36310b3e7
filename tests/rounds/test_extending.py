"""README, "Make it yours": its files and commands, as they stand there."""

import json
import re
import shlex

import jax
import numpy as np
import pytest
from shared_data import REPOSITORY

from ait_jax import assets, cli
from ait_jax.commands import subcommand
from ait_jax.config import configuration
from ait_jax.config.gin_flags import split_flags
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.models.parameters import flatten
from ait_jax.pool.splits import read_names
from ait_jax.rounds.experiment import Experiment
from ait_jax.runtime.partitioning import Partitioner

README = REPOSITORY / "README.md"
SECTIONS = ("A pool", "A strategy", "A perturbation", "A model")
# A model and sizes that take no time; the examples' own settings stay.
TINY = """
ROUNDS = 2
INIT_CHECKPOINT = None
EVALUATE_BASE = False
EPOCHS = 1
MAX_INSTANCES_PER_TASK = 4
MAX_EVAL_INSTANCES = 2
MAX_DEV_INSTANCES = 2
NUM_INSTANCES = 2
NUM_PERTURBATIONS = 2
INPUT_LENGTHS = (160,)
LENGTH_GROWTH = 99.0
t5.T5Config.emb_dim = 16
t5.T5Config.num_heads = 2
t5.T5Config.head_dim = 8
t5.T5Config.mlp_dim = 32
t5.T5Config.num_encoder_layers = 1
t5.T5Config.num_decoder_layers = 1
"""

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Writes the section's files: (their folder, {title: arguments of its command})."""
    text = README.read_text()
    section = text[text.index("\n## Make it yours") :]
    section = section[: section.index("\n## ", 4)]
    folder = tmp_path_factory.mktemp("mine")
    found = {}
    for part in section.split("\n### ")[1:]:
        blocks = re.findall(r"^```\w*\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        names = re.findall(r"`(my_\w+\.(?:py|gin))`:$", part, re.MULTILINE)
        assert len(names) == 2 and len(blocks) == 3, part
        for name, block in zip(names, blocks[:2], strict=True):
            (folder / name).write_text(block)
        program, *found[part.splitlines()[0]] = shlex.split(blocks[2])
        assert program == "ait-jax"
    assert tuple(found) == SECTIONS
    return folder, found


@pytest.mark.parametrize("title", SECTIONS)
def test_each_example_fits_the_command_that_names_it(commands, title, monkeypatch):
    folder, arguments = commands
    monkeypatch.chdir(folder)
    command, *flags = arguments[title]
    assert command == "run"
    configuration.parse(split_flags(flags)[0], "experiments/mini.gin")
    built = configuration.build(Experiment)
    own = {
        "A pool": built.pool.name == "multiplication",
        "A strategy": built.strategy.name == "uncertain_but_known" and built.strategy.power == 0.5,
        "A perturbation": type(built.scorer.perturbation).__name__ == "Polite",
        "A model": type(built.model).__name__ == "Bridged",
    }
    assert [name for name, found in own.items() if found] == [title]
    if title == "A model":
        restored = restore_params(
            str(assets.mini_weights()), built.model, Partitioner(), fallback_to_scratch=True
        )
        names = flatten(restored.params)
        np.testing.assert_array_equal(np.asarray(names["bridge_norm.scale"]), 1)
        assert "missing, drawn at random: bridge_norm.scale" in restored.describe()


def test_all_four_run_together(commands, monkeypatch, capsys):
    folder, arguments = commands
    monkeypatch.chdir(folder)
    (folder / "tiny.gin").write_text(TINY)
    given = [
        flag for flags in arguments.values() for flag in flags if flag.startswith("--gin_file=my_")
    ]
    first = arguments["A pool"][1]
    flags = [first, *given, "--gin_file=tiny.gin", "--gin.MODEL_DIR=runs/mine"]
    # The command line's own settings of JAX are for its process.
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    assert cli.main(["run", *flags]) == 0, capsys.readouterr().err
    folder = folder / "runs" / "mine"
    assert len(read_names(folder / "round_000" / "selected.txt")) == 2
    stages = json.loads((folder / "run.json").read_text())["stages"]
    assert stages["round_000/select"]["strategy"] == "uncertain_but_known"
    assert "bridge_norm" in (folder / "model-info.txt").read_text()
    config = (folder / "config.gin").read_text()
    assert "scorer.Scorer.perturbation = @my_perturbation.Polite()" in config
    (checkpoint,) = (folder / "round_001").glob("checkpoint_*")
    assert checkpoint.is_dir() and jax.devices()
