"""What runs on every host: preflight, then the command, again and again as its exit codes ask.

    python -m ait_jax.launch.worker --folder=gs://B/ID --host=0 --hosts=64 ... -- run ...

The log of the host and its status lie in the folder, where `ait-jax launch tpu-vm` and the other
hosts read them. A status is also this program's memory: after a reboot, or on another machine in
this one's place, it goes on counting from there.
"""

import argparse
import contextlib
import datetime
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ait_jax.launch import bucket
from ait_jax.launch.verdict import judge

from ait_jax.errors import ExitCode
from ait_jax.runtime import files

UPLOAD_EVERY_S = 30.0
# A notice of preemption leaves 30 s before the machine is gone.
GRACE_S = 27.0
LAST_WRITES = 5
# The number of this process among all: of GKE's TPU pods, indexed Kubernetes jobs, SLURM tasks.
HOST_VARIABLES = ("TPU_WORKER_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID")
MAX_LOG_BYTES = 16 * 2**20


class Log:
    """The host's log: written here, echoed, and copied to the bucket every half minute."""

    def __init__(self, local: Path, remote) -> None:
        self.local, self.remote = local, remote
        local.parent.mkdir(parents=True, exist_ok=True)
        if not local.exists():  # another machine in this one's place goes on with its log
            with contextlib.suppress(Exception):
                local.write_bytes(remote.read_bytes())
        self.file = open(local, "ab", buffering=0)  # noqa: SIM115
        self.uploaded = 0
        self.lock = threading.Lock()

    def write(self, data: bytes) -> None:
        self.file.write(data)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def say(self, text: str) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        self.write(f"{now} worker: {text}\n".encode())

    def upload(self) -> None:
        """Copies the log's end; a bucket that does not answer costs no run."""
        with self.lock:
            size = self.local.stat().st_size
            if size == self.uploaded:
                return
            with open(self.local, "rb") as file:
                file.seek(max(size - MAX_LOG_BYTES, 0))
                data = file.read()
            if size > MAX_LOG_BYTES:
                data = b"(earlier lines are on the host alone)\n" + data.partition(b"\n")[2]
            try:
                files.write_bytes(self.remote, data)
                self.uploaded = size
            except Exception as error:
                self.say(f"the log could not be copied to {self.remote}: {error}")


