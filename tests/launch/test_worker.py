"""launch/worker.py: attempts by exit codes, SIGTERM, memory, logs, other hosts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from ait_jax.launch import statuses, worker
from ait_jax.launch.worker import judge

# Ends with the codes in the file `codes`, one an attempt; "sleep" waits for SIGTERM, ends with 75.
SCRIPTED = """
import pathlib, signal, sys, time
codes = pathlib.Path(sys.argv[1])
first, *rest = codes.read_text().split()
codes.write_text(" ".join(rest))
print("attempt says", sys.argv[2:], flush=True)
if first == "sleep":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(75)))
    print("sleeping", flush=True)
    time.sleep(60)
sys.exit(int(first))
"""


@pytest.fixture
def make(tmp_path):
    """Makes a worker whose command ends as scripted."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def make(codes: str, *flags: str, host: int = 0, hosts: int = 1, command=("run",)):
        codes_file = tmp_path / f"codes_{host}"
        codes_file.write_text(codes)
        options = worker.parser().parse_args(
            [f"--folder={tmp_path / 'bucket'}", f"--host={host}", f"--hosts={hosts}", "--chips=8",
             "--run_id=a", f"--work_dir={tmp_path / 'work'}", "--fingerprint=f", "--poll_s=0.05",
             "--skip_preflight", "--pause_scale=0", "--when_over_after_s=0", *flags]
        )  # fmt: skip
        made = worker.Worker(options, command)
        made.program = (sys.executable, "-S", "-E", "-c", SCRIPTED, str(codes_file))
        made.codes = codes_file
        return made

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


def status(tmp_path, host: int = 0) -> dict:
    return statuses.read_json(statuses.path_of(tmp_path / "bucket", "status", host))


@pytest.mark.parametrize(
    "code, failures, lasted, state, counted",
    [
        (0, 2, 10, "done", 2),
        (2, 0, 10, "failed", 0),
        (78, 0, 10, "failed", 0),
        (75, 5, 10, "preempted", 5),
        (69, 0, 10, "waiting", 1),
        (1, 4, 10, "waiting", 5),
        (1, 5, 10, "failed", 6),
        (-9, 5, 10, "failed", 6),
        (1, 5, 4000, "waiting", 1),  # a long attempt ends the series
    ],
)
def test_verdicts(code, failures, lasted, state, counted):
    verdict = judge(code, failures, lasted, max_retries=5)
    assert (verdict.state, verdict.failures) == (state, counted)


def test_pauses_grow_and_are_bounded():
    pauses = [judge(1, failures, 1, 20).pause_s for failures in range(8)]
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


def test_retries_until_done(make, tmp_path):
    made = make("1 69 75 0", command=("run", "--gin.A=$x 'y'"))
    assert made.run() == 0
    end = status(tmp_path)
    assert (end["state"], end["attempt"], end["failures"]) == ("done", 4, 2)
    log = statuses.path_of(tmp_path / "bucket", "logs", 0).read_text()
    assert log.count("attempt says ['run', \"--gin.A=$x 'y'\"]") == 4
    assert "failed (exit code 1); retry 1 of 5" in log
    assert "another host was lost (exit code 69); retry 2 of 5" in log
    assert "preempted, progress saved" in log


def test_the_users_mistake_is_not_retried(make, tmp_path):
    made = make("2 0")
    assert made.run() == 78
    assert made.codes.read_text() == "0" and status(tmp_path)["state"] == "failed"
    assert "a mistake in the command (exit code 2)" in status(tmp_path)["message"]


def test_retries_are_bounded_and_preemption_does_not_count(make, tmp_path):
    made = make("1 75 75 75 1 1 0", "--max_retries=2")
    assert made.run() == 78
    assert made.codes.read_text() == "0"
    assert "2 retries are used up" in status(tmp_path)["message"]


