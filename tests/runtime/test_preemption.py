"""SIGTERM: noticed in one process, checked at good places; in several, test_distributed.py."""

import os
import signal
import subprocess
import sys

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
