"""schedule.py with a stand-in for `ait-jax run`: order, sharing of round 0, failures, signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shared_data import SUPPORT

from ait_jax.compare import schedule
from ait_jax.compare.schedule import Job
from ait_jax.errors import UserError

STAND_IN = (str(SUPPORT / "stand_in_run.py"),)


def jobs(out: Path, strategies=("random", "uncertain", "easy"), seeds=(0, 1)) -> list[Job]:
    """Random needs no scores, and comes first in the user's list."""
    made = []
    for seed in seeds:
        for strategy in strategies:
            folder = out / f"{strategy}_{seed}"
            arguments = ("run", f"--gin.MODEL_DIR={folder}")
            log = out / "logs" / f"{folder.name}.log"
            made.append(Job(strategy, seed, folder, arguments, log, 2, strategy != "random"))
    return made


def run(made, processes=1):
    return schedule.run(made, processes, program=STAND_IN, interval=0.02)


def calls(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "calls.jsonl").read_text().splitlines()]


def test_one_run_of_a_seed_goes_first_and_the_others_take_over_its_round_0(tmp_path, said):
    failed = run(jobs(tmp_path))
    made = {call["run"]: call for call in calls(tmp_path)}
    assert failed == [] and len(made) == 6
    assert next(iter(made)) == "uncertain_0", "the first that has scores to offer"
    assert made["uncertain_0"]["from"] == made["uncertain_1"]["from"] == ""
    assert made["random_0"]["from"] == "uncertain_0" and made["easy_1"]["from"] == "uncertain_1"
    assert made["easy_0"]["cpus"] == ""
    assert "random_1: round 1 of 0 to 1: test ROUGE-L 1.50" in said
    assert (tmp_path / "logs" / "easy_0.log").read_text() == f"at work in {tmp_path / 'easy_0'}\n"


def test_in_parallel_nobody_waits_for_more_than_round_0(tmp_path):
    run(jobs(tmp_path), processes=3)
    made = calls(tmp_path)
    assert {call["run"] for call in made[:2]} == {"uncertain_0", "uncertain_1"}
    assert [call for call in made[2:] if not call["from"]] == []
    assert [call["after"] for call in made[:2]] == [[], []]
    shares = {call["cpus"] for call in made}
    assert shares <= {str(cpu) for cpu in range(os.cpu_count() or 1)} or all(
        "," in s for s in shares
    )


def test_finished_runs_are_not_made_again_and_others_go_on_by_themselves(tmp_path, said):
    run(jobs(tmp_path, seeds=(0,)))
    state = json.loads((tmp_path / "easy_0" / "run.json").read_text())
    del state["stages"]["round_001/evaluate"]
    (tmp_path / "easy_0" / "run.json").write_text(json.dumps(state))
    (tmp_path / "calls.jsonl").unlink()
    run(jobs(tmp_path, seeds=(0,)))
    (call,) = calls(tmp_path)
    assert (call["run"], call["from"]) == ("easy_0", "") and "random_0: finished before" in said


def test_a_failed_run_is_told_and_another_one_gives_round_0(tmp_path, said):
    (tmp_path / "uncertain_0").mkdir()
    (tmp_path / "uncertain_0" / "fail").write_text("1")
    failed = run(jobs(tmp_path))
    assert [job.name for job in failed] == ["uncertain_0"]
    made = {call["run"]: call["from"] for call in calls(tmp_path)}
    assert made["easy_0"] == "" and made["random_0"] == "easy_0" and made["easy_1"] == "uncertain_1"
    (told,) = [line for line in said if " failed (" in line]
    assert "exit code 1" in told and told.endswith("  a reason, at length")


def test_a_users_mistake_stops_all(tmp_path):
    (tmp_path / "uncertain_0").mkdir()
    (tmp_path / "uncertain_0" / "fail").write_text("2")
    with pytest.raises(UserError, match="uncertain_0 failed .exit code 2.*\n.*\n  a reason"):
        run(jobs(tmp_path))
    assert len(calls(tmp_path)) == 1


def test_sigterm_is_handed_on_and_waited_for(tmp_path):
    (tmp_path / "uncertain_0").mkdir()
    (tmp_path / "uncertain_0" / "wait").write_text("")
    made = jobs(tmp_path)

    def stop():
        while not (tmp_path / "uncertain_0" / "waiting").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(schedule.Stopped) as stopped:
        run(made)
    assert stopped.value.number == signal.SIGTERM
    (waited,) = [job for job in made if job.name == "uncertain_0"]
    assert waited.code == 75 and len(calls(tmp_path)) == 1


def test_processors_are_divided():
    cpus = sorted(os.sched_getaffinity(0))
    slots = schedule._slots(2)
    if len(cpus) > 1:
        assert sorted(int(cpu) for slot in slots for cpu in slot.split(",")) == cpus
    assert schedule._slots(1) == [""] and len(schedule._slots(len(cpus) + 3)) == len(cpus) + 3


def test_a_child_ends_with_its_parent_and_keeps_to_its_processors():
    cpu = min(os.sched_getaffinity(0))
    code = (
        "import os, runpy, sys, time\n"
        "from ait_jax import cli\n"
        "def main(arguments):\n"
        "    print(arguments, sorted(os.sched_getaffinity(0)), flush=True)\n"
        "    time.sleep(60)\n"
        "cli.main = main\n"
        "sys.argv[0] = 'child'\n"
        "runpy.run_module('ait_jax.child', run_name='__main__')\n"
    )
    program = (
        "import os, subprocess, sys\n"
        f"code, cpu = {code!r}, '{cpu}'\n"
        "command = [sys.executable, '-c', code, str(os.getpid()), cpu, 'run']\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "os._exit(9)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    pid, said = output.split(" ", 1)
    assert said.strip() == f"['run'] [{cpu}]"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _is_alive(int(pid)):
        time.sleep(0.05)
    assert not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False
