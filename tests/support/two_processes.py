"""Two Python processes that find each other, each with two devices of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence


def run(arguments: Callable[[int, str], Sequence[str]]) -> None:
    """Runs `python ARGUMENTS` twice at once; both must end well.

    Args:
      arguments: (process, the coordinator's address) -> what follows `python`.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments(index, address)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
