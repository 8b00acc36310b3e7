"""The loop: what it leaves behind, and that nothing is lost when it is killed."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from event_files import assert_no_doubles, read_events, read_offline_rows
from processes import environment
from run_files import checkpoints, stable_files
from shared_data import SUPPORT
from tiny_experiment import CONFIG, Stopped, boards, stopping_at, tiny_experiment, tiny_pool

from ait_jax.errors import UserError
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import read_names, read_splits
from ait_jax.report import settings
from ait_jax.report.run_report import make_page, payload_and_details
from ait_jax.rounds import active, record
from ait_jax.scorer.likelihoods import read_rows, read_task_scores


def in_process(*arguments: object, devices: int = 8) -> subprocess.CompletedProcess:
    variables = environment(devices)
    # Another process's, which would go on when this one is killed.
    variables.pop("WANDB_SERVICE", None)
    script = SUPPORT / "tiny_experiment.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: (its folder, the curve's points, the lines it printed)."""
    model_dir = tmp_path_factory.mktemp("uninterrupted")
    lines: list[str] = []
    points = active.run(
        tiny_experiment(model_dir, summaries=boards()), CONFIG, lines.append, page=make_page
    )
    return model_dir, points, lines


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("round_000/selected.txt", None, "selected.txt"),
        ("round_000/selected.txt", "a/b\n", "path separator"),
        ("round_000/dev_tasks.txt", "stranger\n", "the pool has no task 'stranger'"),
        ("round_001/train_tasks.txt", "\xff", "train_tasks.txt"),
    ],
)
def test_a_run_with_damaged_lists_is_refused_before_a_file_changes(
    finished, tmp_path, name, text, problem
):
    model_dir = tmp_path / "run"
    shutil.copytree(finished[0], model_dir)
    if text is None:
        (model_dir / name).unlink()
    else:
        (model_dir / name).write_text(text, encoding="latin-1")
    (model_dir / "learning_curve.png").write_bytes(b"as it was")

    def state():
        return {path: path.stat().st_mtime_ns for path in model_dir.rglob("*") if path.is_file()}

    before = state()
    with pytest.raises(UserError, match=problem):
        active.run(tiny_experiment(model_dir, summaries=boards()), CONFIG, [].append)
    assert state() == before


def test_the_run_directory_holds_what_the_design_promises(finished):
    model_dir, points, lines = finished
    assert [point.name for point in points] == ["base", "round 0", "round 1"]
    for name in ("config.gin", "run.json", "learning_curve.png", "model-info.txt"):
        assert (model_dir / name).stat().st_size, name
    first = model_dir / "round_000"
    for name in (
        "metrics.jsonl",
        "eval.json",
        "predictions.jsonl",
        "likelihoods.parquet",
        "task_scores.parquet",
        "selected.txt",
        "task_map.png",
    ):
        assert (first / name).stat().st_size, name
    assert not (model_dir / "round_001" / "selected.txt").exists(), "the last round selects nothing"
    assert not list(model_dir.rglob(".tmp-*")) and not (first / "likelihoods.chunks").exists()
    assert str(model_dir) in lines[-1]
    assert (
        f"report: {model_dir / 'report.html'}" in lines
        and (model_dir / "report.html").stat().st_size
    )
    payload, details = payload_and_details(
        record.read(model_dir),
        settings.of_parts(tiny_experiment(model_dir), tiny_pool()),
        title="t",
        detail_megabytes=1,
    )
    assert payload["summary"]["state"] == "finished" and payload["summary"]["notes"] == []
    assert len(details[0]["tasks"]) == 12 and payload["cost"]["devices"] == 8


def test_the_selection_moves_tasks_from_remain_to_train(finished):
    model_dir, _, _ = finished
    before, after = (read_splits(model_dir / f"round_00{r}") for r in (0, 1))
    selected = read_names(model_dir / "round_000" / "selected.txt")
    assert len(selected) == 3
    assert after.train == before.train + selected
    assert set(after.remain) == set(before.remain) - set(selected)
    assert (after.dev, after.test) == (before.dev, before.test)
    scores = read_task_scores(model_dir / "round_000" / "task_scores.parquet")
    uncertainty = dict(zip(scores.tasks, scores.prompt_uncertainty, strict=True))
    assert set(scores.tasks) == set(before.remain)
    left_out = [uncertainty[name] for name in after.remain]
    assert min(uncertainty[name] for name in selected) >= max(left_out)


