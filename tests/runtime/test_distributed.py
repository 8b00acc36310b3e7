"""Pods on one machine: layouts agree, interruptions change nothing, the missing are named."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ait_jax.launch import local
from run_files import checkpoints, stable_files
from shared_data import SUPPORT

from ait_jax.errors import ExitCode, UserError
from ait_jax.runtime import distributed
from ait_jax.scorer.likelihoods import read_rows

EXPERIMENT = SUPPORT / "tiny_experiment.py"


def pod(model_dir, *options, processes=2, devices=4, partitions=1):
    """Starts a pod that runs the tiny experiment, and returns its launcher."""
    code = (
        "import sys; from ait_jax.launch import local;"
        f"sys.exit(local.launch({[str(model_dir), *map(str, options)]!r}, {processes}, {devices},"
        f" program=[{str(EXPERIMENT)!r}]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TINY_PARTITIONS": str(partitions)},
    )  # fmt: skip


def finished(launcher, code=0):
    output, _ = launcher.communicate(timeout=400)
    assert launcher.returncode == code, output
    return output


def run(*arguments, code=0, **layout):
    return finished(pod(*arguments, **layout), code)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two uninterrupted rounds by two processes with four devices each."""
    model_dir = tmp_path_factory.mktemp("pod") / "run"
    run(model_dir)
    return model_dir


def assert_same_run(model_dir, expected):
    wanted, there = stable_files(expected), stable_files(model_dir)
    assert list(wanted) == list(there)
    assert [name for name in wanted if wanted[name] != there[name]] == []
    for name, params in checkpoints(expected).items():
        for parameter, values in checkpoints(model_dir)[name].items():
            np.testing.assert_array_equal(values, params[parameter])


def assert_like_run(model_dir, expected):
    """Another layout: the same files and texts, numbers within rounding."""
    wanted, there = stable_files(expected), stable_files(model_dir)
    assert list(wanted) == list(there)
    texts = [n for n in wanted if n.endswith((".txt", "predictions.jsonl", "eval.json"))]
    assert len(texts) > 8
    for name in texts:
        if not name.endswith("model-info.txt"):
            assert there[name] == wanted[name], name
    for name in (n for n in wanted if n.endswith("likelihoods.parquet")):
        rows, reference = read_rows(model_dir / name), read_rows(expected / name)
        ours, theirs = (np.array(table.pop("log_likelihood")) for table in (rows, reference))
        assert rows == reference
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for name in (n for n in wanted if n.endswith("metrics.jsonl")):
        ours, theirs = (
            [json.loads(line) for line in files[name].splitlines()] for files in (there, wanted)
        )
        for line, reference in zip(ours, theirs, strict=True):
            assert line == pytest.approx(reference, abs=1e-3)


# Every pod takes half a minute: all but one run with -m benchmark.
SLOW = pytest.mark.benchmark


@SLOW
@pytest.mark.parametrize("layout", [(2, 2, 4), (1, 8, 1), (2, 2, 1)], ids=str)
def test_layouts_agree(whole, tmp_path, layout):
    processes, devices, partitions = layout
    run(tmp_path / "run", processes=processes, devices=devices, partitions=partitions)
    assert_like_run(tmp_path / "run", whole)


def test_only_the_first_process_speaks_and_writes(whole):
    assert json.loads((whole / "run.json").read_text())["stages"].keys() >= {"round_001/train"}
    assert not list(whole.rglob(".tmp-*"))
    assert len(list(whole.glob("round_*/train/events*"))) == 2


def wait_for(launcher, text):
    """Reads the launcher's lines up to one with `text`."""
    lines = []
    for line in launcher.stdout:
        lines.append(line)
        if re.search(text, line):
            return
    pytest.fail("".join(lines))


def children(launcher):
    """Returns the process ids of a pod's processes, in the order of their start."""
    listed = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


@SLOW
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_and_the_run_continues(whole, tmp_path, victim):
    model_dir = tmp_path / "run"
    launcher = pod(model_dir)
    wait_for(launcher, "round_000: step 1/")
    os.kill(children(launcher)[victim], signal.SIGKILL)
    since = time.monotonic()
    output = finished(launcher, ExitCode.HOST_LOST)
    assert time.monotonic() - since < 60
    assert f"process {victim} was killed by SIGKILL" in output
    assert re.search(rf"process {1 - victim} on \S+: process {victim} on \S+ has died", output)
    assert f"process {1 - victim} exited with {ExitCode.HOST_LOST}" in output
    assert "continuing in" in run(model_dir)
    assert_same_run(model_dir, whole)


@SLOW
@pytest.mark.parametrize("text", ["round_000: step 1/", "round_000: scored"])
def test_a_notice_to_stop_saves_and_exits_with_75(whole, tmp_path, text):
    model_dir = tmp_path / "run"
    launcher = pod(model_dir)
    wait_for(launcher, text)
    os.kill(children(launcher)[1], signal.SIGTERM)
    output = finished(launcher, ExitCode.PREEMPTED)
    assert "told to stop (SIGTERM), and saved; the same command continues" in output
    run(model_dir)
    assert_same_run(model_dir, whole)


@SLOW
def test_ctrl_c_at_the_launcher_saves_in_all_processes(whole, tmp_path):
    model_dir = tmp_path / "run"
    launcher = pod(model_dir)
    wait_for(launcher, "round_000: step 1/")
    launcher.send_signal(signal.SIGINT)
    output = finished(launcher, ExitCode.INTERRUPTED)
    assert output.count("interrupted (Ctrl-C), and saved; the same command continues") == 2
    run(model_dir)
    assert_same_run(model_dir, whole)


