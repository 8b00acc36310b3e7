"""A launch in words: every command of a dry run, and what it costs."""

import shlex

from ait_jax.launch import gcloud, startup
from ait_jax.launch.launch_spec import LaunchSpec
from ait_jax.launch.source import Source


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
    folder = spec.folder
    script = startup.script(spec, source)
    archive = f"{source.stem}.tar.gz"
    status = f"{folder}/status/**"
    lines = [
        f"# {spec.accelerator.describe()}, {spec.tier}, runtime {spec.runtime_version}",
        f"# hosts run: {shlex.join(['ait-jax', *spec.command])}",
        "",
        "# Code: one commit, and the script that every host runs at boot.",
        shlex.join(["git", "archive", "--format=tar.gz", f"--output={archive}", source.commit]),
        shlex.join(gcloud.copy(archive, f"{folder}/code/{archive}")),
        "cat > startup.sh <<'AIT_JAX_STARTUP'",
        f"{script}AIT_JAX_STARTUP",
        shlex.join(gcloud.copy("startup.sh", f"{folder}/startup.sh")),
        f"{shlex.join(gcloud.remove(status))} || true",
        "",
    ]
    if spec.use_existing:
        lines += [
            "# Start on a TPU VM that is there.",
            shlex.join(gcloud.deliver(spec, f"{folder}/startup.sh")),
        ]
    else:
        lines += ["# Ask for the TPU.", shlex.join(gcloud.create(spec, "startup.sh"))]
    watch = [] if spec.use_existing else [gcloud.describe(spec)]
    watch += [gcloud.describe_node(spec), gcloud.cat(f"{folder}/status/host_*.json")]
    lines += ["", "# Watch, until every host is done or one has given up."]
    lines += [f"# {shlex.join(arguments)}" for arguments in watch]
    if not spec.use_existing:
        lines += ["# When it was preempted or suspended: delete, then ask again."]
        what = "At the end" if spec.deletes else "It is kept at the end. To stop paying"
        lines += [f"# {what}:", f"# {shlex.join(gcloud.delete(spec))}"]
    lines += ["# Logs of all hosts:", f"# {logs_command(spec)}"]
    return "\n".join(lines) + "\n"
