"""SIGTERM: noticed in one process, checked at good places; in several, test_distributed.py."""

import os
import signal
import subprocess
import sys
import time

import pytest
from shared_data import SUPPORT

from ait_jax.errors import ExitCode
from ait_jax.runtime import preemption

EXPERIMENT = SUPPORT / "tiny_experiment.py"


@pytest.fixture
def handled():
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)
    preemption._noticed.clear()


def test_a_signal_is_noticed_and_stops_at_the_next_check(handled):
    preemption.heed()
    preemption.check()
    assert not preemption.is_due()
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.is_due()
    with pytest.raises(preemption.Preempted):
        preemption.check()


def test_one_process_stops_at_a_good_place(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(EXPERIMENT), str(tmp_path / "run")],
        env=os.environ | {"TINY_PARTITIONS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if "round_000: step 1/2" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=200)
    assert process.returncode == ExitCode.PREEMPTED, err
    assert "round_001" not in out
    assert err.splitlines()[-1].startswith("ait-jax: told to stop (SIGTERM), and saved")


POLLING = """
import hashlib, sys, time
from ait_jax import cli
from ait_jax.runtime import preemption

def work(arguments):
    if arguments == ["impatient"]:
        preemption.PATIENCE_SECONDS = 0.5
    preemption.heed_interrupts()
    print("ready", flush=True)
    if arguments == ["polls"]:
        while True:
            try:
                time.sleep(0.01)  # an exception here would be lost, as in a callback of XLA's
            except BaseException:
                pass
            preemption.check()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 27)  # a minute in C
    return 0

cli._main = work
sys.exit(cli.main(sys.argv[1:]))
"""


def interrupted(argument: str, times: int) -> tuple[int, list[str], float]:
    """Returns exit code, lines of the error stream and seconds to the end after the signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", POLLING, argument],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    since = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.splitlines(), time.monotonic() - since


def test_ctrl_c_ends_at_the_next_check():
    code, lines, _ = interrupted("polls", 1)
    assert code == ExitCode.INTERRUPTED
    assert lines == [
        "ait-jax: stopping at the next step; Ctrl-C again ends at once.",
        "ait-jax: interrupted (Ctrl-C), and saved; the same command continues.",
    ]


def test_a_second_ctrl_c_ends_at_once_even_inside_of_c():
    code, lines, seconds = interrupted("computes", 2)
    assert code == ExitCode.INTERRUPTED and seconds < 10
    assert lines[-1] == (
        "ait-jax: interrupted; the same command continues from what was saved before."
    )


def test_ctrl_c_does_not_wait_for_a_compilation():
    code, lines, seconds = interrupted("impatient", 1)
    assert code == ExitCode.INTERRUPTED and seconds < 10
    assert lines[-1].endswith("interrupted; the same command continues from what was saved before.")


def test_a_program_that_was_started_to_ignore_ctrl_c_does():
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from ait_jax.runtime import preemption; preemption.heed_interrupts()\n"
        "signal.raise_signal(signal.SIGINT); print(preemption.is_interrupted())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_ctrl_c_is_as_it_was_once_a_command_is_over():
    program = (
        "import os, signal, threading\n"
        "from ait_jax import cli\nfrom ait_jax.runtime import preemption\n"
        "cli._main = lambda arguments: preemption.heed_interrupts() or 0\n"
        "for _ in range(3): assert cli.main([]) == 0\n"
        "for thread in threading.enumerate()[1:]: thread.join(5)\n"
        "assert threading.active_count() == 1 and signal.set_wakeup_fd(-1) == -1\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print(preemption.is_due())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
