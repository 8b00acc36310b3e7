"""metrics.jsonl, the step log and TensorBoard events."""

import json

import pytest

from ait_jax.trainer import metrics
from ait_jax.trainer.metrics import MetricsFile, TrainingLog, TrainingWork

VALUES = {"loss": 2.5, "accuracy": 0.25, "grad_norm": 1.0, "tokens": 40.0}


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (10, 20, 30):
        file.write(step, {"loss": step / 10})
    whole = path.read_bytes()
    resumed = MetricsFile(path, 20)
    assert [line["step"] for line in resumed.lines()] == [10, 20]
    resumed.write(30, {"loss": 3.0})
    assert path.read_bytes() == whole


def test_a_line_cut_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 1.0}\n{"step": 20, "lo')
    MetricsFile(path, 20)
    assert path.read_text() == '{"step": 10, "loss": 1.0}\n'


def test_a_fresh_start_drops_everything(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 1.0}\n')
    MetricsFile(path, 0)
    assert path.read_text() == ""


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def peak(monkeypatch):
    monkeypatch.setattr(metrics, "peak_flops", lambda: 1e9)


def work(tokens, flops):
    return TrainingWork(steps=1, tokens=tokens, padded_tokens=2000, flops=flops)


def test_the_step_line_and_its_speed(tmp_path, clock, peak, said):
    log = TrainingLog(tmp_path, 0, 1000)
    log.count(work(1500, 1e8))
    log.count(work(1500, 1e8))
    clock[0] += 2.0
    log.step(20, VALUES, 5e-5)
    log.count(work(100, 1e7))
    clock[0] += 1.0
    log.step(30, VALUES, None)
    log.close()
    assert said == [
        "step   20/1000  loss 2.5000  accuracy 0.250  1,500 tokens/s  MFU 10.0%",
        "step   30/1000  loss 2.5000  accuracy 0.250  100 tokens/s  MFU 1.0%",
    ]
    # Speed depends on the machine and the hour, so the file does without.
    assert lines(tmp_path) == [
        {"step": 20, **VALUES, "learning_rate": 5e-5},
        {"step": 30, **VALUES},
    ]


def test_an_evaluation_does_not_count_as_training_time(tmp_path, clock, peak, said):
    log = TrainingLog(tmp_path, 0, 10)
    log.count(work(100, 1e7))
    clock[0] += 1.0  # training whose period is not over

    def evaluate():
        clock[0] += 50.0
        return {"rougeL": 31.5}

    assert log.evaluation(5, evaluate) == {"rougeL": 31.5}
    log.count(work(300, 3e7))
    clock[0] += 1.0
    log.step(10, VALUES, None)
    log.close()
    assert "300 tokens/s" in said[0]
    assert lines(tmp_path)[0] == {"step": 5, "dev/rougeL": 31.5}
    assert log.work == TrainingWork(2, 400, 4000, 4e7, seconds=2.0, evaluation_seconds=50.0)
    assert log.work.summary() == {
        "steps": 2,
        "tokens": 400,
        "padding_fraction": 0.9,
        "tokens_per_second": 200.0,
        "mfu": 0.02,
        "host_wait": 0.0,
        "evaluation_seconds": 50.0,
    }
    assert log.work.describe() == "2 steps at 200 tokens/s, padding 90.0%, MFU 2.0%"


def test_no_work_says_nothing():
    assert TrainingWork().summary() == {} and TrainingWork().describe() == ""


def test_tensorboard_events(tmp_path, peak):
    log = TrainingLog(tmp_path, 0, 10)
    log.count(work(100, 1e7))
    log.step(10, VALUES, 1e-3)
    log.evaluation(10, lambda: {"rougeL": 31.5})
    log.close()
    (events,) = (tmp_path / "train").iterdir()
    content = events.read_bytes()
    for tag in ("train/loss", "train/tokens_per_second", "train/mfu", "dev/rougeL"):
        assert tag.encode() in content
