"""launch/preflight.py: every check fails on a host that is wrong, and names it."""

import os
import subprocess
import sys
import threading
import time

import pytest
from ait_jax.launch import preflight, statuses
from ait_jax.launch.preflight import Devices, Preflight
from processes import environment

from ait_jax.runtime.buckets import Unavailable

GRID = tuple((x, y, 0) for x in range(4) for y in range(4))
GOOD = Devices("tpu", 16, 4, GRID)
IDENTITY = {
    "code": "c" * 64, "commit": "d" * 40, "lock": "e" * 64, "python": "3.11.9",
    "packages": ["jax==0.10.2", "numpy==2.4.6"],
}  # fmt: skip


class Probe:
    """A host as described, in place of this one."""

    def __init__(self, devices=GOOD, free_gb=100.0, skew=0.0, **identity):
        self._devices, self._free_gb, self._skew = devices, free_gb, skew
        self._identity = IDENTITY | identity

    def identity(self):
        return self._identity

    def free_gb(self):
        return self._free_gb

    def now(self):
        return time.time() + self._skew

    def devices(self):
        if isinstance(self._devices, Exception):
            raise self._devices
        if self._devices is None:
            time.sleep(60)
        return self._devices


def check(folder, *probes, hosts=4, arrival=5, checks=5):
    """Runs one host for each probe, together; returns their exit codes and what each said."""
    codes, said = [None] * len(probes), [[] for _ in probes]
    flags = [f"--folder={folder}", f"--hosts={hosts}", "--chips=16", "--topology=4x4",
             f"--arrival_timeout_s={arrival}", f"--checks_timeout_s={checks}",
             "--poll_s=0.02"]  # fmt: skip

    def host(number):
        asked = preflight.parser().parse_args([*flags, f"--host={number}"])
        made = Preflight(asked, probes[number], said[number].append)
        made.report["hostname"] = f"tpu-w-{number}"
        codes[number] = made.run()

    threads = [
        threading.Thread(target=host, args=(number,), daemon=True)
        for number, probe in enumerate(probes)
        if probe is not None
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return codes, ["\n".join(lines) for lines in said]


def test_four_good_hosts(tmp_path):
    codes, said = check(tmp_path, *[Probe()] * 4)
    assert codes == [0] * 4
    assert "4 hosts, 16 tpu devices, same code and packages everywhere" in said[2]


@pytest.mark.parametrize(
    "probe, expected",
    [
        (Probe(code="x" * 64), "host 2 (tpu-w-2): code xxxxxxxxxxxx, but cccccccccccc on host"),
        (Probe(commit="f" * 40), "host 2 (tpu-w-2): commit ffffffffffff, but dddddddddddd on host"),
        (Probe(lock=""), "host 2 (tpu-w-2): lock none, but eeeeeeeeeeee"),
        (Probe(python="3.10.1"), "host 2 (tpu-w-2): python 3.10.1, but 3.11.9"),
        (
            Probe(packages=["jax==0.10.1", "numpy==2.4.6"]),
            "jax==0.10.1, jax==0.10.2",
        ),
        (Probe(free_gb=1.0), "host 2 (tpu-w-2): 1.0 GB of disk are free, 5.0 are needed"),
        (Probe(skew=100.0), "host 2 (tpu-w-2): its clock is +100 s off the bucket's"),
        (Probe(skew=-40.0), "host 2 (tpu-w-2): its clock is -40 s off the bucket's"),
        (Probe(Devices("cpu", 1, 1)), "host 2 (tpu-w-2): JAX's backend is cpu, not tpu"),
        (
            Probe(Devices("tpu", 12, 4, GRID[:12])),
            "host 2 (tpu-w-2): 12 devices in all, not 16",
        ),
        (Probe(Devices("tpu", 16, 3, GRID)), "host 2 (tpu-w-2): 3 devices of its own, not 4"),
        (
            Probe(Devices("tpu", 16, 4, tuple((x, y, 0) for x in range(8) for y in range(2)))),
            "host 2 (tpu-w-2): the topology is 2x8, not 4x4",
        ),
        (
            Probe(RuntimeError("The TPU is already in use")),
            "host 2 (tpu-w-2): JAX found no devices",
        ),
    ],
)
def test_a_wrong_host_is_named_by_all(tmp_path, probe, expected):
    began = time.monotonic()
    codes, said = check(tmp_path, Probe(), Probe(), probe, Probe())
    assert codes == [78] * 4, said
    assert all(expected in text for text in said), said
    assert all("host 1 (" not in text.replace("on host 1 (", "") for text in said)
    assert time.monotonic() - began < 4  # at once, not when the time is up


def test_a_host_that_hangs_is_named(tmp_path):
    codes, said = check(tmp_path, Probe(), Probe(None), Probe(), Probe(), checks=0.5)
    # Not for good: so it is, too, when another host is taken away in between.
    assert codes == [69] * 4 and "JAX found no devices within 0.5 s" in said[1]
    assert "host 1" in said[0]


def test_hosts_that_have_come_are_not_read_again_and_again(tmp_path, monkeypatch):
    read, reads = statuses.read_json, []
    monkeypatch.setattr(statuses, "read_json", lambda path: reads.append(path.name) or read(path))
    late = Probe()
    late.identity = lambda: time.sleep(1) or IDENTITY
    codes, _ = check(tmp_path, *[Probe()] * 3, late)
    assert codes == [0] * 4
    # Each of four reads each of the others' while it is missing, and at the end of both stages.
    assert reads.count("host_0.json") <= 4 * 2 * 3 < reads.count("host_3.json")


def test_a_host_that_does_not_come_is_named(tmp_path):
    codes, said = check(tmp_path, Probe(), Probe(), None, Probe(), arrival=0.3)
    assert codes == [69, 69, None, 69]
    assert "host 2 of 4 did not reach the check of all hosts within 0.3 s" in said[0]
    assert "logs/host_2.log" in said[0]


def test_a_report_of_an_earlier_attempt_is_no_host(tmp_path):
    check(tmp_path, *[Probe()] * 4)
    path = statuses.path_of(tmp_path, "preflight", 2)
    os.utime(path, (time.time() - 60, time.time() - 60))
    codes, said = check(tmp_path, Probe(), Probe(), None, Probe(), arrival=0.3)
    assert codes == [69, 69, None, 69] and "host 2 of 4" in said[0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "preflight").write_text("a file in the way")
    codes, said = check(tmp_path, Probe(), hosts=1)
    assert codes == [78]
    assert "cannot write to" in said[0] and "roles/storage.objectAdmin" in said[0]


def test_hosts_meet_in_a_bucket(bucket):
    codes, said = check("gs://bucket/run", *[Probe()] * 3, Probe(commit="f" * 40))
    assert codes == [78] * 4 and "host 3 (tpu-w-3): commit ffffffffffff" in said[0]
    assert len(bucket.names("bucket/run/preflight/host_")) == 4


def test_a_bucket_that_does_not_answer_is_tried_again(tmp_path, monkeypatch):
    def unavailable(path, value):
        raise Unavailable(f"{path}: the bucket does not answer (TimeoutError)")

    monkeypatch.setattr(statuses, "write_json", unavailable)
    codes, said = check(tmp_path, Probe(), hosts=1)
    assert codes == [1] and "does not answer" in said[0]


def test_one_host_in_a_process_on_cpu(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "ait_jax.launch.preflight", f"--folder={tmp_path}",
                   "--host=0", "--hosts=1", "--expect_backend=cpu", *flags]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True)

    good = run("--chips=8")
    assert good.returncode == 0 and "8 cpu devices" in good.stdout, good.stderr
    bad = run("--chips=4")
    assert bad.returncode == 78 and "8 devices in all, not 4" in bad.stdout
    tpu = run("--chips=8", "--expect_backend=tpu")
    assert tpu.returncode == 78 and "JAX's backend is cpu, not tpu" in tpu.stdout