@SLOW
def test_a_run_of_one_layout_continues_in_another(whole, tmp_path):
    model_dir = tmp_path / "run"
    launcher = pod(model_dir)
    wait_for(launcher, "round_000: scored")
    os.kill(children(launcher)[1], signal.SIGKILL)
    output = finished(launcher, ExitCode.HOST_LOST)
    assert re.search(r"process 0 on \S+: process 1 on \S+ has died: silent for 30 s", output)
    run(model_dir, processes=1, devices=8)
    assert_like_run(model_dir, whole)


def test_a_mistake_ends_all_with_its_own_code(tmp_path):
    (tmp_path / "round_000").mkdir()
    output = run(tmp_path, code=2)
    assert "has rounds but no run.json" in output


@SLOW
def test_killed_at_ten_random_times(whole, tmp_path):
    """pytest -n0 -m benchmark tests/runtime/test_distributed.py (about 10 minutes)."""
    seconds = random.Random(int(os.environ.get("SEED", "0")))
    for attempt in range(10):
        model_dir = tmp_path / f"run_{attempt}"
        launcher = pod(model_dir)
        wait, victim = seconds.uniform(3, 40), attempt % 2
        try:
            launcher.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            os.kill(children(launcher)[victim], signal.SIGKILL)
            finished(launcher, ExitCode.HOST_LOST)
        run(model_dir)
        assert_same_run(model_dir, whole)
        print(f"attempt {attempt}: process {victim} killed after {wait:.1f} s, same result")


# --- one process ---


def test_with_one_process_everything_passes_its_argument_on():
    assert distributed.own([1, 2, 3]) == [1, 2, 3] and distributed.is_writer()
    assert distributed.broadcast("a", {"b": (1,)}) == {"b": (1,)}
    assert distributed.all_gather(b"ab") == [b"ab"]
    distributed.barrier("a")
    distributed.leave(2, "nobody to tell")


@pytest.mark.parametrize(
    "values, text",
    [
        ({"DISTRIBUTED": "locl"}, "AIT_JAX_DISTRIBUTED=locl is not one of .*'local'"),
        ({"DISTRIBUTED": "local"}, "needs AIT_JAX_COORDINATOR, AIT_JAX_PROCESSES, AIT_JAX_PROCESS"),
        (
            {"DISTRIBUTED": "local", "COORDINATOR": "a:1", "PROCESSES": "2", "PROCESS": "2"},
            "AIT_JAX_PROCESSES=2 and AIT_JAX_PROCESS=2 do not fit",
        ),
    ],
)
def test_wrong_variables(values, text):
    with pytest.raises(UserError, match=text):
        distributed.initialize({f"AIT_JAX_{name}": value for name, value in values.items()})


def test_wrong_numbers_and_nothing_to_run():
    for arguments, text in (
        ((["run"], 0), "--processes=0 must be at least 1"),
        ((["run"], 2, 0), "--devices_per_process=0 must"),
        (([], 2), "give the command after `--`"),
    ):
        with pytest.raises(UserError, match=text):
            local.launch(*arguments)


LEAVING = """
import atexit, threading, time
from ait_jax.runtime import distributed

threads = threading.enumerate
atexit.register(lambda: print("left behind:", [t.name for t in threads()][1:], flush=True))
distributed._SILENCE_SECONDS, distributed._BEAT_SECONDS = 3.0, 0.5
distributed.initialize()
time.sleep(0.0 if distributed.is_writer() else 6.0)
"""


def test_the_first_to_finish_waits_for_the_others_and_leaves_no_thread(tmp_path):
    """A thread that is in C++ when Python ends would now and then abort the process."""
    program = tmp_path / "leaving.py"
    program.write_text(LEAVING)
    code = (
        "import sys; from ait_jax.launch import local;"
        f"sys.exit(local.launch(['leaving'], 2, 1, program=[{str(program)!r}]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("left behind: []") == 2, process.stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.org"}, "a.org,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.org"}, "a.org,localhost,127.0.0.1,::1"),
    ],
)
def test_the_coordinator_is_reached_past_proxies(before, after):
    set_ = distributed.past_proxies("localhost:8476", before | {"http_proxy": "http://p:9"})
    assert set_["no_proxy"] == set_["NO_PROXY"] == set_["no_grpc_proxy"] == after
    environ = {"no_grpc_proxy": "b", "no_proxy": "a", "https_proxy": "http://p:9"}
    kept = distributed.past_proxies("10.0.0.7:8476", environ)
    assert (kept["no_grpc_proxy"], kept["no_proxy"]) == ("b,10.0.0.7", "a,10.0.0.7")
    assert distributed.past_proxies("localhost:8476", before) == {}


def test_processes_find_each_other_where_a_proxy_is_set(tmp_path):
    """Nothing listens at the proxy: connections through it would fail for 300 s."""
    script = tmp_path / "meet.py"
    script.write_text(
        "from ait_jax.runtime import distributed\n"
        "distributed.initialize()\n"
        "print('met', distributed.process_count())\n"
    )
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    code = (
        "import sys; from ait_jax.launch import local;"
        f"sys.exit(local.launch(['x'], 2, 1, program=[{str(script)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | proxies, timeout=100,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("met 2") == 2, done.stdout + done.stderr


def test_a_line_on_the_terminal_stays_one(capsys):
    distributed.say("a\x1b]0;b\x07\nait-jax: forged \u202e" + "x" * 9000)
    err = capsys.readouterr().err
    assert err.startswith(r"ait-jax: a\x1b]0;b\x07\nait-jax: forged \u202e")
    assert err.count("\n") == 1 and len(err) < 5000
