"""A launch as text: the start-up script of its hosts, a dry run, and what it costs.

The start-up script runs as root at every boot of every host and leaves a systemd service that
restarts what dies, so no ssh connection has to last. TPU VM images come with Python 3.10, which
current JAX does not support; uv installs 3.11. The script's here-documents (launch/assets) end at
lines that no command contains, because a command is one line.
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


def logs_command(spec: LaunchSpec) -> str:
    """Returns the line that prints the hosts' logs."""
    return shlex.join(
        ["ait-jax", "launch", "logs", f"--name={spec.name}", f"--bucket={spec.bucket}"]
    )


def costs(spec: LaunchSpec) -> str:
    """Says that the TPU costs money, and how to stop that."""
    if spec.use_existing:
        return f"It costs money until whoever created {spec.node} deletes it."
    return f"It costs money until it is deleted: {shlex.join(gcloud.delete(spec))}"


def going_on(spec: LaunchSpec) -> str:
    """Says what goes on after Ctrl-C."""
    end = " Host 0 tries to delete it 15 minutes after the run's end." if spec.deletes else ""
    return (
        f"{spec.node} goes on without this program, and its hosts restart by themselves. "
        f"{costs(spec)}\n"
        f"To watch again: the same command. Logs: {logs_command(spec)}.{end}"
    )


def dry_run(spec: LaunchSpec, source: Source) -> str:
    """Returns every command of a launch, as a script for bash up to the TPU's creation."""
    archive, url = f"{source.stem}.tar.gz", f"{spec.folder}/startup.sh"
    watch = [
        gcloud.describe(spec, node=True),
        gcloud.storage("cat", f"{spec.folder}/status/host_*.json"),
    ]
    after = []
    if spec.use_existing:
        starting, start = "Start on a TPU VM that is there.", gcloud.deliver(spec, url)
    else:
        starting, start = "Ask for the TPU.", gcloud.create(spec, "startup.sh")
        watch.insert(0, gcloud.describe(spec))
        end = "At the end" if spec.deletes else "It is kept at the end. To stop paying"
        after = ["When it was preempted or suspended: delete, then ask again.", f"{end}:"]
        after.append(shlex.join(gcloud.delete(spec)))
    archiving = ["git", "archive", "--format=tar.gz", f"--output={archive}", source.commit]
    return filled(
        "dry_run.sh",
        slice=spec.accelerator.describe(),
        tier=spec.tier,
        runtime_version=spec.runtime_version,
        command=shlex.join(["ait-jax", *spec.command]),
        archive=shlex.join(archiving),
        send_archive=shlex.join(gcloud.storage("cp", archive, f"{spec.folder}/code/{archive}")),
        script=script(spec, source),
        send_script=shlex.join(gcloud.storage("cp", "startup.sh", url)),
        forget=shlex.join(gcloud.storage("rm", f"{spec.folder}/status/**")),
        starting=starting,
        start=shlex.join(start),
        watch="\n".join(f"# {line}" for line in [*map(shlex.join, watch), *after]),
        logs=logs_command(spec),
    )
