"""RACING in `ait-jax score` and in runs: what it leaves, what continues it, what it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_scoring
from tiny_experiment import CONFIG, Stopped, stopping_at, tiny_experiment
from tiny_scoring import tiny_race

from ait_jax.errors import UserError
from ait_jax.models.checkpoints.weights import save_weights
from ait_jax.models.parameters import init_params
from ait_jax.pool.splits import read_names
from ait_jax.rounds import active, scoring
from ait_jax.scorer import raced_scoring
from ait_jax.scorer.likelihoods import read_rows
from ait_jax.scorer.racing import Racing
from ait_jax.selection.selection import PromptUncertainty, Random


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, init_params(tiny_experiment(".").model, 3)[0])
    return path


@pytest.fixture(scope="module")
def raced(tmp_path_factory, weights):
    """An uninterrupted race: (its folder, the lines it printed)."""
    model_dir = tmp_path_factory.mktemp("raced")
    lines: list[str] = []
    scoring.run(tiny_race(model_dir, weights), CONFIG, lines.append)
    return model_dir, lines


def stable_files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in ("timings.jsonl", "live.json", "report.html", ".lock")
    }


def cells(folder: Path) -> dict[tuple[str, str, int], float]:
    rows = read_rows(folder / "likelihoods.parquet")
    return dict(
        zip(
            zip(rows["task"], rows["instance_id"], rows["prompt"], strict=True),
            rows["log_likelihood"],
            strict=False,
        )
    )


def test_the_race_decides_the_selection_and_saves_prompts(raced):
    folder, lines = raced
    record = json.loads((folder / "race.json").read_text())
    winners = {task for task, verdict in record["verdicts"].items() if verdict == "in"}
    assert len(record["verdicts"]) == 8 and len(winners) == 2
    assert set(read_names(folder / "selected.txt")) == winners
    assert not (folder / "likelihoods.waves").exists()
    assert len(cells(folder)) < 8 * 3 * 7
    # One line a wave says what was saved and at which risk.
    assert sum(line.startswith("racing: ") and "saved" in line for line in lines) == 3


def test_what_was_asked_has_the_values_of_the_full_computation(raced, weights, tmp_path):
    scoring.run(tiny_race(tmp_path, weights, racing=False), CONFIG, lambda line: None)
    full, some = cells(tmp_path), cells(raced[0])
    assert len(full) == 8 * 3 * 7 and some.keys() < full.keys()
    np.testing.assert_allclose(list(some.values()), [full[key] for key in some], atol=1e-6)
    assert not (tmp_path / "race.json").exists()


@pytest.mark.parametrize("call", [pytest.param(2, marks=pytest.mark.benchmark), 4])
def test_killed_and_continued_equals_uninterrupted(raced, weights, tmp_path, call):
    arguments = [str(tmp_path), str(weights), "chunk", str(call), "raced"]
    killed = subprocess.run(
        [sys.executable, tiny_scoring.__file__, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "likelihoods.waves").is_dir()
    scoring.run(tiny_race(tmp_path, weights), CONFIG, lambda line: None)
    assert stable_files(tmp_path) == stable_files(raced[0])


def test_rounds_of_a_run_are_raced(tmp_path):
    experiment = tiny_experiment(
        tmp_path, evaluate_base=False, racing=True, racing_settings=Racing(waves=(2,), error=0.9)
    )
    with pytest.raises(Stopped):
        active.run(experiment, CONFIG, stopping_at("round_001: training", []))
    folder = tmp_path / "round_000"
    verdicts = json.loads((folder / "race.json").read_text())["verdicts"]
    winners = {task for task, verdict in verdicts.items() if verdict == "in"}
    assert len(winners) == 3 and set(read_names(folder / "selected.txt")) == winners


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_missing_or_damaged_record_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / "race.json").write_text(text)
    with pytest.raises(UserError, match="race.json cannot be read .* give another MODEL_DIR"):
        raced_scoring.ranking(PromptUncertainty(), tmp_path / "likelihoods.parquet")


@pytest.mark.parametrize("strategy", [None, Random()])
def test_only_a_selection_by_prompt_uncertainty_is_raced(weights, tmp_path, strategy):
    with pytest.raises(UserError, match="RACING"):
        tiny_race(tmp_path, weights, strategy=strategy)