class Worker:
    """One host's part of a run; `run` returns the exit code for whoever restarts it."""

    program = (sys.executable, "-m", "ait_jax.cli")

    def __init__(self, options: argparse.Namespace, command: Sequence[str]) -> None:
        self.options, self.command = options, list(command)
        self.log = Log(
            Path(options.work_dir) / f"host_{options.host}.log",
            bucket.log_path(options.folder, options.host),
        )
        self.status_path = bucket.status_path(options.folder, options.host)
        self.status = {
            "attempt": 0,
            "began": 0.0,
            "exit_code": None,
            "failures": 0,
            "fingerprint": options.fingerprint,
            "host": options.host,
            "hostname": socket.gethostname(),
            "message": "",
            "state": "starting",
            "time": 0.0,
        }
        self.stopping = threading.Event()
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.child: subprocess.Popen | None = None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        known = self._read(self.options.host) or {}
        self.status |= {key: known.get(key, 0) for key in ("attempt", "failures")}
        if known.get("state") == "failed":
            self.log.say(f"failed already: {known.get('message', '')}")
            return self._over(ExitCode.PREFLIGHT)
        if known.get("state") in ("preflight", "running") and not self._survives(known):
            return self._over(ExitCode.PREFLIGHT)
        threading.Thread(target=self._upload_until_ended, daemon=True).start()
        try:
            code = self._attempts()
        finally:
            self.ended.set()
        self.log.upload()
        return code

    def _attempts(self) -> int:
        while True:
            ended = self._ended_elsewhere()
            if ended:
                self._report(*ended)
                return self._over(ExitCode.OK if ended[0] == "done" else ExitCode.PREFLIGHT)
            began = time.monotonic()
            code = self._attempt()
            lasted = time.monotonic() - began
            if self.stopping.is_set():
                self._report("preempted", f"stopped by SIGTERM (exit code {code})", code)
                return ExitCode.PREEMPTED
            verdict = judge(code, self.status["failures"], lasted, self.options.max_retries)
            self.status["failures"] = verdict.failures
            self._report(verdict.state, verdict.reason, code)
            if verdict.state == "failed":
                return self._over(ExitCode.PREFLIGHT)
            if verdict.state == "done" and self._first_host_ends():
                return self._over(ExitCode.OK)
            if self.stopping.wait(verdict.pause_s * self.options.pause_scale):
                self._report("preempted", "stopped by SIGTERM between attempts", code)
                return ExitCode.PREEMPTED

    def _survives(self, known: dict) -> bool:
        """Counts an attempt that ended without a word: with the host, or out of memory.

        But not where this is another machine: that one was taken away, which its owner may do as
        often as they like.
        """
        if known.get("hostname") != self.status["hostname"]:
            self._report("starting", f"{known.get('hostname')} is gone, this is in its place")
            return True
        lasted = float(known.get("time", 0.0)) - float(known.get("began", 0.0))
        verdict = judge(-9, self.status["failures"], lasted, self.options.max_retries)
        self.status["failures"] = verdict.failures
        state = "failed" if verdict.state == "failed" else "starting"
        self._report(state, f"the last attempt ended without a word: {verdict.reason}")
        return state != "failed"

    def _ended_elsewhere(self) -> tuple[str, str] | None:
        """Returns `failed` where another host has given up: the rest would wait for it in vain.

        And `done` where host 0, which writes the shared files, is done: it does not come again.
        """
        for host in range(self.options.hosts):
            status = self._read(host)
            if status and status["state"] == "failed":
                name = f"host {host} ({status.get('hostname')})"
                return "failed", f"given up: {name}: {status.get('message')}"
            if status and status["state"] == "done" and host == 0:
                return "done", "host 0 is done"
        return None

    def _first_host_ends(self) -> bool:
        """Waits for host 0 to end; False if it needs another attempt, and so this host too."""
        while self.options.host != 0:
            status = self._read(0)
            if status and status["state"] in ("done", "failed"):
                return True
            if status and status["state"] in ("waiting", "preempted", "preflight"):
                return False
            if self.stopping.wait(self.options.poll_s):
                return True
        return True

    def _attempt(self) -> int:
        self.status |= {"attempt": self.status["attempt"] + 1, "began": round(time.time(), 1)}
        if not self.options.skip_preflight:
            self._report("preflight", "")
            module = (sys.executable, "-m", "ait_jax.launch.preflight")
            code = self._call([*module, *self._preflight()])
            if code != ExitCode.OK:
                return code
        self._report("running", "")
        return self._call([*self.program, *self.command])

    def _preflight(self) -> list[str]:
        names = ("folder", "host", "hosts", "chips", "topology", "expect_backend", "commit", "lock")
        given = [(name, getattr(self.options, name)) for name in names]
        flags = [f"--{name}={value}" for name, value in given if value not in ("", None)]
        return [*flags, f"--arrival_timeout_s={self.options.arrival_timeout_s}"]

    def _call(self, command: list[str]) -> int:
        """Runs `command` into the log; what it leaves behind is killed: it would keep the TPU."""
        if self.stopping.is_set():
            return ExitCode.PREEMPTED
        self.log.say(f"attempt {self.status['attempt']}: {shlex.join(command)}")
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        if self.stopping.is_set():  # came between the check and the start
            self._stop()
        copying = threading.Thread(target=self._copy, args=(self.child.stdout,), daemon=True)
        copying.start()
        code = self.child.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        copying.join(timeout=5)
        self.child = None
        self.log.say(f"exit code {code}")
        return code

    def _copy(self, pipe) -> None:
        while data := os.read(pipe.fileno(), 2**16):
            self.log.write(data)

    def _stop(self, *_) -> None:
        """On SIGTERM: the command may save; a second signal, after the grace, ends it."""
        first = not self.stopping.is_set()
        self.stopping.set()
        child = self.child
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
            if first:
                timer = threading.Timer(self.options.grace_s, child.kill)
                timer.daemon = True
                timer.start()

    def _report(self, state: str, message: str, code: int | None = None) -> None:
        self.status |= {"state": state, "message": message, "exit_code": code}
        if message:
            self.log.say(f"{state}: {message}")
        self.log.upload()
        # Nothing repeats the last word, and others wait for it.
        for _ in range(LAST_WRITES if state in ("done", "failed") else 1):
            if self._write_status() or self.stopping.wait(self.options.poll_s):
                return

    def _write_status(self) -> bool:
        with self.lock:  # or an older status could come after a newer one
            try:
                bucket.write(self.status_path, self.status | {"time": round(time.time(), 1)})
                return True
            except Exception as error:
                self.log.say(f"the status could not be written: {error}")
                return False

    def _upload_until_ended(self) -> None:
        while not self.ended.wait(UPLOAD_EVERY_S):
            self.log.upload()
            if self.status["state"] not in ("done", "failed"):
                self._write_status()

    def _read(self, host: int) -> dict | None:
        try:
            status = bucket.read(bucket.status_path(self.options.folder, host))
        except Exception as error:  # it is read again; ending here would count as a failure
            self.log.say(f"the status of host {host} could not be read: {error}")
            return None
        same = status and status.get("fingerprint") == self.options.fingerprint
        return status if same and isinstance(status.get("state"), str) else None

    def _over(self, code: int) -> int:
        """Host 0 deletes the TPU if nobody else has: an idle one costs as much as a busy one."""
        if not self.options.when_over or self.options.host != 0:
            return code
        self.log.upload()
        if not self.stopping.wait(self.options.when_over_after_s):
            self.log.say(f"nobody has deleted this TPU: {self.options.when_over}")
            line = shlex.split(self.options.when_over)
            done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.log.write(done.stdout)
            if done.returncode:
                self.log.say("it could not be deleted from here and goes on costing")
        return code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ait_jax.launch.worker", allow_abbrev=False)
    parser.add_argument("--run_id", required=True)
    parser.add_argument("--folder", required=True, help="for logs and statuses, all hosts' own")
    parser.add_argument("--host", type=int, help="default: as GKE or SLURM numbers it")
    parser.add_argument("--hosts", type=int, required=True)
    parser.add_argument("--chips", type=int, required=True, help="JAX devices of all hosts")
    parser.add_argument("--topology", default="")
    parser.add_argument("--expect_backend", default="tpu")
    parser.add_argument("--commit", default="")
    parser.add_argument("--lock", default="", help="the lock file that was installed by")
    parser.add_argument("--fingerprint", default="")
    parser.add_argument("--max_retries", type=int, default=5)
    parser.add_argument("--work_dir", required=True)
    parser.add_argument("--skip_preflight", action="store_true")
    parser.add_argument("--arrival_timeout_s", type=float, default=900.0)
    parser.add_argument("--poll_s", type=float, default=15.0)
    parser.add_argument("--pause_scale", type=float, default=1.0)
    parser.add_argument("--grace_s", type=float, default=GRACE_S, help="to save after SIGTERM")
    parser.add_argument("--when_over", default="", help="a command line for host 0 at the end")
    parser.add_argument("--when_over_after_s", type=float, default=900.0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:split])
    if options.host is None:
        number = next((os.environ[name] for name in HOST_VARIABLES if os.environ.get(name)), "")
        if not number.isdigit():
            parser().error(f"--host is missing, and {', '.join(HOST_VARIABLES)} are not set")
        options.host = int(number)
    command = arguments[split + 1 :]
    if not command:
        parser().error("the command is missing after --")
    return Worker(options, command).run()


if __name__ == "__main__":
    sys.exit(main())