def test_the_summaries_say_what_the_files_say(finished):
    model_dir, _, _ = finished
    test = read_events(model_dir / "inference_eval" / "test")
    for step, name in ((-1, "base"), (0, "round_000"), (1, "round_001")):
        result = json.loads((model_dir / name / "eval.json").read_text())["test"]
        figures = {"overall": result["rougeL"], "gen": result["gen"]["rougeL"]}
        for group, value in figures.items():
            if value is not None:
                points = dict(test[f"rougeL/{group}"])
                assert points[step] == pytest.approx(value, rel=1e-6), (name, group)
    by_category = [tag for tag in test if tag.startswith("exact_match_by_category/")]
    assert len(by_category) == len(result["per_category"])
    samples = dict(test["samples/text_summary"])
    assert sorted(samples) == [-1, 0, 1] and result["per_task"]
    # The same tasks and prompts every round.
    asked = {
        step: [(row.split(" | ")[0], row.split(" | ")[-1]) for row in text.splitlines()]
        for step, text in samples.items()
    }
    assert asked[-1] == asked[0] == asked[1]
    rounds = read_events(model_dir / "rounds")
    assert [step for step, _ in rounds["tasks/train"]] == [-1, 0, 1]
    assert dict(rounds["task_map"]) == {0: (model_dir / "round_000" / "task_map.png").read_bytes()}
    assert dict(rounds["learning_curve"])[1] == (model_dir / "learning_curve.png").read_bytes()
    assert sorted(dict(rounds["learning_curve"])) == [0, 1]
    assert "tiny.seed = 0" in rounds["config/text_summary"][0][1]
    scores = read_task_scores(model_dir / "round_000" / "task_scores.parquet")
    selected = set(read_names(model_dir / "round_000" / "selected.txt"))
    pairs = list(zip(scores.tasks, scores.prompt_uncertainty, strict=True))
    mean = np.mean([value for task, value in pairs if task in selected])
    assert rounds["selection/prompt_uncertainty_selected"] == [(0, pytest.approx(mean, rel=1e-6))]
    timings = map(json.loads, (model_dir / "timings.jsonl").read_text().splitlines())
    seconds = {line["stage"]: line["seconds"] for line in timings}
    assert rounds["seconds/score"] == [(0, pytest.approx(seconds["round_000/score"], rel=1e-6))]
    lines = map(json.loads, (model_dir / "round_000" / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    train = read_events(model_dir / "round_000" / "train")
    assert dict(train["train/loss"]) == pytest.approx(losses, rel=1e-6)
    for events in (test, rounds, train):
        assert_no_doubles(events)


def test_uncertainty_follows_from_the_likelihoods_by_hand(finished):
    model_dir, _, _ = finished
    rows = read_rows(model_dir / "round_000" / "likelihoods.parquet")
    scores = read_task_scores(model_dir / "round_000" / "task_scores.parquet")
    name = scores.tasks[0]
    probability = {
        (i, j): np.exp(np.float64(value))
        for task, i, j, value in zip(
            *(rows[c] for c in ("task", "instance_id", "prompt", "log_likelihood")), strict=True
        )
        if task == name
    }
    instances = {i for i, _ in probability}
    expected = np.mean(
        [abs(probability[i, 0] - probability[i, j]) for i in instances for j in (1, 2)]
    )
    assert len(instances) == 2 and len(probability) == 6
    assert scores.prompt_uncertainty[0] == pytest.approx(expected, rel=1e-12)


def test_evaluation_covers_dev_and_test_and_metrics_have_no_times(finished):
    model_dir, points, _ = finished
    result = json.loads((model_dir / "round_001" / "eval.json").read_text())
    assert result["test"]["num_tasks"] == 2 and result["dev"]["num_tasks"] == 1
    assert points[-1].test["overall"] == result["test"]["rougeL"]
    text = (model_dir / "round_001" / "metrics.jsonl").read_text()
    assert '"loss"' in text and '"dev/rougeL"' in text and "second" not in text


def test_timings_tell_prompts_asked_from_prompts_run(finished):
    model_dir, _, _ = finished
    lines = map(json.loads, (model_dir / "timings.jsonl").read_text().splitlines())
    (line,) = [line for line in lines if line["stage"] == "round_000/score"]
    assert line["prompts_asked"] == 7 * 2 * 3
    passes = line["prompts_asked"] - line["prompts_from_decode"] - line["prompts_identical"]
    assert line["prompts"] == 7 * 2 + passes


def test_a_finished_run_does_nothing_when_started_again(finished):
    model_dir, points, _ = finished
    before = {
        p: p.stat().st_mtime_ns for p in model_dir.rglob("*") if p.suffix in (".parquet", ".txt")
    }
    lines: list[str] = []
    assert active.run(tiny_experiment(model_dir), CONFIG, lines.append) == points
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert lines[0].startswith("continuing")


# Each takes half a minute: the others run with -m benchmark.
@pytest.mark.parametrize(
    ("point", "call"),
    [
        pytest.param("checkpoint", 2, id="training"),
        pytest.param("score", 2, id="scoring", marks=pytest.mark.benchmark),
        pytest.param("chunk", 2, id="saving", marks=pytest.mark.benchmark),
        pytest.param("write", 0, id="selecting", marks=pytest.mark.benchmark),
    ],
)
def test_killed_and_continued_equals_uninterrupted(finished, tmp_path, point, call):
    model_dir, _, _ = finished
    killed = in_process(tmp_path, point, call)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "round_001" / "eval.json").exists()
    active.run(tiny_experiment(tmp_path, summaries=boards()), CONFIG, lambda line: None)
    expected, found = stable_files(model_dir), stable_files(tmp_path)
    check_summaries(model_dir, tmp_path)
    assert list(expected) == list(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    wanted, there = checkpoints(model_dir), checkpoints(tmp_path)
    assert list(wanted) == list(there)
    for name in wanted:
        for parameter in wanted[name]:
            np.testing.assert_array_equal(wanted[name][parameter], there[name][parameter])


def check_summaries(whole: Path, continued: Path) -> None:
    """The continued run has the points of the whole one, each once."""
    folders = [path.parent.relative_to(whole) for path in whole.rglob("events.out.tfevents.*")]
    assert len(folders) == 5  # two rounds' train/, rounds/, test, dev
    for folder in folders:
        expected, found = read_events(whole / folder), read_events(continued / folder)
        assert_no_doubles(found)
        steps = [{t: sorted(s for s, _ in p) for t, p in e.items()} for e in (expected, found)]
        assert steps[0] == steps[1], folder
    if len(boards()) == 1:
        return  # W&B is not installed
    (rows, ids), (found_rows, found_ids) = map(read_offline_rows, (whole, continued))
    assert len(ids) == len(found_ids) == 1 and ids != found_ids
    numbers = [row["_step"] for row in found_rows]
    assert numbers == sorted(set(numbers))
    for axis in ("round_000/step", "round_001/step", "round"):
        steps = [[row[axis] for row in r if axis in row] for r in (rows, found_rows)]
        if axis == "round":  # the configuration, base, round 0, its selection, round 1
            assert steps[0] == [0, -1, 0, 0, 1]
        assert sorted(steps[0]) == sorted(steps[1]), axis


@pytest.mark.benchmark
def test_one_device_and_a_4x2_mesh_select_the_same(tmp_path):
    one = in_process(tmp_path / "one", "never", 0, 1, devices=1)
    assert one.returncode == 0, one.stderr
    active.run(tiny_experiment(tmp_path / "mesh", num_partitions=2), CONFIG, lambda line: None)
    first = [tmp_path / name / "round_000" for name in ("one", "mesh")]
    assert read_names(first[0] / "selected.txt") == read_names(first[1] / "selected.txt")
    scores = [read_task_scores(folder / "task_scores.parquet") for folder in first]
    assert scores[0].tasks == scores[1].tasks
    for measure in ("prompt_uncertainty", "prediction_probability"):
        np.testing.assert_allclose(
            getattr(scores[0], measure), getattr(scores[1], measure), atol=1e-5, rtol=0
        )


def test_a_changed_configuration_or_pool_is_refused(finished):
    model_dir, _, _ = finished
    with pytest.raises(UserError, match="tiny.seed: was 0, now 1"):
        active.run(tiny_experiment(model_dir), "tiny.seed = 1\n", lambda line: None)
    pool = tiny_pool(instances=7)
    with pytest.raises(UserError, match="pool: was"):
        active.run(tiny_experiment(model_dir, pool=pool), CONFIG, lambda line: None)


def test_a_truncated_table_is_named(finished, tmp_path):
    model_dir, _, _ = finished
    path = tmp_path / "likelihoods.parquet"
    path.write_bytes((model_dir / "round_000" / "likelihoods.parquet").read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_rows(path)


def test_more_tasks_than_remain_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="TASKS_PER_ROUND = 8 need 8 tasks, 7 remain"):
        active.run(tiny_experiment(tmp_path, tasks_per_round=8), CONFIG, lambda line: None)
    assert not list(tmp_path.glob("round_000/checkpoint_*"))


def test_few_positive_examples_are_reported(tmp_path):
    import dataclasses

    pool = tiny_pool()
    name = pool.splits.remain[0]
    short = dataclasses.replace(
        pool[name],
        instruction=dataclasses.replace(
            pool[name].instruction, positive_examples=pool[name].instruction.positive_examples[:1]
        ),
    )
    changed = TaskPool(
        [short if task == name else pool[task] for task in pool], name="short", splits=pool.splits
    )
    lines: list[str] = []
    with pytest.raises(UserError, match="2 selections"):
        active.run(
            tiny_experiment(tmp_path, pool=changed, rounds=3, tasks_per_round=4),
            CONFIG,
            lines.append,
        )
    experiment = tiny_experiment(tmp_path / "b", pool=changed, rounds=1, evaluate_base=False)
    with pytest.raises(Stopped):
        active.run(experiment, CONFIG, stopping_at("round_000: training", lines))
    assert any("1 tasks have fewer than 2 positive examples" in line for line in lines)
