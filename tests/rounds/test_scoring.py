"""`ait-jax score`'s work: what it leaves behind, what continues it, and what it refuses."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_data import SUPPORT
from tiny_experiment import CONFIG, Stopped, stopping_at, tiny_experiment
from tiny_scoring import tiny_scoring

from ait_jax.errors import UserError
from ait_jax.models.checkpoints.weights import save_weights
from ait_jax.models.parameters import init_params
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds import active, scoring
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.embeddings import ModelEncoder
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.likelihoods import read_rows, read_task_scores
from ait_jax.selection.k_center import KCenter
from ait_jax.selection.selection import PromptUncertainty

FILES = (
    "ambiguous.txt",
    "config.gin",
    "difficult.txt",
    "easy.txt",
    "likelihoods.parquet",
    "model-info.txt",
    "run.json",
    "task_map.png",
    "task_scores.parquet",
    "tasks.txt",
)
UNSTABLE = ("timings.jsonl", "live.json", "report.html", ".lock")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, init_params(tiny_experiment(".").model, 3)[0])
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weights):
    """An uninterrupted scoring: (its folder, the scores, the lines it printed)."""
    model_dir = tmp_path_factory.mktemp("scored")
    lines: list[str] = []
    scores = scoring.run(tiny_scoring(model_dir, weights), CONFIG, lines.append)
    return model_dir, scores, lines


def stable_files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in UNSTABLE
    }


def test_the_folder_holds_tables_map_and_lists(finished):
    model_dir, scores, lines = finished
    assert tuple(stable_files(model_dir)) == FILES
    names = read_names(model_dir / "tasks.txt")
    assert len(names) == 8 and sorted(names) == list(scores.tasks)
    assert len(read_rows(model_dir / "likelihoods.parquet")["task"]) == 8 * 2 * 3
    lists = {c: read_names(model_dir / f"{c}.txt") for c in ("ambiguous", "easy", "difficult")}
    assert len(lists["ambiguous"]) == 2 and set().union(*lists.values()) <= set(names)
    highest = np.argsort(-scores.prompt_uncertainty)[:2]
    assert lists["ambiguous"] == tuple(scores.tasks[i] for i in highest)
    text = "\n".join(lines)
    assert f"{scores.prompt_uncertainty[highest[0]]:.4f}" in text and lists["easy"][0] in text
    assert "tokens/s" in text and "48 prompts" in text and str(model_dir) in lines[-1]


def test_a_finished_folder_is_not_touched_and_needs_no_checkpoint(finished, monkeypatch, weights):
    model_dir, scores, _ = finished
    before = {p: p.stat().st_mtime_ns for p in model_dir.iterdir() if p.name not in UNSTABLE}
    monkeypatch.setattr(Engine, "place", lambda *args: pytest.fail("parameters were read"))
    lines: list[str] = []
    again = scoring.run(tiny_scoring(model_dir, weights), CONFIG, lines.append)
    assert again.tasks == scores.tasks and {p: p.stat().st_mtime_ns for p in before} == before
    assert lines[0].startswith("already scored: 8 tasks in")


@pytest.mark.parametrize(
    ("point", "call"), [pytest.param("score", 3, marks=pytest.mark.benchmark), ("chunk", 3)]
)
def test_killed_and_continued_equals_uninterrupted(finished, weights, tmp_path, point, call):
    script = SUPPORT / "tiny_scoring.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(weights), point, str(call)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "likelihoods.parquet").exists()
    left = sorted(path.name for path in (tmp_path / "likelihoods.chunks").glob("chunk_*"))
    assert left[:1] == ["chunk_00000.parquet"] and len(left) < 3
    scoring.run(tiny_scoring(tmp_path, weights), CONFIG, lambda line: None)
    assert stable_files(tmp_path) == stable_files(finished[0])


def test_scores_are_those_of_a_runs_first_round(tmp_path):
    experiment = tiny_experiment(tmp_path / "run", evaluate_base=False)
    with pytest.raises(Stopped):
        active.run(experiment, CONFIG, stopping_at("round_001: training", []))
    first = tmp_path / "run" / "round_000"
    step = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["round_000/train"]
    alone = tiny_scoring(
        tmp_path / "alone",
        first / f"checkpoint_{step['checkpoint_step']}",
        pool=experiment.pool,
        tasks=str(first / "remain_tasks.txt"),
        strategy=experiment.strategy,
        tasks_per_round=experiment.tasks_per_round,
    )
    scores = scoring.run(alone, CONFIG, lambda line: None)
    there = read_task_scores(first / "task_scores.parquet")
    assert scores.tasks == there.tasks
    np.testing.assert_array_equal(scores.prompt_uncertainty, there.prompt_uncertainty)
    for name in ("selected.txt", "likelihoods.parquet"):
        assert (tmp_path / "alone" / name).read_bytes() == (first / name).read_bytes()


@pytest.mark.parametrize("of", ["instruction", "data"])
def test_tasks_are_selected_by_where_they_lie(weights, tmp_path, of):
    """k-center over the model's own embeddings, against the same choice made step by step."""
    made = tiny_scoring(tmp_path, weights, strategy=KCenter(ModelEncoder(), of=of))
    scoring.run(made, CONFIG, lambda line: None)
    asker = Asker(
        engine := Engine(made.model, made.partitioner, made.buckets, made.tokens_per_batch),
        engine.place(init_params(made.model, 3)[0]),
        made.pool,
        made.vocabulary,
        made.encoding,
        made.seed,
    )
    names = sorted(made.pool)
    texts = {
        "instruction": [[made.pool[name].instruction.definition] for name in names],
        "data": [[i.input for i in made.pool[name].instances[:8]] for name in names],
    }[of]
    vectors = np.array([ModelEncoder().embed(each, asker).mean(axis=0) for each in texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = int(np.argmax(vectors @ vectors.mean(axis=0)))
    second = int(np.argmin(vectors @ vectors[first]))
    assert read_names(tmp_path / "selected.txt") == (names[first], names[second])


def test_some_tasks_in_the_order_given(weights, tmp_path):
    made = tiny_scoring(tmp_path / "a", weights)
    wanted = list(made.pool)[4:1:-1]
    (tmp_path / "names.txt").write_text("\n".join(wanted))
    chosen = dataclasses.replace(made, tasks=str(tmp_path / "names.txt"))
    scoring.run(chosen, CONFIG, lambda line: None)
    assert list(dict.fromkeys(read_rows(tmp_path / "a" / "likelihoods.parquet")["task"])) == wanted
    (tmp_path / "names.txt").write_text("\n".join(wanted[:2]))
    with pytest.raises(UserError, match="tasks 3 named .*, now .*tasks 2 named"):
        scoring.run(chosen, CONFIG, lambda line: None)


def test_tasks_without_instances_are_left_out_and_counted(weights, tmp_path):
    pool = tiny_scoring(tmp_path, weights).pool
    first, *others = (pool[name] for name in pool)
    empty = TaskPool([dataclasses.replace(first, instances=()), *others[:3]], name="holes")
    lines: list[str] = []
    made = tiny_scoring(tmp_path, weights, pool=empty)
    assert len(scoring.run(made, CONFIG, lines.append)) == 3
    assert "1 tasks have no instances and are left out" in lines
    assert len(read_names(tmp_path / "tasks.txt")) == 3
    nothing = TaskPool([dataclasses.replace(first, instances=())])
    with pytest.raises(UserError, match="None of the 1 tasks .* POOL or TASKS"):
        scoring.run(tiny_scoring(tmp_path / "b", weights, pool=nothing), CONFIG, lines.append)


def test_cut_prompts_are_reported(weights, tmp_path):
    made = tiny_scoring(tmp_path, weights)
    name, *_ = made.pool
    task = made.pool[name]
    long = [dataclasses.replace(i, input="word " * 300) for i in task.instances[:2]]
    pool = TaskPool([dataclasses.replace(task, instances=long)])
    lines: list[str] = []
    scoring.run(dataclasses.replace(made, pool=pool), CONFIG, lines.append)
    assert "6 of 6 prompts were cut at MAX_SOURCE_LENGTH = 128 tokens" in lines


def test_mistakes_name_the_gin_macro(weights, tmp_path):
    made = tiny_scoring(tmp_path / "a", weights)

    def message(**changes) -> str:
        with pytest.raises(UserError) as caught:
            scoring.run(dataclasses.replace(made, **changes), CONFIG, lambda line: None)
        return str(caught.value)

    assert "set --gin.INIT_CHECKPOINT" in message(init_checkpoint=None)
    missing = message(init_checkpoint=str(tmp_path / "nowhere"))
    assert missing.startswith("INIT_CHECKPOINT = ") and "No checkpoint at" in missing
    assert "cannot read the list of tasks" in message(tasks="nowhere.txt")
    names = tmp_path / "names.txt"
    names.write_text("")
    assert message(tasks=str(names)).endswith("names no task; write one name per line.")
    near = next(iter(made.pool))
    names.write_text(f"{near}x\n{near}\n")
    text = message(tasks=str(names))
    assert text.startswith("TASKS = ") and f"Did you mean {near!r}?" in text
    assert "1 of 2 names" in text
    text = message(strategy=PromptUncertainty(), tasks_per_round=9)
    assert "TASKS_PER_ROUND = 9 is more than the 8 scored tasks" in text


def test_a_changed_configuration_is_refused(finished, weights):
    with pytest.raises(UserError, match="tiny.seed: was 0, now 1"):
        scoring.run(tiny_scoring(finished[0], weights), "tiny.seed = 1\n", lambda line: None)
