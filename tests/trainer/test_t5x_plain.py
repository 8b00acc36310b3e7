"""Plain T5X on our tasks, without our loop: the shipped gin/t5x files with T5X's own programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import environment
from shared_data import TESTS

from ait_jax.config.configuration import gin_folder
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.models.checkpoints.conversion import convert
from ait_jax.models.parameters import flatten

pytestmark = pytest.mark.t5x
TINY = (
    "t5.T5Config.emb_dim=16",
    "t5.T5Config.num_heads=2",
    "t5.T5Config.num_encoder_layers=1",
    "t5.T5Config.num_decoder_layers=1",
    "t5.T5Config.head_dim=8",
    "t5.T5Config.mlp_dim=32",
    "mini.load_pool.instances_per_task=2",
    "eval_mixture/registry.register_pool.mixture='mini_mini008_second_word'",
)
PERIODS = ("BATCH_SIZE=8", "CHECKPOINT_PERIOD=2", "EVAL_PERIOD=2")


def t5x(program: str, file: str, folder: Path, *bindings: str, after: tuple[str, ...] = ()) -> None:
    """Runs `python -m t5x.<program>` on t5x/<file>.gin, and files after it, in a folder."""
    command = [
        sys.executable,
        "-m",
        f"t5x.{program}",
        f"--gin_search_paths={gin_folder()}",
        *(f"--gin_file=t5x/{name}.gin" for name in (file, *after)),
        "--gin_file=t5x/mini.gin",
        "--gin_file=models/mini.gin",
        *(f"--gin.{binding}" for binding in (*TINY, *bindings)),
    ]
    # Not the tests' own folders: gin would take tests/models/ for the package of models/mini.gin.
    path = os.pathsep.join(p for p in sys.path if p and not Path(p).is_relative_to(TESTS))
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(devices=1) | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def infer(folder: Path, checkpoint: Path, mode: str, network: str = "ait_jax") -> list[dict]:
    """Returns the lines that t5x.infer writes for the task of TINY."""
    output = folder / f"{mode}_{network}"
    t5x(
        "infer", "infer", folder, f"CHECKPOINT_PATH='{checkpoint}'", f"NETWORK='{network}'",
        f"INFER_OUTPUT_DIR='{output}'", f"INFER_MODE='{mode}'",
    )  # fmt: skip
    (written,) = output.glob(f"mini_mini008_second_word-{mode}.jsonl-00000-of-00001")
    return [json.loads(line) for line in written.read_text().splitlines()]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    t5x("train", "pretrain", folder, f"MODEL_DIR='{folder}'", "TRAIN_STEPS=2", *PERIODS)
    return folder / "checkpoint_2"


def test_finetune_eval_and_infer(pretrained, tmp_path):
    second = tmp_path / "finetuned"
    assert open_checkpoint(pretrained).load()["token_embedder"]["embedding"].shape == (4096, 16)
    t5x(
        "train", "finetune", tmp_path, f"MODEL_DIR='{second}'", "TRAIN_STEPS=4", *PERIODS,
        f"INITIAL_CHECKPOINT_PATH='{pretrained}'",
    )  # fmt: skip
    checkpoint = second / "checkpoint_4"
    metrics = second / "inference_eval" / "mini_mini008_second_word-metrics.jsonl"
    measured = json.loads(metrics.read_text().splitlines()[-1])
    assert {"rougeL", "exact_match"} <= measured.keys()

    t5x(
        "eval", "eval", tmp_path, f"CHECKPOINT_PATH='{checkpoint}'",
        f"EVAL_OUTPUT_DIR='{tmp_path / 'eval'}'",
    )  # fmt: skip
    again = tmp_path / "eval" / "inference_eval" / metrics.name
    assert json.loads(again.read_text())["rougeL"] == measured["rougeL"]

    for mode, key in (("predict", "prediction"), ("score", "score")):
        rows = infer(tmp_path, checkpoint, mode)
        assert len(rows) == 2 and all(key in row for row in rows)
        assert rows[0]["inputs"]["inputs_pretokenized"].startswith("Definition:")


def test_finetune_from_a_converted_checkpoint(pretrained, tmp_path):
    convert(pretrained, tmp_path / "converted", "t5x")
    folder = tmp_path / "finetuned"
    t5x(
        "train", "finetune", tmp_path, f"MODEL_DIR='{folder}'", "TRAIN_STEPS=3", *PERIODS,
        f"INITIAL_CHECKPOINT_PATH='{tmp_path / 'converted' / 'checkpoint_2'}'",
        "adafactor.Adafactor.step_offset=2", "utils.RestoreCheckpointConfig.dtype='float32'",
        "utils.create_learning_rate_scheduler.base_learning_rate=0.0",
        after=("parameters_only",),
    )  # fmt: skip
    before, after = (
        flatten(open_checkpoint(path).load()) for path in (pretrained, folder / "checkpoint_3")
    )
    # At a rate of 0, which T5X makes a tiny one, what comes out is what was restored.
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=0, atol=1e-7)


def test_what_t5xs_own_network_learned_our_network_scores_alike(tmp_path):
    folder = tmp_path / "pretrained"
    bindings = (f"MODEL_DIR='{folder}'", "TRAIN_STEPS=2", "NETWORK='t5x'")
    t5x("train", "pretrain", tmp_path, *bindings, *PERIODS)
    ours, theirs = (
        [row["score"] for row in infer(tmp_path, folder / "checkpoint_2", "score", network)]
        for network in ("ait_jax", "t5x")
    )
    assert len(ours) == 2 and ours == pytest.approx(theirs, abs=1e-4)
