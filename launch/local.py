"""Runs one command in several processes on this machine, as the hosts of a pod do."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from ait_jax.launch.launch_spec import check_least

from ait_jax.errors import ExitCode, UserError
from ait_jax.runtime import distributed, preemption

# The others notice a dead process and leave by themselves; after this they are killed.
_SECONDS_TO_LEAVE = 60.0
_DEVICES_FLAG = "--xla_force_host_platform_device_count"


class _Process:
    """One started process, whose lines are printed with its number."""

    def __init__(self, index: int, handle: subprocess.Popen) -> None:
        self.index, self.handle = index, handle
        self.reader = threading.Thread(target=self._forward, daemon=True)
        self.reader.start()

    def _forward(self) -> None:
        for line in self.handle.stdout or ():
            if line.startswith("[Gloo] Rank"):  # every connection of every device
                continue
            sys.stdout.write(f"[{self.index}] {line}")
            sys.stdout.flush()


def launch(
    command: Sequence[str],
    processes: int,
    devices_per_process: int | None = None,
    *,
    program: Sequence[str] = ("-m", "ait_jax.cli"),
) -> int:
    """Runs `ait-jax COMMAND` in every process and returns one exit code for all.

    A user's mistake (2) takes precedence over preemption (75), a lost process (69) and any other
    failure (1). SIGTERM and Ctrl-C are passed on.

    Args:
      devices_per_process: CPU devices of each; None leaves JAX the devices it finds.
      program: what Python runs.

    Raises:
      UserError: a number is below 1, or there is no command.
    """
    check_least(1, processes=processes, devices_per_process=devices_per_process)
    if not command:
        raise UserError(
            "Nothing to run: give the command after `--`: `ait-jax launch local --processes=2 -- "
            "run --gin.MODEL_DIR=runs/a`."
        )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    line = [*program, *command]
    started = [
        _Process(i, _start(line, coordinator, i, processes, devices_per_process))
        for i in range(processes)
    ]
    with preemption.caught(lambda number: _tell(started, number)):
        try:
            _wait(started)
        finally:
            for process in started:
                process.handle.kill()
                process.handle.wait()
                process.reader.join(timeout=5)
    return _together([process.handle.returncode for process in started])


def _start(
    command: Sequence[str], coordinator: str, index: int, count: int, devices: int | None
) -> subprocess.Popen:
    environment = (
        os.environ
        | distributed.past_proxies(coordinator)
        | {
            distributed.KIND: "local",
            distributed.COORDINATOR: coordinator,
            distributed.COUNT: str(count),
            distributed.INDEX: str(index),
            "PYTHONUNBUFFERED": "1",
        }
    )
    if devices is not None:
        flags = environment.get("XLA_FLAGS", "").split()
        kept = [flag for flag in flags if not flag.startswith(_DEVICES_FLAG)]
        environment["XLA_FLAGS"] = " ".join([*kept, f"{_DEVICES_FLAG}={devices}"])
        environment["JAX_PLATFORMS"] = "cpu"
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C reaches only the launcher, which passes it on once.
        start_new_session=True,
    )


def _tell(started: Sequence[_Process], number: int) -> None:
    for process in started:
        if process.handle.poll() is None:
            process.handle.send_signal(number)


def _wait(started: Sequence[_Process]) -> None:
    """Returns when all have ended, or `_SECONDS_TO_LEAVE` after the first failure."""
    failed_at = None
    running = list(started)
    while running:
        for process in [process for process in running if process.handle.poll() is not None]:
            running.remove(process)
            if process.handle.returncode:
                failed_at = failed_at or time.monotonic()
                process.reader.join(timeout=5)
                code = process.handle.returncode
                ended = f"exited with {code}"
                if code < 0:
                    ended = f"was killed by {signal.Signals(-code).name}"
                print(f"ait-jax: process {process.index} {ended}", file=sys.stderr, flush=True)
        if failed_at is not None and time.monotonic() - failed_at > _SECONDS_TO_LEAVE:
            return
        time.sleep(0.1)


def _together(codes: Sequence[int]) -> int:
    if all(code == 0 for code in codes):
        return 0
    for code in (ExitCode.USER_ERROR, ExitCode.PREEMPTED, ExitCode.INTERRUPTED):
        if code in codes:
            return code
    # A killed process makes the others leave with HOST_LOST, and retrying helps.
    lost = any(code < 0 or code == ExitCode.HOST_LOST for code in codes)
    return ExitCode.HOST_LOST if lost and ExitCode.FAILED not in codes else ExitCode.FAILED
