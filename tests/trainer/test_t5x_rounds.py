"""Rounds on T5X: killed and continued, with another trainer, scored again from conversions."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from processes import environment
from run_files import checkpoints, stable_files
from shared_data import SUPPORT
from tiny_experiment import CONFIG, tiny_experiment
from tiny_training import OnDevices

from ait_jax.models.checkpoints.conversion import TARGETS, convert
from ait_jax.pool.splits import read_names
from ait_jax.rounds.scoring import Scoring
from ait_jax.rounds.scoring import run as run_scoring
from ait_jax.runtime.files import write_lines
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.scorer.parts import Parts

pytestmark = pytest.mark.t5x
STEPS_OF_ROUND_0 = 2


def run(*arguments: object) -> subprocess.CompletedProcess:
    script = SUPPORT / "tiny_experiment.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment(devices=1),
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three uninterrupted rounds."""
    model_dir = tmp_path_factory.mktemp("whole")
    finished = run(model_dir, "never", 0, 1, "t5x")
    assert finished.returncode == 0, finished.stderr
    return model_dir


def test_three_rounds_killed_and_continued_equal_uninterrupted_ones(whole, tmp_path):
    cut = tmp_path / "cut"
    # In the third step of round 1: the first one's checkpoint is on disk, the second one's may be.
    killed = run(cut, "t5x", STEPS_OF_ROUND_0 + 3, 1, "t5x")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (cut / "round_000" / "selected.txt").exists()
    assert not (cut / "round_001" / "eval.json").exists()
    continued = run(cut, "never", 0, 1, "t5x")
    assert continued.returncode == 0, continued.stderr
    assert re.search("round_001: continuing from step [12]$", continued.stdout, re.MULTILINE)
    expected, found = stable_files(whole), stable_files(cut)
    assert list(expected) == list(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    wanted, there = checkpoints(whole), checkpoints(cut)
    assert len(wanted) >= 3 and list(wanted) == list(there)
    for name in wanted:
        for parameter in wanted[name]:
            np.testing.assert_array_equal(wanted[name][parameter], there[name][parameter])


def test_converted_weights_select_what_the_trained_ones_did(whole, tmp_path):
    step = json.loads((whole / "run.json").read_text())["stages"]["round_000/train"][
        "checkpoint_step"
    ]
    trained = whole / "round_000" / f"checkpoint_{step}"
    tasks = tmp_path / "tasks.txt"
    write_lines(tasks, read_task_scores(whole / "round_000" / "task_scores.parquet").tasks)
    experiment = tiny_experiment(tmp_path)
    shared = {f.name: getattr(experiment, f.name) for f in fields(Parts)}

    def scored(name, checkpoint):
        changes = {
            "model_dir": str(tmp_path / f"scored_{name}"),
            "init_checkpoint": str(checkpoint),
            "partitioner": OnDevices(),
        }
        strategy = experiment.strategy
        run_scoring(Scoring(**shared | changes, tasks=str(tasks), strategy=strategy), CONFIG)
        return tmp_path / f"scored_{name}"

    original = scored("trained", trained)
    selected = (whole / "round_000" / "selected.txt").read_bytes()
    assert (original / "selected.txt").read_bytes() == selected
    for to in TARGETS:
        convert(trained, tmp_path / to, to, ask_torch=False)
        folder = scored(to, tmp_path / to)
        for file in ("selected.txt", "task_scores.parquet", "likelihoods.parquet"):
            assert (folder / file).read_bytes() == (original / file).read_bytes(), (to, file)


def test_the_trainer_may_change_between_rounds(tmp_path):
    both = run(tmp_path, "never", 0, 1, "both")
    assert both.returncode == 0, both.stderr
    # Only T5X leaves a table of the model's parameters in a round.
    tables = [(tmp_path / f"round_00{r}" / "model-info.txt").exists() for r in range(3)]
    assert tables == [False, True, True]
    assert len(read_names(tmp_path / "round_001" / "selected.txt")) == 3
    assert len(checkpoints(tmp_path)) >= 3
