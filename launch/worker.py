"""What runs on every host: preflight, then the command, repeated as its exit codes demand.

    python -m ait_jax.launch.worker --folder=gs://B/ID --host=0 --hosts=64 ... -- run ...

The host's log and status lie in the folder, where `ait-jax launch tpu-vm` and the other hosts read
them. The status is also this program's memory: after a reboot, or on a replacement machine, it goes
on counting from there.
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
from typing import Any, NamedTuple

from ait_jax.launch import preflight, statuses
from ait_jax.launch.launch_spec import flags
from ait_jax.launch.statuses import Status

from ait_jax.errors import ExitCode
from ait_jax.runtime import disk, files

UPLOAD_EVERY_S = 30.0
# A preemption notice comes 30 s before the machine is gone.
GRACE_S = 27.0
LAST_WRITES = 5
# The index of this process: of GKE's TPU pods, indexed Kubernetes jobs, SLURM tasks.
HOST_VARIABLES = ("TPU_WORKER_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID")
MAX_LOG_BYTES = 16 * 2**20
# A failure after this long starts a new series: it does not add to last week's.
SERIES_ENDS_AFTER_S = 3600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 300.0


class Verdict(NamedTuple):
    """What to do after an attempt."""

    state: str  # `done`, `failed` (final), `preempted` or `waiting` (another attempt follows)
    failures: int  # in the series so far, this one included if it counts
    pause_s: float  # until the next attempt
    reason: str


def judge(code: int, failures: int, lasted_s: float, max_retries: int) -> Verdict:
    """Returns what follows from an exit code (negative: the signal that killed the process).

    Preemption is retried and does not count. The user's mistakes and a failed preflight are final.
    Anything else is retried with growing pauses, `max_retries` times in a series.
    """
    if code == ExitCode.OK:
        return Verdict("done", failures, 0.0, "exit code 0")
    if code == ExitCode.PREEMPTED:
        return Verdict("preempted", failures, _FIRST_PAUSE_S, "preempted, progress saved")
    if code in (ExitCode.USER_ERROR, ExitCode.PREFLIGHT):
        what = "a mistake in the command" if code == ExitCode.USER_ERROR else "preflight failed"
        return Verdict("failed", failures, 0.0, f"{what} (exit code {code}); not retried")
    failures = 1 if lasted_s >= SERIES_ENDS_AFTER_S else failures + 1
    if code < 0:
        what = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    elif code == ExitCode.HOST_LOST:
        what = f"another host was lost (exit code {code})"
    else:
        what = f"failed (exit code {code})"
    if failures > max_retries:
        return Verdict("failed", failures, 0.0, f"{what}; {max_retries} retries are used up")
    pause = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
    return Verdict("waiting", failures, pause, f"{what}; retry {failures} of {max_retries}")


class Log:
    """The host's log: written here, echoed, and copied to the bucket every half minute."""

    def __init__(self, local: Path, remote: Any) -> None:
        self.local, self.remote = local, remote
        local.parent.mkdir(parents=True, exist_ok=True)
        if not local.exists():  # a replacement machine continues its predecessor's log
            with contextlib.suppress(Exception):
                files.write_bytes(local, remote.read_bytes(), any_process=True)
        self.write(b"")  # so that it is there
        self.uploaded = 0
        self.lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes to the log and to standard output."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with (
            contextlib.suppress(OSError),  # a full disk does not stop the run
            os.fdopen(disk.open_unlinked(self.local, flags), "ab") as file,
        ):
            file.write(data)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def say(self, text: str) -> None:
        """Writes a line of the worker's own, with the time."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        self.write(f"{now} worker: {text}\n".encode())

    def upload(self) -> None:
        """Copies the end of the log; an unreachable bucket does not stop the run."""
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
                self.say(f"cannot copy the log to {self.remote}: {error}")


class Worker:
    """One host's part of a run; `run` returns the exit code for the program that restarts it."""

    program = (sys.executable, "-m", "ait_jax.cli")

    def __init__(self, options: argparse.Namespace, command: Sequence[str]) -> None:
        self.options, self.command = options, list(command)
        self.log = Log(
            Path(options.work_dir) / f"host_{options.host}.log",
            statuses.path_of(options.folder, "logs", options.host),
        )
        self.status_path = statuses.path_of(options.folder, "status", options.host)
        hostname = socket.gethostname()
        self.status = Status(options.host, "starting", hostname, fingerprint=options.fingerprint)
        self.exit_code: int | None = None
        self.stopping = threading.Event()
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.child: subprocess.Popen | None = None

    def run(self) -> int:
        """Runs attempts until the run is over or SIGTERM comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if known := self._read(self.options.host):
            self.status.attempt, self.status.failures = known.attempt, known.failures
            if known.state == "failed":
                self.log.say(f"failed already: {known.message}")
                return self._over(ExitCode.PREFLIGHT)
            if known.state in ("preflight", "running") and not self._survives(known):
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
            verdict = judge(code, self.status.failures, lasted, self.options.max_retries)
            self.status.failures = verdict.failures
            self._report(verdict.state, verdict.reason, code)
            if verdict.state == "failed":
                return self._over(ExitCode.PREFLIGHT)
            if verdict.state == "done" and self._first_host_ends():
                return self._over(ExitCode.OK)
            if self.stopping.wait(verdict.pause_s * self.options.pause_scale):
                self._report("preempted", "stopped by SIGTERM between attempts", code)
                return ExitCode.PREEMPTED

    def _survives(self, known: Status) -> bool:
        """Counts an attempt that ended without a status: the host rebooted or ran out of memory.

        It does not count on a replacement machine: losing a machine is never a failure of the run.
        """
        if known.hostname != self.status.hostname:
            self._report("starting", f"replaces {known.hostname}, which is gone")
            return True
        lasted = known.time - known.began
        verdict = judge(-9, self.status.failures, lasted, self.options.max_retries)
        self.status.failures = verdict.failures
        state = "failed" if verdict.state == "failed" else "starting"
        self._report(state, f"the last attempt ended without a status: {verdict.reason}")
        return state != "failed"

    def _ended_elsewhere(self) -> tuple[str, str] | None:
        """Returns `failed` if another host has given up: the rest would wait for it in vain.

        Returns `done` if host 0, which writes the shared files, is done: it will not return.
        """
        for host in range(self.options.hosts):
            status = self._read(host)
            if status and status.state == "failed":
                return "failed", f"given up: host {host} ({status.hostname}): {status.message}"
            if status and status.state == "done" and host == 0:
                return "done", "host 0 is done"
        return None

    def _first_host_ends(self) -> bool:
        """Waits for host 0 to end; False if it, and so this host, needs another attempt."""
        while self.options.host != 0:
            status = self._read(0)
            if status and status.state in ("done", "failed"):
                return True
            if status and status.state in ("waiting", "preempted", "preflight"):
                return False
            if self.stopping.wait(self.options.poll_s):
                return True
        return True

    def _attempt(self) -> int:
        self.status.attempt += 1
        self.status.began = round(time.time(), 1)
        if not self.options.skip_preflight:
            self._report("preflight", "")
            module = (sys.executable, "-m", "ait_jax.launch.preflight")
            names = "folder host hosts chips topology expect_backend commit lock arrival_timeout_s"
            given = {name: getattr(self.options, name) for name in names.split()}
            code = self._call([*module, *flags(**given)])
            if code != ExitCode.OK:
                return code
        self._report("running", "")
        return self._call([*self.program, *self.command])

    def _call(self, command: list[str]) -> int:
        """Runs `command` into the log and kills what it leaves behind, which would keep the TPU."""
        if self.stopping.is_set():
            return ExitCode.PREEMPTED
        self.log.say(f"attempt {self.status.attempt}: {shlex.join(command)}")
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        if self.stopping.is_set():  # SIGTERM came between the check and the start
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

    def _copy(self, pipe: Any) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 2**16):
                self.log.write(data)

    def _stop(self, *_: Any) -> None:
        """On SIGTERM: lets the command save, and kills it after the grace period."""
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
        self.status.state, self.status.message, self.exit_code = state, message, code
        if message:
            self.log.say(f"{state}: {message}")
        self.log.upload()
        # Nothing repeats the last status, and others wait for it.
        for _ in range(LAST_WRITES if state in ("done", "failed") else 1):
            if self._write_status() or self.stopping.wait(self.options.poll_s):
                return

    def _write_status(self) -> bool:
        with self.lock:  # an older status must not follow a newer one
            self.status.time = round(time.time(), 1)
            try:
                value = vars(self.status) | {"exit_code": self.exit_code}
                statuses.write_json(self.status_path, value)
                return True
            except Exception as error:
                self.log.say(f"cannot write the status: {error}")
                return False

    def _upload_until_ended(self) -> None:
        while not self.ended.wait(UPLOAD_EVERY_S):
            self.log.upload()
            if self.status.state not in ("done", "failed"):
                self._write_status()

    def _read(self, host: int) -> Status | None:
        path = statuses.path_of(self.options.folder, "status", host)
        try:
            found = statuses.parse(files.read_text(path))
        except FileNotFoundError:
            return None
        except Exception as error:  # it is read again; ending here would count as a failure
            self.log.say(f"cannot read the status of host {host}: {error}")
            return None
        own = [status for status in found if status.fingerprint == self.options.fingerprint]
        return own[0] if own else None

    def _over(self, code: int) -> int:
        """Host 0 deletes the TPU if nobody else has: an idle TPU costs as much as a busy one."""
        if not self.options.when_over or self.options.host != 0:
            return code
        self.log.upload()
        if not self.stopping.wait(self.options.when_over_after_s):
            self.log.say(f"nobody has deleted this TPU: {self.options.when_over}")
            line = shlex.split(self.options.when_over)
            done = subprocess.run(
                line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            self.log.write(done.stdout)
            if done.returncode:
                self.log.say("deleting it failed; it still costs money")
        return code


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the worker's own flags."""
    parser = argparse.ArgumentParser(
        prog="ait_jax.launch.worker", allow_abbrev=False, parents=[preflight.shared_flags()]
    )
    parser.add_argument("--run_id", required=True)
    parser.add_argument("--host", type=int, help="default: GKE's or SLURM's number")
    parser.add_argument("--fingerprint", default="")
    parser.add_argument("--max_retries", type=int, default=5)
    parser.add_argument("--work_dir", required=True)
    parser.add_argument("--skip_preflight", action="store_true")
    parser.add_argument("--poll_s", type=float, default=15.0)
    parser.add_argument("--pause_scale", type=float, default=1.0)
    parser.add_argument("--grace_s", type=float, default=GRACE_S, help="to save after SIGTERM")
    parser.add_argument("--when_over", default="", help="a command line for host 0 at the end")
    parser.add_argument("--when_over_after_s", type=float, default=900.0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command after `--` as the flags before it say; returns the exit code."""
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
