"""The start-up script of a Cloud TPU VM: installs Python, the code and the lock; starts the worker.

It runs as root at every boot of every host and leaves a systemd service that restarts what dies, so
no ssh connection has to last. TPU VM images come with Python 3.10, which current JAX does not
support; uv installs 3.11. Its here-documents (launch/assets) end at lines that no command contains,
because a command is one line.
"""

import shlex

from ait_jax.launch import gcloud
from ait_jax.launch.launch_spec import LaunchSpec, filled
from ait_jax.launch.source import LOCK, Source

UV_VERSION = "0.13.9"
PYTHON_VERSION = "3.11"
ROOT = "/opt/ait_jax"
UNITS = "/etc/systemd/system"


def script(
    spec: LaunchSpec,
    source: Source,
    root: str = ROOT,
    units: str = UNITS,
    pauses: str = "5 10 20 40 80",
    idle_s: int = 900,
) -> str:
    """Returns the start-up script, for bash."""
    run = f"{root}/{spec.name}"
    flags = spec.worker_flags(source.commit)
    when_over = ""
    if spec.deletes:
        when_over = shlex.join(gcloud.delete(spec, wait=False))
        flags.append(f"--when_over={when_over}")
        # As in the worker: an idle TPU costs as much as a busy one.
        when_over = f'if [ "$host" = 0 ]; then sleep {idle_s}; {when_over} || true; fi'
    host = filled(
        "host.sh",
        run=shlex.quote(run),
        folder=shlex.quote(spec.folder),
        stem=source.stem,
        fingerprint=spec.fingerprint(),
        hosts=spec.accelerator.hosts,
        sha256=source.sha256,
        uv_version=UV_VERSION,
        python_version=PYTHON_VERSION,
        lock=LOCK,
        pauses=pauses,
        when_over=when_over or ":",
        flags=" ".join(shlex.quote(flag) for flag in flags),
        command=shlex.join(spec.command),
    )
    service = f"ait-jax-{spec.name}.service"
    return filled(
        "startup.sh",
        name=spec.name,
        run=shlex.quote(run),
        units=shlex.quote(units),
        unit_path=shlex.quote(f"{units}/{service}"),
        service=service,
        host=host,
        unit=filled("worker.service", name=spec.name, run=run),
    )