def test_two_processes_of_jax_distributed(tmp_path):
    """The devices of all processes are counted, and neither takes the other down on leaving."""
    program = (
        "import sys, jax\n"
        "from ait_jax.launch import preflight\n"
        "index, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "start = jax.distributed.initialize\n"
        "jax.distributed.initialize = lambda **_: start(address, 2, index)\n"
        "flags = ['--hosts=2', '--chips=4', '--expect_backend=cpu', '--arrival_timeout_s=60']\n"
        "flags += [f'--folder={folder}', f'--host={index}']\n"
        "asked = preflight.parser().parse_args(flags)\n"
        "probe = preflight.Probe(distributed='tpu')\n"
        "code = preflight.Preflight(asked, probe).run()\n"
        "sys.stdout.flush()\n"
        "import os\nos._exit(code)\n"
    )
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(index), address, str(tmp_path)],
            env=environment(devices=2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 hosts, 4 cpu devices" in outputs[0]


def test_the_code_hash_sees_names_and_bytes(tmp_path):
    (tmp_path / "a.py").write_text("x")
    first = preflight.code_sha256(tmp_path)
    (tmp_path / "a.pyc").write_text("x")
    assert preflight.code_sha256(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert preflight.code_sha256(tmp_path) != first


def test_this_hosts_identity(tmp_path):
    (tmp_path / "lock.txt").write_text("jax==0.10.2\n")
    identity = preflight.Probe("abc", str(tmp_path / "lock.txt")).identity()
    assert identity["commit"] == "abc" and len(identity["lock"]) == 64
    assert any(package.startswith("jax==") for package in identity["packages"])
    assert identity["packages"] == sorted(identity["packages"])
