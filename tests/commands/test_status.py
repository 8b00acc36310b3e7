"""`ait-jax status`: what it says of runs that go on, ended, died or are none; exit codes."""

import fcntl
import json
import socket
import time

import pytest

from ait_jax import cli
from ait_jax.rounds import run_status
from ait_jax.rounds.run_directory import RunDirectory

EVALUATED = {"test": {"rougeL": 8.5, "cls": {"rougeL": None}, "gen": {"rougeL": 8.5}}}
PLAN = [
    ["base/evaluate", 9],
    *([f"round_00{r}/{k}", 16] for r in (0, 1) for k in ("train", "evaluate")),
]
LIVE = {
    "kind": "run", "state": "running", "problem": "", "host": socket.gethostname(), "pid": 7,
    "seconds": 100.0, "plan": PLAN, "stage": "round_001/train", "stage_seconds": 20.0,
    "activities": [{"what": "training", "done": 3, "total": 8, "note": "", "seconds_left": 61.0}],
    "losses": [3.0, 2.0], "tokens_per_second": 1234.0, "mfu": 0.25,
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    """A run of two rounds whose second one trains; nobody holds its lock."""
    directory = RunDirectory(tmp_path / "runs" / "mini")
    with directory.lock():
        config = (
            "# Macros:\nROUNDS = 2\nSTRATEGY = @selection.Random()\n"
            "experiment.Experiment.rounds = %ROUNDS\n"
        )
        directory.open(config, {"name": "mini", "fingerprint": "x"}, 0)
        for name, result in {
            "base/evaluate": EVALUATED,
            "round_000/train": {"tasks": 16},
            "round_000/evaluate": {**EVALUATED, "test": EVALUATED["test"] | {"rougeL": 9.25}},
        }.items():
            directory.stage(name, lambda result=result: result)
            directory.add_timing(name, 10.0)
    say(directory.path)
    return directory.path


def say(path, **changes) -> None:
    (path / "live.json").write_text(json.dumps(LIVE | {"updated": time.time()} | changes))


def status(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main(["status", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_running_run(run_dir, capsys):
    (run_dir / "round_001").mkdir()
    (run_dir / "round_001" / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 4.0}\n{"step": 2, "loss": 1.5}\n{"st'
    )
    with RunDirectory(run_dir).lock():
        code, out, _ = status(capsys, run_dir)
        as_json = json.loads(status(capsys, run_dir, "--json")[1])
    assert code == 0
    for text in (
        "run on the pool 'mini', Random, seed 0",
        "running on",
        "process 7",
        "round_001 (2 of 2)  train",
        "3/8",
        "1 min 01 s left",
        "loss 1.5000 █▁",
        "1,234 tokens/s",
        "MFU 25.0%",
        "next: round_001/evaluate",
        "9.25",
        "gain",
        "run: about 1 min 11 s left",
    ):
        assert text in out, (text, out)
    assert (as_json["state"], as_json["losses"], as_json["seconds_left"]) == (
        "running",
        [4.0, 1.5],
        71.0,
    )
    assert as_json["curve"][1]["num_tasks"] == 16


def test_scores_without_a_strategy_name_none(tmp_path, capsys):
    directory = RunDirectory(tmp_path / "scores")
    with directory.lock():
        config = "# Macros:\nSTRATEGY = None\nscoring.Scoring.strategy = %STRATEGY\n"
        directory.open(config, {"name": "mini", "fingerprint": "x"}, 0)
    _, out, _ = status(capsys, directory.path)
    assert "on the pool 'mini', seed 0" in out


def test_ends_are_told_apart(run_dir, capsys):
    code, out, _ = status(capsys, run_dir)
    assert code == 3 and "killed" in out and "3 of 5 stages done; stopped in round_001/train" in out
    assert "next: round_001/train (the same command continues)" in out
    say(run_dir, state="failed", problem="UserError: \x1b[2Jdisk full", stage="round_001/train")
    code, out, _ = status(capsys, run_dir)
    assert code == 3 and "last problem: UserError: \\x1b[2Jdisk full" in out and "\x1b" not in out
    # Another machine's run: only what it writes tells.
    say(run_dir, host="elsewhere")
    assert status(capsys, run_dir)[0] == 0
    say(run_dir, host="elsewhere", updated=time.time() - 1000)
    assert status(capsys, run_dir)[0] == 3
    directory = RunDirectory(run_dir)
    directory.open((run_dir / "config.gin").read_text(), {"name": "mini", "fingerprint": "x"}, 0)
    for name in ("round_001/train", "round_001/evaluate"):
        directory.stage(name, lambda n=name: EVALUATED if "evaluate" in n else {"tasks": 3})
    (run_dir / "live.json").unlink()  # of a version before it
    code, out, _ = status(capsys, run_dir)
    assert code == 0 and out.splitlines()[1] == "finished"


def test_looking_does_not_disturb_the_lock(run_dir):
    held = open(run_dir / ".lock")  # noqa: SIM115 - a timer closes it
    fcntl.flock(held, fcntl.LOCK_SH)  # what a look does, for an instant
    import threading

    threading.Timer(0.06, held.close).start()
    with RunDirectory(run_dir).lock():
        assert run_status.read(run_dir)["state"] == "running"
    assert run_status.read(run_dir)["state"] == "killed"


def test_follow_ends_with_the_run(run_dir, capsys, monkeypatch):
    monkeypatch.setattr("ait_jax.commands.status_command._FOLLOW_SECONDS", 0.01)
    lock = RunDirectory(run_dir).lock()
    lock.__enter__()
    looks = []
    original = run_status.read

    def read(path):
        looks.append(path)
        if len(looks) == 3:
            lock.__exit__(None, None, None)
            say(run_dir, state="finished", stage=None)
        return original(path)

    monkeypatch.setattr(run_status, "read", read)
    code, out, _ = status(capsys, run_dir, "--follow")
    assert code == 0 and len(looks) == 3
    assert out.splitlines()[0].startswith("running, round_001/train, training 3/8, 3/5 stages")
    assert "finished" in out.splitlines()[2]


def test_folders_that_are_no_run(run_dir, capsys):
    runs = run_dir.parent
    code, out, _ = status(capsys, runs)
    assert code == 3 and out.startswith(
        "mini  killed, round_001/train, 3/5 stages, test ROUGE-L 9.25"
    )
    for given, text in {
        runs / "mnii": f"Did you mean '{run_dir}'?",
        run_dir / "round_000": "it is inside one",
        runs / ".." / "nothing": "does not exist",
    }.items():
        if given.name == "round_000":
            given.mkdir(exist_ok=True)
        code, out, err = status(capsys, given)
        assert code == 2 and out == "" and text in err and err.count("\n") == 1
    (run_dir / "run.json").write_text('{"stages": [')
    code, _, err = status(capsys, run_dir)
    assert code == 2 and "run.json is damaged" in err
    assert "mini  damaged" in status(capsys, runs)[1]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"state": 5, "plan": [[1]], "activities": [{"done": "x"}], "updated": "y", "stage": []}',
    ],
)
def test_a_damaged_live_file_is_as_good_as_none(run_dir, capsys, content):
    (run_dir / "live.json").write_text(content)
    code, out, _ = status(capsys, run_dir)
    assert code == 3 and out.splitlines()[1] == "stopped"