def test_sigterm_lets_the_command_save_and_the_next_start_goes_on(make, tmp_path):
    made = make("1 sleep 0")
    log = tmp_path / "work" / "host_0.log"

    def terminate():
        while "\nsleeping\n" not in log.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    assert made.run() == 75
    stopped = status(tmp_path)
    assert stopped["state"] == "preempted" and "exit code 75" in stopped["message"]
    assert "saved" in log.read_text()
    # Another machine in this one's place: the log goes on, failures are not forgotten.
    log.unlink()
    made = make("0")
    assert made.run() == 0
    end = status(tmp_path)
    assert (end["attempt"], end["failures"]) == (3, 1)
    assert "saved" in statuses.path_of(tmp_path / "bucket", "logs", 0).read_text()


def test_an_attempt_that_ended_without_a_word_counts(make, tmp_path):
    silent = {"attempt": 3, "began": 1000.0, "failures": 5, "fingerprint": "f", "state": "running",
              "hostname": socket.gethostname()}  # fmt: skip
    statuses.write_json(
        statuses.path_of(tmp_path / "bucket", "status", 0), silent | {"host": 0, "time": 1500.0}
    )
    assert make("0").run() == 78
    assert "ended without a status" in status(tmp_path)["message"]
    statuses.write_json(
        statuses.path_of(tmp_path / "bucket", "status", 0), silent | {"host": 0, "time": 9999.0}
    )
    assert make("0").run() == 0  # it had lasted for hours


def test_a_machine_that_was_taken_away_without_notice_is_no_failure(make, tmp_path):
    silent = {"attempt": 3, "began": 1000.0, "failures": 5, "fingerprint": "f", "state": "running",
              "host": 0, "time": 1500.0, "hostname": "another"}  # fmt: skip
    statuses.write_json(statuses.path_of(tmp_path / "bucket", "status", 0), silent)
    assert make("1 0").run() == 78  # the sixth failure is this machine's own
    log = statuses.path_of(tmp_path / "bucket", "logs", 0).read_text()
    assert "replaces another, which is gone" in log and "attempt 4" in log


def test_a_last_word_that_could_not_be_written_is_written_again(make, tmp_path, monkeypatch):
    write, failing = statuses.write_json, [0]

    def sometimes(path, value):
        if value["state"] == "done" and failing[0] < 2:
            failing[0] += 1
            raise OSError("no network")
        write(path, value)

    monkeypatch.setattr(statuses, "write_json", sometimes)
    assert make("0").run() == 0
    assert failing == [2] and status(tmp_path)["state"] == "done"


def test_statuses_that_cannot_be_read_are_no_failure(make, tmp_path, monkeypatch):
    def fail(path):
        raise OSError("no network")

    monkeypatch.setattr(worker.files, "read_text", fail)
    made = make("0", host=0, hosts=2)
    assert made.run() == 0
    assert (
        "cannot read the status of host 0: no network"
        in (tmp_path / "work" / "host_0.log").read_text()
    )


def test_a_command_that_does_not_save_in_time_is_ended(make, tmp_path):
    made = make("sleep", "--grace_s=0.2")
    stubborn = SCRIPTED.replace('(print("saved", flush=True), sys.exit(75))', "None")
    made.program = (*made.program[:4], stubborn, str(made.codes))
    began = time.monotonic()

    def terminate():
        while "\nsleeping\n" not in (tmp_path / "work" / "host_0.log").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    assert made.run() == 75 and time.monotonic() - began < 20
    assert "exit code -9" in status(tmp_path)["message"]


def test_a_run_that_was_given_up_is_not_started_again(make, tmp_path):
    make("2").run()
    made = make("0")
    assert made.run() == 78 and made.codes.read_text() == "0"
    # But another command is.
    assert make("0", "--fingerprint=g").run() == 0


def test_a_host_that_gave_up_ends_the_others(make, tmp_path):
    make("2", host=1, hosts=2).run()
    made = make("0", host=0, hosts=2)
    assert made.run() == 78 and made.codes.read_text() == "0"
    assert status(tmp_path)["message"].startswith("given up: host 1 (")


