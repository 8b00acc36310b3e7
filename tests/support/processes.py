"""Processes with devices of their own: their environment, and two of them that find each other."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence


def environment(devices: int) -> dict[str, str]:
    """Returns this process's environment with another number of virtual devices."""
    flags = re.sub(r"(device_count=)\d+", rf"\g<1>{devices}", os.environ["XLA_FLAGS"])
    return os.environ | {"XLA_FLAGS": flags}


def run(arguments: Callable[[int, str], Sequence[str]]) -> None:
    """Runs `python ARGUMENTS` twice at once; both must end well.

    Args:
      arguments: (process, the coordinator's address) -> what follows `python`.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments(index, address)],
            env=environment(devices=2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
