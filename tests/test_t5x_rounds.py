"""Rounds on T5X: killed and continued, and a run that changes its trainer."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_active import checkpoints, stable_files

from ait_jax.splits import read_names

pytestmark = pytest.mark.t5x
STEPS_OF_ROUND_0 = 2


def run(*arguments: object) -> subprocess.CompletedProcess:
    script = Path(__file__).parent / "tiny_experiment.py"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_three_rounds_killed_and_continued_equal_uninterrupted_ones(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finished = run(whole, "never", 0, 1, "t5x")
    assert finished.returncode == 0, finished.stderr
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


def test_the_trainer_may_change_between_rounds(tmp_path):
    both = run(tmp_path, "never", 0, 1, "both")
    assert both.returncode == 0, both.stderr
    # Only T5X leaves a table of the model's parameters in a round.
    tables = [(tmp_path / f"round_00{r}" / "model-info.txt").exists() for r in range(3)]
    assert tables == [False, True, True]
    assert len(read_names(tmp_path / "round_001" / "selected.txt")) == 3
    assert len(checkpoints(tmp_path)) >= 3
