import json
import os
import subprocess
import sys
import threading

import pytest

from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime import lease as lease_module
from ait_jax.runtime.lease import Held, lease

LOCK = "gs://bucket/run/.lock"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Signs of life every tenth of a second, and death after one second without."""
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 1.5)
    monkeypatch.setattr(lease_module, "_LOOK_SECONDS", 0.2)


def written_by(bucket, **changes):
    known = {"id": "another", "host": "elsewhere", "boot": "b", "pid": 17, "beats": 0, **changes}
    bucket.put("bucket/run/.lock", json.dumps(known).encode())


def test_the_object_is_there_while_the_block_runs(bucket):
    with lease(LOCK):
        assert json.loads(bucket.read("bucket/run/.lock"))["pid"] == os.getpid()
    assert bucket.names() == []


def test_a_living_holder_keeps_others_out(bucket, said):
    named = f"held by process {os.getpid()} of .*another --gin.MODEL_DIR"
    with lease(LOCK):
        with pytest.raises(Held, match=named), lease(LOCK):
            pass
        assert len(said) == 1 and "waiting" in said[0]
        assert json.loads(bucket.read("bucket/run/.lock"))["beats"] >= 1
    with lease(LOCK):
        pass


def test_a_dead_holder_of_another_machine_is_replaced_after_a_while(bucket, said):
    written_by(bucket)
    with lease(LOCK):
        assert json.loads(bucket.read("bucket/run/.lock"))["pid"] == os.getpid()
    assert "process 17 of elsewhere" in said[0]


def test_a_dead_process_of_this_machine_is_replaced_at_once(bucket, said):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, boot = lease_module.socket.gethostname(), lease_module._boot()
    written_by(bucket, host=host, boot=boot, pid=ended.pid)
    with lease(LOCK):
        pass
    assert said == []


def test_garbage_is_waited_for_and_replaced(bucket):
    bucket.put("bucket/run/.lock", b"{")
    with lease(LOCK):
        pass
    assert bucket.names() == []


def test_of_two_that_wait_for_a_death_one_gets_it(bucket):
    written_by(bucket)
    outcomes = []

    def want():
        try:
            with lease(LOCK):
                threading.Event().wait(1.5)
                outcomes.append("had it")
        except Held:
            outcomes.append("refused")

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["had it", "refused"]


def test_a_holder_that_was_taken_for_dead_learns_of_it(bucket):
    with pytest.raises(Held, match="process 17 of elsewhere"), lease(LOCK) as holder:
        holder.check()
        written_by(bucket)
        holder.check()
    assert bucket.names() == ["bucket/run/.lock"]


def test_a_run_whose_folder_was_taken_stops_before_it_writes(bucket):
    directory = RunDirectory("gs://bucket/run")
    with pytest.raises(Held), directory.lock():
        directory.open("a = 1\n", {"name": "p", "fingerprint": "f"}, 0)
        written_by(bucket)
        directory.stage("round_000/train", lambda: {"tasks": 1})
    assert json.loads(bucket.read("bucket/run/run.json"))["stages"] == {}
