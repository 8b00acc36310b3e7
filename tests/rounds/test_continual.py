"""Rounds of training with replay: what each trains on and measures, and that nothing is lost."""

import json
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_generations import FIRST, SECOND, pool_of, same_run
from tiny_experiment import TRAINING, Stopped, stopping_at, tiny_experiment

from ait_jax import cli
from ait_jax.errors import UserError
from ait_jax.evaluation import evaluation
from ait_jax.pool.replay import DIVERSE
from ait_jax.pool.splits import read_names
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.report.run_report import make_page, payload_and_details
from ait_jax.report.settings import Settings
from ait_jax.rounds import continual, record, stages
from ait_jax.rounds.continual import Continual
from ait_jax.rounds.learning_curve import render_continual
from ait_jax.rounds.task_stages import DrawnStages
from ait_jax.scorer.parts import ModelParts
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.embedded import EmbeddedTrainer

CONFIG = "continual.seed = 0\n"
QUICK = EmbeddedTrainer(**TRAINING | {"epochs": None, "steps": 2, "best_metric": None})
# Instructions by their number of words: the rules' choice can then be foretold.
BY_LENGTH = SimpleNamespace(
    embed=lambda texts, encoder: np.array([[len(t.split()), 10.0] for t in texts])
)


def settings(model_dir, pool, **changed) -> Continual:
    tiny = tiny_experiment(model_dir, pool=pool)
    shared = {field.name: getattr(tiny, field.name) for field in fields(ModelParts)}
    sizes = {
        "stages": DrawnStages(2),
        "trainer": QUICK,
        "replay_tasks": 2,
        "replay_instances": 1,
        "max_instances_per_task": 4,
        "holdout_instances": 2,
        "max_eval_instances": 2,
        "evaluate_base": False,
        "grow_pool": True,
    }
    return Continual(**shared | sizes | changed)