def test_a_host_waits_for_host_0_and_comes_again_when_it_does(make, tmp_path):
    """Host 1 is done, host 0 (which writes the shared files) needs another attempt."""
    path = statuses.path_of(tmp_path / "bucket", "status", 0)
    state = {"attempt": 1, "fingerprint": "f", "host": 0, "state": "waiting", "time": time.time()}
    statuses.write_json(path, state)

    made = make("0 0", host=1, hosts=2)
    attempt, first = made._attempt, []

    def attempt_of_both():
        if first:
            statuses.write_json(path, state | {"state": "done"})
        first.append(1)
        return attempt()

    made._attempt = attempt_of_both
    assert made.run() == 0
    assert status(tmp_path, 1)["attempt"] == 2


def test_when_host_0_is_done_a_host_that_comes_late_is_too(make, tmp_path):
    make("0").run()
    made = make("1", host=1, hosts=2)
    assert made.run() == 0 and made.codes.read_text() == "1"


def test_host_0_deletes_the_tpu_when_nobody_else_does(make, tmp_path):
    line = f"touch '{tmp_path}/deleted it'"
    assert make("0", f"--when_over={line}").run() == 0
    assert (tmp_path / "deleted it").exists()
    (tmp_path / "deleted it").unlink()
    make("2", f"--when_over={line}", host=1, hosts=2).run()
    assert not (tmp_path / "deleted it").exists()


def test_children_left_behind_are_killed(make, tmp_path):
    made = make("0")
    made.program = (
        "sh", "-c", f"sleep 300 > /dev/null 2>&1 & echo $! > {tmp_path}/child; exit 0",
    )  # fmt: skip
    assert made.run() == 0
    child = int((tmp_path / "child").read_text())
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True)
    assert state.stdout.strip()[:1] in ("", "Z")


def test_a_bucket_that_fails_does_not_stop_the_run(make, tmp_path, monkeypatch):
    made = make("1 0")

    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr(statuses, "write_json", fail)
    monkeypatch.setattr(worker.files, "write_bytes", fail)
    assert made.run() == 0
    assert "cannot write the status" in (tmp_path / "work" / "host_0.log").read_text()


def test_long_logs_keep_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MAX_LOG_BYTES", 100)
    log = worker.Log(tmp_path / "a.log", tmp_path / "remote.log")
    for number in range(50):
        log.write(f"line {number}\n".encode())
    log.upload()
    lines = (tmp_path / "remote.log").read_text().splitlines()
    assert lines[0].startswith("(earlier") and lines[-1] == "line 49" and len(lines) < 16


def test_as_a_process_with_preflight(tmp_path):
    """The module itself: preflight on 8 virtual CPU devices, then a command that is a mistake."""
    arguments = [
        "--run_id=a", f"--folder={tmp_path}/bucket", "--hosts=1", "--chips=8", "--fingerprint=f",
        "--expect_backend=cpu", f"--work_dir={tmp_path}/work", "--", "run", "--gin_file=none.gin",
    ]  # fmt: skip
    environment = os.environ | {"SLURM_PROCID": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "ait_jax.launch.worker", *arguments],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 78, done.stdout
    assert "preflight: 1 hosts, 8 cpu devices, same code" in done.stdout
    assert "none.gin" in done.stdout  # the command's own message is in the log
    end = json.loads((tmp_path / "bucket" / "status" / "host_0.json").read_text())
    assert end["state"] == "failed" and end["exit_code"] == 2 and end["attempt"] == 1


def test_a_host_number_is_needed(capsys, monkeypatch):
    for name in worker.HOST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit):
        worker.main(
            ["--run_id=a", "--folder=b", "--hosts=1", "--chips=1", "--work_dir=c", "--", "run"]
        )
    assert "TPU_WORKER_ID" in capsys.readouterr().err