def run(model_dir, pool=None, **changed):
    lines: list[str] = []
    built = settings(model_dir, pool or pool_of(FIRST), **changed)
    return continual.run(built, CONFIG, lines.append, page=make_page), lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two rounds, and a third from an extended pool: (folder, results, lines, calls of `train`)."""
    model_dir = tmp_path_factory.mktemp("continual")
    calls = []
    make_job, train = stages.training_job, EmbeddedTrainer.train

    def record(run, round_index, tasks, params, **settings):
        calls.append(settings | {"tasks": tasks, "start": params})
        return make_job(run, round_index, tasks, params, **settings)

    def record_params(self, job):
        trained = train(self, job)
        calls[-1]["params"] = trained.params
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "training_job", record)
        patch.setattr(EmbeddedTrainer, "train", record_params)
        before, lines = run(model_dir)
        assert len(before) == 2 and "run the same command" in lines[-1]
        results, lines = run(model_dir, pool_of(SECOND))
    assert results[:2] == before
    return model_dir, results, lines, calls


def stage_of(model_dir, number):
    return read_names(model_dir / f"round_{number:03d}" / "stage_tasks.txt")


def test_added_tasks_are_the_next_round(finished):
    model_dir, results, lines, _ = finished
    assert sorted(stage_of(model_dir, 0) + stage_of(model_dir, 1)) == sorted(FIRST)
    added = read_names(model_dir / "round_002" / "joined_tasks.txt")
    assert set(added) == set(SECOND) - set(FIRST)
    assert any("round_002: 3 new tasks joined; generation 1" in line for line in lines)
    state = json.loads((model_dir / "run.json").read_text())["stages"]
    assert [name for name in state if name.startswith("round_002")] == [
        "round_002/pool",
        "round_002/replay",
        "round_002/train",
        "round_002/evaluate",
    ]
    assert [list(result) for result in results] == [
        ["test", "holdout"],
        ["test", "holdout", "previous_000"],
        ["test", "holdout", "previous_000", "previous_001"],
    ]


def test_the_report_of_a_continual_run(finished):
    model_dir = finished[0]
    pool = pool_of(SECOND)
    known = Settings(encoding=TkInstructEncoding(), pool=pool)
    payload, details = payload_and_details(
        record.read(model_dir), known, title="t", detail_megabytes=1
    )
    assert (model_dir / "report.html").exists() and payload["rounds"] == []
    assert payload["summary"]["work"] == "continual" and payload["summary"]["state"] == "finished"
    assert payload["summary"]["rounds"] == payload["summary"]["rounds_done"] == 3
    last = payload["evaluations"][-1]
    assert last["others"].keys() == {"holdout", "previous_000", "previous_001"} and last[
        "num_tasks"
    ] == len(SECOND)
    assert set(payload["tasks"]["name"]) == {*SECOND, *pool.splits.test}
    assert "3 new tasks joined the pool in round 2." in payload["summary"]["notes"]
    assert sum(len(chunk["tasks"]) for chunk in details) == len(payload["tasks"]["name"])


def test_every_round_is_measured_on_instances_that_nothing_trained_on(finished):
    model_dir = finished[0]
    items = evaluation.read_predictions(model_dir / "round_002" / "predictions.jsonl")
    asked = {(item.task, item.instance_id) for item in items}
    trained = {
        (task.name, instance.id)
        for call in finished[3]
        for task in call["pool"].values()
        for instance in task.instances
    }
    assert trained and not asked & trained
    assert {task for task, _ in asked} == {*SECOND, *pool_of(SECOND).splits.test}
    assert all(sum(task == name for task, _ in asked) == 2 for name in SECOND)


def test_the_replayed_tasks_are_the_rules(tmp_path):
    pool = pool_of(FIRST)
    built = settings(tmp_path, pool, embedder=BY_LENGTH)
    with pytest.raises(Stopped):
        continual.run(built, CONFIG, stopping_at("round_001: training", []))
    (current, previous) = (stage_of(tmp_path, n) for n in (1, 0))

    def unit(name):
        vector = np.array([len(pool[name].instruction.definition.split()), 10.0])
        return vector / np.linalg.norm(vector)

    likeness = {p: sum(unit(c) @ unit(p) for c in current) for p in previous}
    expected = sorted(previous, key=lambda p: (round(likeness[p], 9), p))[:2]
    assert list(read_names(tmp_path / "round_001" / "replay_tasks.txt")) == expected
    scores = json.loads((tmp_path / "round_001" / "replay_scores.json").read_text())
    assert list(scores)[:2] == expected and set(scores) == set(previous)


def test_replayed_tasks_bring_their_own_number_of_instances(finished):
    model_dir, _, _, calls = finished
    first, second = stage_of(model_dir, 0), stage_of(model_dir, 1)
    replayed = read_names(model_dir / "round_001" / "replay_tasks.txt")
    assert len(replayed) == 2 and set(replayed) <= set(first)
    assert calls[1]["tasks"] == second + replayed
    most = dict.fromkeys(second, 4) | dict.fromkeys(replayed, 1)
    assert calls[1]["max_instances_per_task"] == most


def test_a_round_begins_from_the_one_before(finished):
    first, second = finished[3][:2]
    assert second["start"] is first["params"] and first["start"] is not first["params"]


@pytest.mark.parametrize("point", ["train", pytest.param("replay", marks=pytest.mark.benchmark)])
def test_stopped_and_continued_is_the_same_run(finished, tmp_path, point):
    owner, name, call = {
        "train": (Checkpoints, "save", 4),
        "replay": (continual.replay, "replay_scores", 2),
    }[point]
    original, calls = getattr(owner, name), []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Stopped
        return original(*args, **kwargs)

    def both():
        run(tmp_path)
        run(tmp_path, pool_of(SECOND))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(owner, name, stop)
        both()
    if point == "train":
        run(tmp_path)
    run(tmp_path, pool_of(SECOND))
    same_run(finished[0], tmp_path)


def test_the_table(finished):
    model_dir, _, lines, _ = finished
    rows = [
        {"stage": 0, "tasks": 4, "replayed": 0, "test": 35.861, "holdout": 46.31},
        {"stage": 1, "tasks": 3, "replayed": 2, "test": None, "holdout": 5.0, "previous_000": 43.7},
    ]
    assert render_continual(rows).splitlines() == [
        "stage  tasks  replayed      test   holdout   stage 0",
        "    0      4         0     35.86     46.31         -",
        "    1      3         2         -      5.00     43.70",
    ]
    table = (model_dir / "continual.txt").read_text()
    assert len(table.splitlines()) == 4 and table.strip() in "\n".join(lines)
    assert (model_dir / "learning_curve.png").stat().st_size


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="REPLAY = 'divers'"):
        run(tmp_path, replay="divers")
    with pytest.raises(UserError, match="EMBEDDER = 3 cannot embed"):
        run(tmp_path, embedder=3)
    with pytest.raises(UserError, match="REPLAY_TASKS = 0"):
        run(tmp_path, replay_tasks=0)
    with pytest.raises(UserError, match="TRAINER must be one trainer"):
        run(tmp_path, trainer={0: QUICK})
    assert not list(tmp_path.iterdir())
    assert replace(settings(tmp_path, pool_of(FIRST)), replay=DIVERSE).replay_tasks == 2


def test_the_command_line_runs_what_the_gin_files_configure(tmp_path, monkeypatch, clean_gin):
    built = []
    monkeypatch.setattr(continual, "run", lambda made, config, page: built.append((made, config)))
    arguments = ["run", "--gin_file=experiments/continual_mini.gin", f"--gin.MODEL_DIR={tmp_path}"]
    assert cli.main([*arguments, "--gin.REPLAY=data_diverse"]) == 0
    ((made, config),) = built
    assert made.replay == "data_diverse" and "REPLAY = 'data_diverse'" in config
    assert cli.main([*arguments, "--gin.REPLAY=data"]) == 2
